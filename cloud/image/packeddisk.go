package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"bake/cloud/image/disk"
	"bake/cloud/machine/layer"
)

// diskHead is how much of a disk's image is enough to recognize it.
const diskHead = 128 << 10

// UnpackDisk returns the content of a disk's image that is compressed with gzip, xz, zstd or
// bzip2: a file without a name, with holes where there are zeros, which the caller closes. It
// is nil if the file f is none. f is left at its beginning.
func (s *Store) UnpackDisk(ctx context.Context, f *os.File, report func(Progress)) (out *os.File, err error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	defer func() {
		if _, serr := f.Seek(0, io.SeekStart); serr != nil {
			err = errors.Join(err, serr)
		}
	}()
	plain, err := decompress(&progressReader{r: f, report: report, p: Progress{Phase: "decompress the disk", Total: info.Size()}})
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if _, packed := plain.(*bombGuard); !packed {
		return nil, nil
	}
	head := make([]byte, diskHead)
	n, err := io.ReadFull(plain, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, nil // what is wrong with it is found where it is read as an archive
	}
	if disk.Detect(bytes.NewReader(head[:n]), int64(n)) == "" {
		return nil, nil
	}
	if out, err = os.CreateTemp(s.path("tmp"), "disk-"); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Remove(out.Name()), withHoles(ctx, out, io.MultiReader(bytes.NewReader(head[:n]), plain))); err != nil {
		return nil, fmt.Errorf("decompress the disk: %w", errors.Join(err, out.Close()))
	}
	return out, nil
}

// withHoles copies r to an empty file until ctx ends, with holes where there are zeros.
func withHoles(ctx context.Context, out *os.File, r io.Reader) error {
	w := &layer.SparseWriter{File: out}
	for ctx.Err() == nil {
		if _, err := io.CopyN(w, r, 1<<20); errors.Is(err, io.EOF) {
			return out.Truncate(w.Size)
		} else if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}
