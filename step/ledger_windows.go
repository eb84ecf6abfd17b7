package step

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// remove closes a ledger and then deletes it, because Windows cannot delete open files. A sweep
// that opens it in between finds no resources in it and deletes it itself.
func remove(f file) error {
	err := f.Close()
	gone := os.Remove(f.Name())
	if errors.Is(gone, os.ErrNotExist) || errors.Is(gone, windows.ERROR_SHARING_VIOLATION) {
		gone = nil
	}
	return errors.Join(err, gone)
}

// syncDir does nothing: Windows cannot sync directories, and its file systems journal their
// entries.
func syncDir(string) error { return nil }
