// Package durable stores files and tables so that they survive a crash at any moment.
package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// Temp is the pattern of the names of files that are being written. A file with such a name that
// nobody is writing was left by a crash.
const Temp = ".record-*"

// Replace atomically replaces the content of the file name with data. After a crash, the file has
// either its old content or the new one. When Replace returns nil, the change is on disk.
func Replace(name string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, Temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = replace(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the first error is the one to report
		return err
	}
	return SyncDir(dir)
}

// replace renames the file from to name, where there may be a file already.
func replace(from, name string) error {
	err := os.Rename(from, name)
	if info, there := os.Lstat(name); err != nil && there == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory, and a file has to be there: delete the directory", name)
	}
	return err
}

// SyncDir flushes the entries of a directory to disk.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
