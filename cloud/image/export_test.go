package image

import (
	"context"
	"io"
)

// Import makes a layer from a tar stream.
func (s *Store) Import(ctx context.Context, tar io.Reader) (LayerID, error) {
	id, err := s.importLayer(ctx, tar, layerRecord{}, func(string) error { return nil })
	return id, s.explain("import a layer", err)
}
