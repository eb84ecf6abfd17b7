// Package hostpath handles paths and permissions of files on this host as its users
// expect.
package hostpath

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Perm returns the permissions in the mode of a file of this host, on a system that has
// users and groups. Windows reports every writable file as writable by everyone: for
// Windows, Perm reports that only the owner may write.
func Perm(mode fs.FileMode) fs.FileMode { return perm(mode, runtime.GOOS) }

func perm(mode fs.FileMode, system string) fs.FileMode {
	if system == "windows" {
		mode &^= 0o022
	}
	return mode.Perm()
}

// In returns the location of path relative to the working directory dir, unless path is
// absolute. On Windows there are other forms: `\x` and `/x` are on the drive of dir, and
// `C:x` is relative to the process's working directory on drive C.
func In(dir, path string) string {
	switch {
	case filepath.IsAbs(path):
		return path
	case filepath.VolumeName(path) != "":
		if abs, err := filepath.Abs(path); err == nil {
			return abs
		}
	case path != "" && os.IsPathSeparator(path[0]): // only on Windows, where it is not absolute
		return filepath.VolumeName(dir) + path
	}
	return filepath.Join(dir, path)
}
