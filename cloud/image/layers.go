package image

import (
	"cmp"
	"context"
	"runtime"
	"syscall"
	"time"
)

// ImportLayers makes a base from existing layers, topmost first. of returns them, with any other
// fields to set. Collect deletes none of them until the base is stored. of must not make layers.
func (s *Store) ImportLayers(ctx context.Context, o ImportOptions, of func() (Base, error)) (Base, error) {
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_SH)
	if err != nil {
		return Base{}, s.explain("import base "+o.Name, err)
	}
	defer unlock()
	b, err := of()
	if err != nil {
		return Base{}, err
	}
	b.Name, b.Source, b.Created = o.Name, o.Source, time.Now().UTC()
	b.User = orRoot(cmp.Or(o.User, b.User))
	b.Arch = cmp.Or(b.Arch, o.Arch, runtime.GOARCH)
	b.RootDevice = cmp.Or(b.RootDevice, rootDevice)
	return b, s.SaveBase(b)
}
