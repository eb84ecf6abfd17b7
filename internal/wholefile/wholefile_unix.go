//go:build unix

package wholefile

import (
	"io/fs"
	"os"
	"syscall"
)

// noWait makes it an error to open a named pipe that nobody reads.
const noWait = syscall.O_NONBLOCK

// keepOwner gives f the owner of old, if this process runs as root.
func keepOwner(f *os.File, old fs.FileInfo) error {
	if owner, ok := old.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		return f.Chown(int(owner.Uid), int(owner.Gid))
	}
	return nil
}

// inUse returns false: on Unix, open files can be renamed and replaced.
func inUse(error) bool { return false }
