package compress

import (
	"archive/tar"
	"archive/zip"
	"cmp"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/dsnet/compress/bzip2"
	"github.com/klauspost/pgzip"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"bake/internal/delay"
	"bake/internal/hostpath"
)

var algorithms = []string{"gz", "bgzf", "bzip2", "xz", "lz4"}

// encode writes files to w in a form. A level of -1 or 0 is the default of the
// algorithm.
func encode(ctx context.Context, w io.Writer, as form, level int, files []string) error {
	if level = min(level, 9); level == 0 {
		level = -1
	}
	to, err := compressor(w, as.algorithm, level)
	if err != nil {
		return err
	}
	// The same files always make the same archive.
	files = slices.Clone(files)
	sort.Slice(files, func(i, j int) bool {
		a, b := files[i], files[j]
		return cmp.Or(strings.Compare(filepath.Base(a), filepath.Base(b)), strings.Compare(a, b)) < 0
	})
	switch as.archive {
	case "tar":
		err = writeTar(ctx, to, files)
	case "zip":
		err = writeZip(ctx, to, level, files)
	default:
		for _, name := range files { // one, or none
			err = withFile(ctx, name, func(_ fs.FileInfo, r io.Reader) error {
				_, err := io.Copy(to, r)
				return err
			})
		}
	}
	return errors.Join(err, to.Close())
}

// compressor returns a writer that compresses data and writes it to w.
func compressor(w io.Writer, algorithm string, level int) (io.WriteCloser, error) {
	switch algorithm {
	case "gz":
		return pgzip.NewWriterLevel(w, level)
	case "bgzf":
		return newBGZF(w, level), nil
	case "bzip2":
		if level == -1 {
			level = bzip2.DefaultCompression
		}
		return bzip2.NewWriter(w, &bzip2.WriterConfig{Level: level})
	case "xz":
		return xz.NewWriter(w)
	case "lz4":
		z := lz4.NewWriter(w)
		options := []lz4.Option{lz4.ConcurrencyOption(runtime.GOMAXPROCS(0))}
		if level > 0 {
			options = append(options, lz4.CompressionLevelOption(lz4Levels[level-1]))
		}
		return z, z.Apply(options...)
	}
	return uncompressed{w}, nil
}

var lz4Levels = []lz4.CompressionLevel{lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9}

type uncompressed struct{ io.Writer }

func (uncompressed) Close() error { return nil }

func writeTar(ctx context.Context, w io.Writer, files []string) error {
	t := tar.NewWriter(w)
	for _, name := range files {
		err := withFile(ctx, name, func(info fs.FileInfo, r io.Reader) error {
			h := &tar.Header{
				Typeflag: tar.TypeReg, Name: filepath.Base(name), Size: info.Size(),
				Mode: int64(hostpath.Perm(info.Mode())), ModTime: time.Unix(0, 0),
			}
			if err := t.WriteHeader(h); err != nil {
				return err
			}
			_, err := io.Copy(t, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	return t.Close()
}

func writeZip(ctx context.Context, w io.Writer, level int, files []string) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, level) })
	for _, name := range files {
		err := withFile(ctx, name, func(info fs.FileInfo, r io.Reader) error {
			h := &zip.FileHeader{Name: filepath.Base(name), Method: zip.Deflate}
			h.SetMode(hostpath.Perm(info.Mode()))
			entry, err := z.CreateHeader(h)
			if err != nil {
				return err
			}
			_, err = io.Copy(entry, r)
			return err
		})
		if err != nil {
			return err
		}
	}
	return z.Close()
}

// withFile calls f with the content of a file. Errors name the file.
func withFile(ctx context.Context, name string, f func(fs.FileInfo, io.Reader) error) error {
	file, err := hostpath.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil {
		err = f(info, delay.Reader(ctx, file))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
