package communicator

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"bake/internal/hostpath"
)

// Entry is one directory or file of a tree, with its slash-separated path.
type Entry struct {
	Name string
	Info fs.FileInfo
}

// Perm returns the permission bits of the entry on a machine.
func (e Entry) Perm() fs.FileMode {
	if e.Info.Sys() == nil { // it is no file of this host
		return e.Info.Mode().Perm()
	}
	return hostpath.Perm(e.Info.Mode())
}

// List lists the entries of src without its root, directories before their content. Symbolic links
// are followed.
func List(src fs.FS) (dirs, files []Entry, err error) {
	var walk func(dir string, above []fs.FileInfo) error
	walk = func(dir string, above []fs.FileInfo) error {
		list, err := fs.ReadDir(src, dir)
		if err != nil {
			return err
		}
		for _, d := range list {
			name := path.Join(dir, d.Name())
			info, err := fs.Stat(src, name)
			if err != nil {
				return err
			}
			switch {
			case info.IsDir():
				for _, a := range above {
					if os.SameFile(a, info) {
						return fmt.Errorf("%s is a symbolic link to a directory that contains it", name)
					}
				}
				dirs = append(dirs, Entry{name, info})
				if err := walk(name, append(above, info)); err != nil {
					return err
				}
			case info.Mode().IsRegular():
				files = append(files, Entry{name, info})
			default:
				return fmt.Errorf("%s is neither a file nor a directory (%s)", name, info.Mode())
			}
		}
		return nil
	}
	err = walk(".", nil)
	return dirs, files, err
}

// Unpack writes a tar stream into dst and nothing outside it, whatever the stream contains.
func Unpack(ctx context.Context, r io.Reader, dst *os.Root) error {
	type dir struct {
		name string
		mode fs.FileMode
	}
	var dirs []dir
	tr := tar.NewReader(r)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		mode := fs.FileMode(h.Mode).Perm()
		switch h.Typeflag {
		case tar.TypeDir:
			if name == "." {
				continue
			}
			if err := CheckNesting(name); err != nil {
				return err
			}
			if err := dst.MkdirAll(name, mode|0o700); err != nil {
				return err
			}
			dirs = append(dirs, dir{name, mode})
		case tar.TypeReg, tar.TypeGNUSparse:
			if sparse(h) {
				err = writeSparse(ctx, dst, name, mode, h.Size, tr)
			} else {
				err = WriteFile(dst, name, mode, tr)
			}
			if err != nil {
				return err
			}
		case tar.TypeLink:
			same, err := dst.Open(path.Clean(h.Linkname))
			if err != nil {
				return err
			}
			err = WriteFile(dst, name, mode, same)
			same.Close()
			if err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s is neither a file nor a directory on the machine", name)
		}
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := dst.Chmod(dirs[i].name, dirs[i].mode); err != nil {
			return err
		}
	}
	return nil
}

const (
	maxNesting = 255 // levels of directories
	maxTurns   = 12  // of a symbolic link that leads back; systems follow 40
)

// CheckNesting returns an error if a directory of a machine, named by its slash-separated path, can
// only be the result of a symbolic link to a directory that contains it, or of a lie. With two such
// links in one directory, a machine has more paths than can be read in years.
func CheckNesting(name string) error {
	parts := strings.Split(name, "/")
	if len(parts) > maxNesting {
		return fmt.Errorf("a directory on the machine is more than %d levels deep: %.200s", maxNesting, name)
	}
	for period := 1; period*maxTurns <= len(parts); period++ {
		tail := parts[len(parts)-period*maxTurns:]
		if slices.Equal(tail[period:], tail[:len(tail)-period]) {
			once := strings.Join(parts[:len(parts)-period*(maxTurns-1)], "/")
			return fmt.Errorf("%s: a symbolic link on the machine leads to a directory that contains it", once)
		}
	}
	return nil
}

// sparse reports whether a file of an archive has holes.
func sparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// WriteFile writes one file below dst. A new file gets the permissions of mode, reduced by the
// umask. After an error no incomplete file is left.
func WriteFile(dst *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	f, err := CreateFile(dst, name, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f.File, r)
	return errors.Join(err, f.Finish(err))
}

// PartialFile is a file below a root that is being written.
type PartialFile struct {
	*os.File
	root *os.Root
	name string
	made bool
}

// CreateFile opens an empty file below dst for writing. The caller calls Finish.
func CreateFile(dst *os.Root, name string, mode fs.FileMode) (*PartialFile, error) {
	_, err := dst.Lstat(name)
	missing := errors.Is(err, fs.ErrNotExist)
	f, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return nil, err
	}
	return &PartialFile{f, dst, name, missing}, nil
}

// Finish closes the file. If err is not nil, the file is incomplete: it is deleted, or emptied if
// it existed before.
func (f *PartialFile) Finish(err error) error {
	if err == nil {
		if err = f.Close(); err == nil {
			return nil
		}
	} else {
		if !f.made {
			_ = f.Truncate(0) // it cannot be brought back
		}
		_ = f.Close() // what matters is err
		err = nil
	}
	if f.made {
		return errors.Join(err, f.root.Remove(f.name))
	}
	return err
}

// writeSparse is WriteFile for a file of the given size that leaves holes where r has only zeros.
// Holes cost the maker of the archive nothing and can have any size. So it refuses at once a size
// that no file on this host can have, and it checks ctx within holes.
func writeSparse(ctx context.Context, dst *os.Root, name string, mode fs.FileMode, size int64, r io.Reader) (err error) {
	f, err := CreateFile(dst, name, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Finish(err)) }()
	if err := f.Truncate(size); err != nil {
		return err
	}
	b, zeros := make([]byte, holeBlock), make([]byte, holeBlock)
	for at := int64(0); ; {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := io.ReadFull(r, b)
		if n > 0 && !bytes.Equal(b[:n], zeros[:n]) {
			if _, err := f.WriteAt(b[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF) && n < len(b):
			return endOf(r, f, at)
		case err != nil:
			return err
		}
	}
}

// holeBlock is the size of the smallest hole that is looked for.
const holeBlock = 64 << 10

// endOf ends a file that was written with holes at its size.
func endOf(r io.Reader, f *PartialFile, size int64) error {
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.EOF) { // an archive that is cut says so again
		return cmp.Or(err, io.ErrUnexpectedEOF)
	}
	return f.Truncate(size)
}
