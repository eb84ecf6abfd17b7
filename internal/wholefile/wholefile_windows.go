package wholefile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// noWait is not needed: named pipes are not in directories.
const noWait = 0

// keepOwner does nothing: a new file belongs to the user who writes it.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// inUse reports whether an operation may have failed because another process has the file
// open. Windows reports the replacement of an open file as access denied.
func inUse(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
}
