package durable

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// IsFull reports whether err is that of a full disk or of an exhausted quota.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// Room is what is left on a file system.
type Room struct {
	Bytes, AllBytes uint64 // free for users, and the size of the file system
	Files, AllFiles uint64 // inodes; AllFiles is 0 if the file system does not count them
	ReadOnly        bool
}

// RoomFor returns what is left on the file system of dir, which exists.
func RoomFor(dir string) (Room, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return Room{}, fmt.Errorf("statfs %s: %w", dir, err)
	}
	size := uint64(fs.Bsize)
	return Room{fs.Bavail * size, fs.Blocks * size, fs.Ffree, fs.Files, fs.Flags&unix.ST_RDONLY != 0}, nil
}

// Less reports whether there is room for fewer bytes or fewer files than given.
func (r Room) Less(bytes, files uint64) bool {
	return r.Bytes < bytes || r.AllFiles > 0 && r.Files < files
}

// Full reports whether there is no room for a few files.
func (r Room) Full() bool { return r.Less(reserveSize, 16) }

// String describes the room, such as "1.2 MB of 430.0 MB are free"; files are mentioned where they
// are scarcer.
func (r Room) String() string {
	text := fmt.Sprintf("%s of %s are free", amount(r.Bytes), amount(r.AllBytes))
	if r.AllFiles > 0 && r.Files*100 < r.AllFiles {
		text += fmt.Sprintf(", and %d of %d inodes", r.Files, r.AllFiles)
	}
	return text
}

func amount(bytes uint64) string {
	if bytes >= 1e9 {
		return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
	}
	return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
}

// Left returns what is left on the file system of dir, in parentheses after a space; it is empty if
// that is unknown.
func Left(dir string) string {
	r, err := RoomFor(dir)
	if err != nil {
		return ""
	}
	return " (" + r.String() + ")"
}
