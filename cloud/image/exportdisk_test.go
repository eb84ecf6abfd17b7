package image_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bake/cloud/image"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// begins is a driver that calls begun before it packs a layer.
type begins struct {
	machine.Driver
	begun func()
}

func (b *begins) Pack(ctx context.Context, dir string, w io.Writer) error {
	b.begun()
	return b.Driver.Pack(ctx, dir, w)
}

// TestExportDiskEnds checks that an export ends soon after it is cancelled, however large the holes
// in the files are.
func TestExportDiskEnds(t *testing.T) {
	driver := &begins{Driver: &machinetest.Driver{}, begun: func() {}}
	s, err := image.Open(t.TempDir(), driver)
	if err != nil {
		t.Fatal(err)
	}
	upper := makeUpper(t, "sparse")
	if err := os.Truncate(filepath.Join(upper, "sparse"), 1<<40-1<<20); err != nil {
		t.Fatal(err)
	}
	id, err := freeze(t.Context(), s, upper)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	driver.begun = func() { time.AfterFunc(50*time.Millisecond, func() { cancel(stop) }) } // writing the file takes minutes
	err = s.ExportDisk(ctx, []image.LayerID{id}, 1<<30, func(_, _ int64) {}, func(*os.File) error { return errors.New("a disk was made") })
	if !errors.Is(err, stop) {
		t.Errorf("%v", err)
	}
}
