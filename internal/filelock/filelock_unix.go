//go:build unix

package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Try locks f until it is closed. It does not wait: the error is [ErrLocked] if another
// process holds the lock. See flock(2).
func Try(f *os.File) error { return try(f, unix.LOCK_EX) }

// TryShared is [Try] for a lock that others can share.
func TryShared(f *os.File) error { return try(f, unix.LOCK_SH) }

func try(f *os.File, how int) error {
	err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	return err
}
