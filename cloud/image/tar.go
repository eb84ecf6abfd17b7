package image

import (
	"archive/tar"
	"bufio"
	"bytes"
	"cmp"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"bake/cloud/image/disk"
)

// ImportOptions describe a base to be made from existing content.
type ImportOptions struct {
	Name     string         // of the base
	User     string         // login user; empty means the one that the image names, or root
	Arch     string         // GOARCH; empty means the host's
	Source   string         // human-readable origin
	Size     int64          // bytes to read, for the progress; 0 means unknown
	Progress func(Progress) // may be nil; calls do not overlap
}

// ImportTar makes a base from a root file system in a tar archive, which may be compressed with
// gzip, xz, zstd or bzip2. The file name does not matter.
func (s *Store) ImportTar(ctx context.Context, r io.Reader, o ImportOptions) (Base, error) {
	if err := checkBaseName(o.Name); err != nil {
		return Base{}, err
	}
	plain, err := decompress(&progressReader{r: r, report: o.Progress, p: Progress{Phase: "unpack the archive", Total: o.Size}})
	if err != nil {
		return Base{}, fmt.Errorf("import base %s: %w", o.Name, err)
	}
	defer plain.Close()
	archive := bufio.NewReaderSize(plain, 64<<10)
	if err := checkArchive(archive, cmp.Or(o.Source, "the file")); err != nil {
		return Base{}, err
	}
	id, err := s.importLayer(ctx, archive, layerRecord{}, checkRoot)
	if err != nil {
		return Base{}, s.explain("import base "+o.Name, err)
	}
	return s.baseOf(ctx, id, o, o.User, 0)
}

// checkArchive returns an error that says what can be imported unless r begins like a tar archive.
func checkArchive(r *bufio.Reader, source string) error {
	head, err := r.Peek(tarBlock)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", source, err)
	}
	if _, err := tar.NewReader(bytes.NewReader(head)).Next(); len(head) == tarBlock && !errors.Is(err, tar.ErrHeader) {
		return nil
	}
	what := "neither a tar archive nor a disk image that bake recognizes"
	if len(head) == 0 {
		what = "empty"
	}
	return fmt.Errorf("%s is %s: import a tar archive of a root file system, or a disk in one of the formats %s", source, what, strings.Join(disk.Formats, ", "))
}

// baseOf makes a base with a single layer and a root volume of size GiB. If it fails, it removes
// the layer.
func (s *Store) baseOf(ctx context.Context, id LayerID, o ImportOptions, user string, size int32) (Base, error) {
	b := Base{
		Name:       o.Name,
		Layers:     []LayerID{id},
		Arch:       cmp.Or(o.Arch, runtime.GOARCH),
		User:       orRoot(user),
		RootDevice: rootDevice,
		Size:       size,
		Source:     o.Source,
		Created:    time.Now().UTC(),
	}
	if err := s.SaveBase(b); err != nil {
		return Base{}, errors.Join(err, s.Remove(context.WithoutCancel(ctx), id))
	}
	return b, nil
}

func orRoot(user string) string {
	if user == "" {
		return "root"
	}
	return user
}

// checkRoot returns an error if dir does not look like a root file system.
func checkRoot(dir string) error {
	for _, name := range []string{"bin/sh", "usr/bin/sh", "sbin/init", "usr/sbin/init"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil
		}
	}
	return errors.New("there is no root file system in it: it has neither /bin/sh nor /sbin/init at its top")
}

// decompress returns the decompressed content of r. It recognizes the compression by the first
// bytes, and passes other content through.
func decompress(r io.Reader) (io.ReadCloser, error) {
	in := &countingReader{r: r}
	b := bufio.NewReaderSize(in, 64<<10)
	magic, err := b.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	var content io.ReadCloser
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		content, err = gzip.NewReader(b)
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		var x *xz.Reader
		x, err = xz.NewReader(b)
		content = io.NopCloser(x)
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(b); err == nil {
			content = z.IOReadCloser()
		}
	case bytes.HasPrefix(magic, []byte("BZh")):
		content = io.NopCloser(bzip2.NewReader(b))
	default:
		return io.NopCloser(b), nil
	}
	if err != nil {
		return nil, err
	}
	return &bombGuard{ReadCloser: content, in: in}, nil
}

// A file system usually compresses by a factor of 3 to 10. Large content that grows by more than
// maxExpansion is considered an attempt to fill the disk.
const (
	maxExpansion = 200
	harmlessSize = 1 << 30
)

// bomb reports whether compressed data with these sizes is considered a decompression bomb.
func bomb(packed, plain int64) bool { return plain > harmlessSize && plain/maxExpansion > packed }

// bombGuard fails if the data that it decompresses is a decompression bomb.
type bombGuard struct {
	io.ReadCloser
	in  *countingReader
	out int64 // bytes that take up space
}

func (g *bombGuard) Read(b []byte) (int, error) {
	n, err := g.ReadCloser.Read(b)
	g.out += int64(n)
	if bomb(g.in.n.Load(), g.out) {
		return 0, fmt.Errorf("%d bytes decompress to more than %d: this looks like a decompression bomb; if it is not one, decompress it before importing it", g.in.n.Load(), g.out)
	}
	return n, err
}

// countingReader counts the bytes read through it. It is safe for concurrent use, since
// decompressors read ahead in their own goroutines.
type countingReader struct {
	r io.Reader
	n atomic.Int64
}

func (c *countingReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n.Add(int64(n))
	return n, err
}

// progressReader reports the bytes read through it, once for each megabyte.
type progressReader struct {
	r      io.Reader
	report func(Progress)
	p      Progress
	told   int64
}

func (r *progressReader) Read(b []byte) (int, error) {
	n, err := r.r.Read(b)
	r.p.Done += int64(n)
	if r.report != nil && (r.p.Done-r.told >= 1<<20 || err == io.EOF) {
		r.told = r.p.Done
		r.report(r.p)
	}
	return n, err
}
