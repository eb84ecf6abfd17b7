package step

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"bake/internal/filelock"
)

// disk is the file system of ledgers. Tests use one that fails and crashes.
type disk interface {
	isDir(path string) bool
	mkdir(dir string) error           // succeeds if it exists; the directory entry is not durable yet
	create(path string) (file, error) // creates and locks a new file; the directory entry is not durable yet
	open(path string) (file, error)   // opens for reading and writing and locks; ErrLive if locked
	syncDir(dir string) error         // makes the entries of dir durable
	named(f file) error               // ErrNotExist unless f is still the file that its path names
	remove(f file) error              // also closes it
}

// file is an open file of a disk.
type file interface {
	io.ReadWriteSeeker
	io.Closer
	Name() string
	Truncate(size int64) error
	Sync() error
}

// mkdirAll durably creates dir and its missing parents.
func mkdirAll(d disk, dir string) error {
	if d.isDir(dir) {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirAll(d, parent); err != nil {
			return err
		}
	}
	if err := d.mkdir(dir); err != nil {
		return err
	}
	return d.syncDir(parent)
}

// osDisk is the disk of the operating system.
type osDisk struct{}

func (osDisk) isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

func (osDisk) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o700); !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

func (osDisk) create(path string) (file, error) {
	f, err := createLocked(path)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (osDisk) open(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	if err := own(f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// own locks a file that may be a ledger.
func own(f *os.File) error {
	if info, err := f.Stat(); err != nil {
		return err
	} else if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file, so it cannot be a ledger; delete it")
	}
	return lock(f)
}

// createLocked creates and locks a new file that only its owner can read. If a sweep opens the file
// between the two steps, it takes the file for the ledger of a killed run and deletes it:
// createLocked then tries again.
func createLocked(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = lockWithin(f, 10*time.Second)
		if err == nil {
			return f, nil
		}
		f.Close() // the process that holds the lock deletes it
		if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
}

// lock locks f. The error is ErrLive if another process holds the lock, and os.ErrNotExist if the
// previous holder of the lock has deleted f. Only the holder of the lock deletes a file.
func lock(f *os.File) error {
	if err := filelock.Try(f); errors.Is(err, filelock.ErrLocked) {
		return ErrLive
	} else if err != nil {
		return err
	}
	return named(f)
}

// named returns os.ErrNotExist if the path of f names another file by now, or none.
func named(f *os.File) error {
	opened, err := f.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(f.Name())
	if err == nil && !os.SameFile(opened, there) {
		err = os.ErrNotExist
	}
	return err
}

// lockWithin is lock for a file that a reader may lock briefly: it waits up to patience.
func lockWithin(f *os.File, patience time.Duration) error {
	const pause = 25 * time.Millisecond
	for ; ; patience -= pause {
		err := lock(f)
		if !errors.Is(err, ErrLive) || patience <= 0 {
			return err
		}
		time.Sleep(pause)
	}
}

func (osDisk) named(f file) error {
	opened, ok := f.(*os.File)
	if !ok {
		return fmt.Errorf("%T is no file of this disk", f)
	}
	return named(opened)
}

func (osDisk) syncDir(dir string) error { return syncDir(dir) }

func (osDisk) remove(f file) error { return remove(f) }
