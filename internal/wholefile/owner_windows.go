package wholefile

import (
	"io/fs"
	"os"
)

// keepOwner does nothing: a new file belongs to whoever writes it.
func keepOwner(*os.File, fs.FileInfo) error { return nil }
