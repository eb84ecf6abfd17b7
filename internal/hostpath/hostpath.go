// Package hostpath finds files of this host by the names that users give them.
package hostpath

import (
	"os"
	"path/filepath"
)

// In returns where path is for who works in the directory dir: below dir, unless path says
// otherwise. On Windows that are not only absolute paths: `\x` and `/x` are on the drive of
// dir, and `C:x` is where the process works on drive C.
func In(dir, path string) string {
	switch {
	case filepath.IsAbs(path):
		return path
	case filepath.VolumeName(path) != "":
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
	case path != "" && os.IsPathSeparator(path[0]): // on Windows alone, where it is not absolute
		return filepath.VolumeName(dir) + path
	}
	return filepath.Join(dir, path)
}
