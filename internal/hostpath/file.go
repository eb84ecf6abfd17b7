package hostpath

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
)

// Limit is the maximum number of bytes of a file that is read whole, such as a key or a
// text for a template.
const Limit = 64 << 20

// Open opens a file that a user has named, to read it. It accepts regular files, and what
// [Check] accepts beside them.
func Open(path string) (*os.File, error) {
	if info, err := os.Stat(path); err == nil {
		if err := check(path, info.Mode()); err != nil {
			return nil, err
		}
	}
	return os.Open(path)
}

// Check returns an error if reading the file at path might never end or begin, or if there
// is no file. It accepts regular files, the null device, and the pipes that this process
// was started with: standard input, and those of a shell's <(command).
func Check(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return check(path, info.Mode())
}

// check is [Check] for a file that exists.
func check(path string, mode fs.FileMode) error {
	kind := "something else"
	switch {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		kind = "a directory"
	case mode&fs.ModeNamedPipe != 0:
		if OfProcess(path) {
			return nil
		}
		kind = "a named pipe"
	case mode&fs.ModeSocket != 0:
		kind = "a socket"
	case mode&fs.ModeDevice != 0:
		if isNull(path) {
			return nil
		}
		kind = "a device"
	}
	return fmt.Errorf("%s is not a regular file but %s", path, kind)
}

// isNull reports whether path leads to the null device.
func isNull(path string) bool {
	info, err := os.Stat(path)
	null, fault := os.Stat(os.DevNull)
	return err == nil && fault == nil && os.SameFile(info, null)
}

// OfProcess reports whether path names an open file of this process, as a shell's <(command)
// does.
func OfProcess(path string) bool {
	return path == "/dev/stdin" || strings.HasPrefix(path, "/dev/fd/") || strings.HasPrefix(path, "/proc/self/fd/")
}

// Read returns the content of a file that a user has named, which [Open] must accept. It
// reads at most limit bytes; a longer file is an error.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, path, limit)
}

// readAll reads f, which is called name, unless it has more than limit bytes.
func readAll(f *os.File, name string, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than the limit of %d MB", name, limit>>20)
	}
	return b, err
}
