package step

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// remove closes a ledger and deletes it, in this order: Windows deletes no file that
// is open. A sweep that has opened it in the meantime finds nothing owned in it, and
// deletes it itself.
func remove(f file) error {
	err := f.Close()
	gone := os.Remove(f.Name())
	if errors.Is(gone, os.ErrNotExist) || errors.Is(gone, windows.ERROR_SHARING_VIOLATION) {
		gone = nil
	}
	return errors.Join(err, gone)
}

// syncDir does nothing: Windows cannot sync the names in a directory, and its file systems
// journal them.
func syncDir(string) error { return nil }
