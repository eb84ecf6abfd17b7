package durable_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"bake/cloud/durable"
)

// TestIsFull: an exhausted quota is a full disk to whoever writes; a file that is too large is not.
func TestIsFull(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOSPC: true, syscall.EDQUOT: true, syscall.EFBIG: false, syscall.EROFS: false} {
		wrapped := fmt.Errorf("write: %w", &fs.PathError{Op: "write", Path: "x", Err: err})
		if got := durable.IsFull(wrapped); got != want {
			t.Errorf("%v: %t, want %t", err, got, want)
		}
	}
}

// TestRoom: what is scarce is named, and a few files must fit.
func TestRoom(t *testing.T) {
	for _, c := range []struct {
		room durable.Room
		full bool
		text string
	}{
		{durable.Room{Bytes: 66e9, AllBytes: 252e9, Files: 15e6, AllFiles: 16e6}, false, "66.0 GB of 252.0 GB are free"},
		{durable.Room{Bytes: 1 << 20, AllBytes: 430e6, Files: 15, AllFiles: 12000}, true, "1.0 MB of 430.0 MB are free, and 15 of 12000 inodes"},
		{durable.Room{Bytes: 1<<20 - 1, AllBytes: 430e6, Files: 12000, AllFiles: 12000}, true, "1.0 MB of 430.0 MB are free"},
		{durable.Room{Bytes: 1 << 30, AllBytes: 1 << 31}, false, "1.1 GB of 2.1 GB are free"}, // btrfs counts no inodes
	} {
		if got := c.room.String(); got != c.text || c.room.Full() != c.full {
			t.Errorf("%q, full %t; want %q, %t", got, c.room.Full(), c.text, c.full)
		}
	}
	dir := t.TempDir()
	r, err := durable.RoomFor(dir)
	if err != nil || r.AllBytes == 0 || r.Bytes > r.AllBytes || r.ReadOnly {
		t.Errorf("%+v, %v", r, err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.RoomFor(dir); !errors.Is(err, fs.ErrNotExist) || durable.Left(dir) != "" {
		t.Errorf("without the directory: %v, %q", err, durable.Left(dir))
	}
}
