// Package wholefile writes files completely or not at all.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bake/internal/hostpath"
)

// WriteData is [Write] for data in memory.
func WriteData(path string, perm fs.FileMode, data []byte) error {
	return Write(path, perm, holding(data))
}

// Write replaces the content of the file at path by the output of fill. If fill fails, the
// file is unchanged. A new file has the permissions perm, minus the umask; an existing
// file keeps its permissions and, for root, its owner, and a symbolic link still points to
// it.
func Write(path string, perm fs.FileMode, fill func(*os.File) error) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.Stat(path)
	if err == nil && !old.Mode().IsRegular() {
		return direct(path, fill)
	}
	return files{os.OpenFile, Rename, os.Remove}.replace(path, perm, old, fill)
}

// WriteIn is [WriteData] for a file in a directory, without following links out of the
// directory. It also replaces an existing file that is not regular, such as a link or a
// pipe.
func WriteIn(root *os.Root, name string, perm fs.FileMode, data []byte) error {
	old, err := root.Lstat(name)
	if err != nil || !old.Mode().IsRegular() {
		old = nil
	}
	return files{root.OpenFile, patient(root.Rename, root.Lstat), root.Remove}.replace(name, perm, old, holding(data))
}

// holding writes data.
func holding(data []byte) func(*os.File) error {
	return func(f *os.File) error {
		_, err := f.Write(data)
		return err
	}
}

// files is the file system in which a file is replaced.
type files struct {
	open   func(name string, flag int, perm fs.FileMode) (*os.File, error)
	rename func(from, to string) error
	remove func(name string) error
}

// replace is [Write] for a file that gets the mode and owner of an old one; nil: there is
// none.
func (in files) replace(name string, perm fs.FileMode, old fs.FileInfo, fill func(*os.File) error) error {
	f, part, err := create(in.open, name, perm)
	if err != nil {
		return err
	}
	err = fill(f)
	if old != nil {
		err = errors.Join(err, keepOwner(f, old), f.Chmod(old.Mode().Perm()))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = in.rename(part, name)
	}
	if err != nil {
		return errors.Join(err, in.remove(part))
	}
	return nil
}

// Rename renames a file, as [os.Rename] does. It replaces a file that has that name
// already, on Windows even if another process has it open for a moment.
func Rename(from, to string) error { return patient(os.Rename, os.Lstat)(from, to) }

// patient wraps a rename so that it waits while another process has one of the files open,
// if that prevents the rename.
func patient(rename func(from, to string) error, stat func(string) (fs.FileInfo, error)) func(from, to string) error {
	return func(from, to string) error {
		err := rename(from, to)
		for limit := time.Now().Add(patience); inUse(err) && !stays(stat(to)) && time.Now().Before(limit); err = rename(from, to) {
			time.Sleep(time.Millisecond + rand.N(9*time.Millisecond))
		}
		return err
	}
}

// stays reports whether a file exists that no rename replaces, however long one waits: a
// directory, or a file that is read-only.
func stays(there fs.FileInfo, err error) bool {
	return err == nil && (there.IsDir() || there.Mode().Perm()&0o200 == 0)
}

// patience allows for programs that open new files for a moment, such as virus scanners.
const patience = 2 * time.Second

// Read reads a regular file of at most limit bytes, which may be replaced at that moment.
func Read(path string, limit int64) ([]byte, error) {
	for until := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		b, err := hostpath.ReadRegular(os.OpenFile, path, limit)
		if !inUse(err) || stays(os.Lstat(path)) || time.Now().After(until) {
			return b, err
		}
	}
}

// direct writes to a file that cannot be replaced, such as a device. It does not wait until
// somebody reads a named pipe.
func direct(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY|noWait, 0)
	if errors.Is(err, syscall.ENXIO) {
		return fmt.Errorf("%s is a named pipe or a device that nobody reads", path)
	}
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// create creates a file next to path, and returns its name. Unlike [os.CreateTemp], it
// leaves the permissions to the umask.
func create(open func(name string, flag int, perm fs.FileMode) (*os.File, error), path string, perm fs.FileMode) (f *os.File, part string, err error) {
	for {
		part = fmt.Sprintf("%s.%d.part", path, rand.Uint32())
		f, err = open(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, part, err
		}
	}
}

// Rewrite atomically replaces the content of the file at path, or of the file that it
// links to. The file must be writable, and keeps its mode and owner.
func Rewrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return Write(path, 0o644, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}
