//go:build linux || freebsd

package ssh

import (
	"io"

	"golang.org/x/sys/unix"
)

// Where data and holes begin, for lseek.
const (
	seekData = 3
	seekHole = 4
)

// dataRanges returns the ranges of a file of the given size that hold data: the whole file,
// unless the file system reports holes.
func dataRanges(fd uintptr, size int64) (ranges []span) {
	whole := []span{{0, size}}
	for at := int64(0); at < size; {
		begin, err := unix.Seek(int(fd), at, seekData)
		if err == unix.ENXIO {
			break // there is no more
		}
		if err != nil || begin < at {
			return whole
		}
		end, err := unix.Seek(int(fd), begin, seekHole)
		if err != nil || end <= begin {
			return whole
		}
		ranges = append(ranges, span{begin, min(end, size) - begin})
		at = end
	}
	_, _ = unix.Seek(int(fd), 0, io.SeekStart) // where a reader expects to begin
	return ranges
}
