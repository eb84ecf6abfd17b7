package wholefile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// keepOwner does nothing: a new file belongs to whoever writes it.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// inUse says whether an operation failed that would not have if nobody else had the file open.
// To replace a file that is open is not permitted, as if that was nobody's right.
func inUse(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_ACCESS_DENIED)
}
