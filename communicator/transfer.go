package communicator

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Entry is one directory or file of a tree, with its slash-separated path.
type Entry struct {
	Name string
	Info fs.FileInfo
}

// Perm are its permission bits.
func (e Entry) Perm() fs.FileMode { return e.Info.Mode().Perm() }

// List lists what is in src, without its root: directories before what they
// hold. Symbolic links are followed.
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

// Unpack writes a tar stream into dst. Whatever is in the stream, nothing is
// written outside.
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
			if err := dst.MkdirAll(name, mode|0o700); err != nil {
				return err
			}
			dirs = append(dirs, dir{name, mode})
		case tar.TypeReg:
			if err := WriteFile(dst, name, mode, tr); err != nil {
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

// WriteFile writes one file below dst. A new one has the permissions of mode that the
// umask leaves.
func WriteFile(dst *os.Root, name string, mode fs.FileMode, r io.Reader) error {
	f, err := dst.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}
