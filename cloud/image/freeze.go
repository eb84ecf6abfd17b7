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

// NewLayerID returns an id that no layer has, for [Store.FreezeAs].
func NewLayerID() LayerID {
	var random [8]byte
	rand.Read(random[:]) // never fails
	return LayerID("layer-" + hex.EncodeToString(random[:]))
}

// FreezeAs is [Store.Freeze] with an id that the caller chose beforehand, so
// that the caller can write down what is about to happen. When the process dies
// in it, upper is as it was and [Store.Has] denies the layer, or the layer is
// whole.
func (s *Store) FreezeAs(ctx context.Context, id LayerID, upper confined.Dir) error {
	if !layerPattern().MatchString(string(id)) {
		return fmt.Errorf("make a layer: %q is not a layer id", id)
	}
	unlock, err := lock(ctx, s.path("lock"), syscall.LOCK_SH)
	if err != nil {
		return s.explain("make a layer", err)
	}
	defer unlock()
	// The record first: a directory without one is deleted by the next Open,
	// while a record without a directory is no layer.
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
