package debian

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// deb is an opened binary package (deb(5)).
type deb struct {
	control map[string]controlFile // by name: control, conffiles, postinst, ...
	data    []byte                 // the tar archive of its files, uncompressed
}

type controlFile struct {
	content    []byte
	executable bool
}

// Limits on the uncompressed size of a package's parts, far above the largest real ones, so
// that a damaged package cannot exhaust the memory.
const (
	maxControl = 64 << 20
	maxData    = 4 << 30
)

// openDeb reads a whole package file.
func openDeb(file []byte) (*deb, error) {
	d := &deb{}
	var seenVersion bool
	err := readAr(file, func(name string, content []byte) error {
		switch base := strings.TrimSuffix(name, path.Ext(name)); {
		case name == "debian-binary":
			seenVersion = true
			if !bytes.HasPrefix(content, []byte("2.")) {
				return fmt.Errorf("format version %q is not 2", clip(strings.TrimSpace(string(content))))
			}
		case name == "control.tar" || base == "control.tar":
			b, err := inflate(content, path.Ext(name), maxControl)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if d.control, err = readControl(b); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		case name == "data.tar" || base == "data.tar":
			b, err := inflate(content, path.Ext(name), maxData)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			d.data = b
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case !seenVersion || d.control == nil || d.data == nil:
		return nil, errors.New("it lacks debian-binary, control.tar or data.tar: not a Debian package")
	}
	return d, nil
}

// readAr calls fn for each member of an ar archive (ar(5), the common format).
func readAr(file []byte, fn func(name string, content []byte) error) error {
	const magic, headerSize = "!<arch>\n", 60
	if !bytes.HasPrefix(file, []byte(magic)) {
		return errors.New("not an ar archive")
	}
	for rest := file[len(magic):]; len(rest) > 0; {
		if len(rest) < headerSize || string(rest[58:60]) != "`\n" {
			return errors.New("a damaged member header")
		}
		name := strings.TrimSuffix(strings.TrimRight(string(rest[:16]), " "), "/")
		size, err := strconv.ParseUint(strings.TrimRight(string(rest[48:58]), " "), 10, 63)
		rest = rest[headerSize:]
		if err != nil || size > uint64(len(rest)) {
			return fmt.Errorf("member %q is truncated", clip(name))
		}
		if err := fn(name, rest[:size]); err != nil {
			return err
		}
		rest = rest[size:]
		if size%2 == 1 && len(rest) > 0 {
			rest = rest[1:] // members begin at even offsets
		}
	}
	return nil
}

// inflate decompresses b by the extension of the member's name.
func inflate(b []byte, ext string, limit int64) ([]byte, error) {
	r := io.Reader(bytes.NewReader(b))
	switch ext {
	case ".tar":
		return b, nil
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	case ".xz":
		z, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	default:
		return nil, fmt.Errorf("unknown compression %q", ext)
	}
	out, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(out)) > limit {
		err = fmt.Errorf("it inflates to more than %d bytes", limit)
	}
	return out, err
}

func readControl(archive []byte) (map[string]controlFile, error) {
	files := map[string]controlFile{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, err
		}
		files[path.Base(h.Name)] = controlFile{b, h.Mode&0o111 != 0}
	}
	if _, ok := files["control"]; !ok {
		return nil, errors.New("it has no control file")
	}
	return files, nil
}
