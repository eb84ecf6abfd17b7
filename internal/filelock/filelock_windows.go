package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Try locks f until it is closed. It does not wait: the error is [ErrLocked] if another
// process holds the lock. Windows prevents others from reading a locked range, so the lock
// covers a byte far beyond the end of the file. See LockFileEx.
func Try(f *os.File) error { return try(f, windows.LOCKFILE_EXCLUSIVE_LOCK) }

// TryShared is [Try] for a lock that others can share.
func TryShared(f *os.File) error { return try(f, 0) }

func try(f *os.File, how uint32) error {
	at := windows.Overlapped{OffsetHigh: 0x7fffffff}
	err := windows.LockFileEx(windows.Handle(f.Fd()), how|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return ErrLocked
	}
	return err
}
