// Package hostpath is about files of this host as users know them: by which names, and who may do
// what with them.
package hostpath

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Perm returns what the mode of a file of this host permits on a system that has users and groups.
// Windows says of each file that can be written that everybody may: there only its owner may write.
func Perm(mode fs.FileMode) fs.FileMode { return perm(mode, runtime.GOOS) }

func perm(mode fs.FileMode, system string) fs.FileMode {
	if system == "windows" {
		mode &^= 0o022
	}
	return mode.Perm()
}

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
