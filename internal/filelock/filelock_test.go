package filelock_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bake/internal/filelock"
)

func TestTry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	first, second := open(), open()
	defer second.Close()
	if err := filelock.Try(first); err != nil {
		t.Fatal(err)
	}
	if err := filelock.Try(second); !errors.Is(err, filelock.ErrLocked) {
		t.Errorf("a file that is locked: %v", err)
	}
	if _, err := second.WriteString("x"); err != nil {
		t.Errorf("the lock keeps others from writing: %v", err)
	}
	first.Close()
	if err := filelock.Try(second); err != nil {
		t.Errorf("after the lock has ended: %v", err)
	}
}
