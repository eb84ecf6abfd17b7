//go:build unix

package terminal

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/term"
)

func open() (*Terminal, error) {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &Terminal{f, f}, nil
}

func draws(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }

func unread(err error) bool { return errors.Is(err, syscall.EPIPE) }
