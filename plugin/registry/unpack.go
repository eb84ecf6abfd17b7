package registry

import (
	"archive/zip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"bake/internal/hostpath"
	"bake/internal/lazyregexp"
)

// Limits on archives.
const (
	maxBinary    = 1 << 30 // bytes after unpacking
	maxDirectory = 1 << 20 // bytes of the list of files
)

// beside matches files that an archive may contain besides the plugin. They are not
// unpacked.
var beside = lazyregexp.New(`(?i)^(licen[cs]e|notice|readme|changelog)(\.(txt|md))?$`)

// unpack writes the file called name in archive to out. An archive contains only that
// file, apart from a license and the like; anything else in it is an error, and so is a
// file of more than limit bytes.
func unpack(archive *os.File, name string, out io.Writer, limit int64) error {
	info, err := archive.Stat()
	if err != nil {
		return err
	}
	source := &metered{ReaderAt: archive, left: maxDirectory}
	z, err := zip.NewReader(source, info.Size())
	if err != nil {
		return fmt.Errorf("it is not a zip archive: %w", err)
	}
	source.left = math.MaxInt64
	var found *zip.File
	for _, f := range z.File {
		switch {
		case f.Name == name && found == nil && f.Mode().IsRegular():
			found = f
		case f.Name == name:
			return fmt.Errorf("it contains %s more than once, or not as a regular file", name)
		case !beside.Get().MatchString(f.Name):
			return fmt.Errorf("it contains %q; a plugin archive contains only %s", clip(f.Name), name)
		}
	}
	if found == nil {
		return fmt.Errorf("it does not contain %s", name)
	}
	r, err := found.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return copyAtMost(out, r, limit)
}

// copyAtMost copies the content of r. More than limit bytes are an error.
func copyAtMost(w io.Writer, r io.Reader, limit int64) error {
	n, err := io.Copy(w, io.LimitReader(r, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("the plugin is larger than %d bytes", limit)
	}
	return err
}

// metered is a reader that fails when more than left bytes are read.
type metered struct {
	io.ReaderAt
	left int64
}

func (m *metered) ReadAt(b []byte, at int64) (int, error) {
	if m.left -= int64(len(b)); m.left < 0 {
		return 0, errors.New("its list of files is too long")
	}
	return m.ReaderAt.ReadAt(b, at)
}

// sumOfFile returns the SHA-256 checksum of a file, from its start.
func sumOfFile(f *os.File) (string, error) {
	if err := seek(f, 0); err != nil {
		return "", err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sumOf returns the SHA-256 checksum of the file at path.
func sumOf(path string) (string, error) {
	f, err := hostpath.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return sumOfFile(f)
}
