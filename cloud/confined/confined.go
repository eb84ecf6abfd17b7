// Package confined opens and renames directories whose paths machines may have tampered with. The
// root of a machine is untrusted, so no component of such a path is followed if it is a symbolic
// link: paths are resolved from an open directory, and renames use the descriptors of the parents.
package confined

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Dir is the directory Name, a relative path, below the directory Base. Base is trusted; Name is
// not.
type Dir struct{ Base, Name string }

// Path returns the path for messages. It must not be opened.
func (d Dir) Path() string { return filepath.Join(d.Base, d.Name) }

// Open opens the directory. It fails with ELOOP if a component of Name is a symbolic link, with
// ENOTDIR if one is anything else but a directory, and with ENOENT if one does not exist.
func (d Dir) Open() (*os.File, error) {
	return d.open(d.Name)
}

func (d Dir) open(name string) (*os.File, error) {
	base, err := os.Open(d.Base)
	if err != nil {
		return nil, err
	}
	defer base.Close()
	how := unix.OpenHow{
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(int(base.Fd()), filepath.Clean(name), &how)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), filepath.Join(d.Base, name)), nil
		case unix.EINTR, unix.EAGAIN: // raced with a rename elsewhere on the host: try again
		default:
			return nil, &os.PathError{Op: "open", Path: filepath.Join(d.Base, name), Err: err}
		}
	}
}

// Empty reports whether the directory is empty or does not exist.
func (d Dir) Empty() (bool, error) {
	f, err := d.Open()
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	_, err = f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// Rename moves the directory to dst, whose parent is trusted. dst must not exist. On error, the
// directory is not moved.
func (d Dir) Rename(dst string) error {
	name := filepath.Clean(d.Name)
	f, err := d.Open() // must be a directory, not a link to one
	if err != nil {
		return err
	}
	defer f.Close()
	from, err := d.open(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Open(filepath.Dir(dst))
	if err != nil {
		return err
	}
	defer to.Close()
	err = unix.Renameat2(int(from.Fd()), filepath.Base(name), int(to.Fd()), filepath.Base(dst), unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: d.Path(), New: dst, Err: err}
	}
	moved, err := Dir{filepath.Dir(dst), filepath.Base(dst)}.Open()
	if err == nil {
		defer moved.Close()
		err = same(f, moved)
	}
	if err != nil { // the directory was replaced meanwhile: undo
		return errors.Join(err, unix.Renameat2(int(to.Fd()), filepath.Base(dst), int(from.Fd()), filepath.Base(name), unix.RENAME_NOREPLACE))
	}
	return nil
}

func same(a, b *os.File) error {
	x, err := a.Stat()
	if err != nil {
		return err
	}
	y, err := b.Stat()
	if err == nil && !os.SameFile(x, y) {
		err = &os.PathError{Op: "rename", Path: a.Name(), Err: errors.New("it was replaced in the meantime")}
	}
	return err
}
