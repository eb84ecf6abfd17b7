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
	guard, packed := plain.(*bombGuard)
	if !packed {
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
	if err := errors.Join(os.Remove(out.Name()), withHoles(ctx, out, io.MultiReader(bytes.NewReader(head[:n]), guard), func(n int) { guard.out -= int64(n) })); err != nil {
		return nil, fmt.Errorf("decompress the disk: %w", errors.Join(err, out.Close()))
	}
	return out, nil
}

// withHoles copies r to an empty file until ctx ends, with holes where there are zeros. It reports
// most of these zeros with omitted.
func withHoles(ctx context.Context, out *os.File, r io.Reader, omitted func(n int)) error {
	w := &holeWriter{layer.SparseWriter{File: out}, omitted}
	for ctx.Err() == nil {
		if _, err := io.CopyN(w, r, 1<<20); errors.Is(err, io.EOF) {
			return out.Truncate(w.Size)
		} else if err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// holeWriter reports each write of nothing but zeros with omitted.
type holeWriter struct {
	layer.SparseWriter
	omitted func(n int)
}

func (w *holeWriter) Write(b []byte) (int, error) {
	if bytes.Count(b, []byte{0}) == len(b) {
		w.omitted(len(b))
	}
	return w.SparseWriter.Write(b)
}
