// Package durable writes files that survive a crash at any moment.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// Temp matches the names of files that are still being written. One that is
// found when nobody writes is what a crash has left.
const Temp = ".record-*"

// Replace makes the file name hold data, or leaves it as it was: after a crash
// there is one or the other, whole. When it returns nil the disk has it.
func Replace(name string, data []byte, mode os.FileMode) error {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, Temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error that matters is known
		return err
	}
	return SyncDir(dir)
}

// SyncDir makes the disk know which files dir holds.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
