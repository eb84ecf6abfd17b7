// Package wholefile writes files for the user that are there as a whole or not at
// all.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// WriteData is [Write] of data.
func WriteData(path string, perm fs.FileMode, data []byte) error {
	return Write(path, perm, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// Write makes the file at path hold what fill writes. If fill fails, the file is
// what it was before. A new file has the permissions perm less those that the
// umask takes away; a file that exists keeps its permissions, and for root its
// owner, and a symbolic link goes on pointing at it.
func Write(path string, perm fs.FileMode, fill func(*os.File) error) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	old, err := os.Stat(path)
	if err == nil && !old.Mode().IsRegular() {
		return direct(path, fill)
	}
	f, part, err := create(os.OpenFile, path, perm)
	if err != nil {
		return err
	}
	if err = finish(f, old, fill); err == nil {
		err = os.Rename(part, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return nil
}

// WriteIn is [WriteData] of a file in a directory, out of which no link is followed. What is
// there under its name and is no file is replaced as well: a link, or a pipe.
func WriteIn(root *os.Root, name string, perm fs.FileMode, data []byte) error {
	old, err := root.Lstat(name)
	if err != nil || !old.Mode().IsRegular() {
		old = nil
	}
	f, part, err := create(root.OpenFile, name, perm)
	if err != nil {
		return err
	}
	err = finish(f, old, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
	if err == nil {
		err = root.Rename(part, name)
	}
	if err != nil {
		return errors.Join(err, root.Remove(part))
	}
	return nil
}

// finish fills and closes f, which gets the mode and owner of an old file; nil: there is none.
func finish(f *os.File, old fs.FileInfo, fill func(*os.File) error) error {
	err := fill(f)
	if old != nil {
		err = errors.Join(err, keepOwner(f, old), f.Chmod(old.Mode().Perm()))
	}
	return errors.Join(err, f.Sync(), f.Close())
}

// direct writes to what cannot be replaced, such as a device.
func direct(path string, fill func(*os.File) error) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(fill(f), f.Close())
}

// create makes a file beside path, and returns its name. Unlike [os.CreateTemp] it leaves the
// permissions to the umask.
func create(open func(name string, flag int, perm fs.FileMode) (*os.File, error), path string, perm fs.FileMode) (f *os.File, part string, err error) {
	for {
		part = fmt.Sprintf("%s.%d.part", path, rand.Uint32())
		f, err = open(part, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if !errors.Is(err, fs.ErrExist) {
			return f, part, err
		}
	}
}

// Rewrite replaces what the file at path holds, or the file that it links to, at once. The
// file must be one that could be written to, and keeps its mode and owner.
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
