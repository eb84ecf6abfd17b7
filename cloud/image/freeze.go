package image

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"bake/cloud/confined"
	"bake/cloud/durable"
)

// NewLayerID returns a new layer id, for [Store.Freeze].
func NewLayerID() LayerID {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return LayerID("layer-" + hex.EncodeToString(random[:]))
}

// Freeze turns upper, the upper directory of a stopped machine, into a layer by renaming it: upper
// no longer exists afterwards. The caller chooses the id, so that it can record the id beforehand.
// On error, or if the process dies during the call and the layer does not exist, upper is unchanged
// and [Store.Has] returns false.
func (s *Store) Freeze(ctx context.Context, id LayerID, upper confined.Dir) error {
	if !layerPattern.Get().MatchString(string(id)) {
		return fmt.Errorf("make a layer: %q is not a layer id", id)
	}
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_SH)
	if err != nil {
		return s.explain("make a layer", err)
	}
	defer unlock()
	// Write the record first: the next Open deletes a directory without a record, whereas a record
	// without a directory is not a layer.
	if err := writeRecord(s.recordPath(id), layerRecord{ID: id, Created: time.Now().UTC()}); err != nil {
		return s.explain("make a layer", err)
	}
	if err := upper.Rename(s.path("layers", string(id))); err != nil {
		err = errors.Join(err, removeRecord(s.recordPath(id)))
		if errors.Is(err, syscall.EXDEV) {
			return s.elsewhere(upper.Path())
		}
		return s.explain("make a layer", err)
	}
	return durable.SyncDir(s.path("layers"))
}

// Has reports whether the layer exists, with its content.
func (s *Store) Has(id LayerID) bool {
	path, err := s.Path(id)
	if err != nil {
		return false
	}
	_, err = os.Stat(path)
	return err == nil
}
