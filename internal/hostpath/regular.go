package hostpath

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// OpenRegular opens a regular file to read it. It refuses anything else, such as a named pipe, and
// never waits for it: where bake keeps its own files, nothing else belongs.
func OpenRegular(path string) (*os.File, error) { return openRegular(os.OpenFile, path) }

// ReadRegular returns the content of a regular file of at most limit bytes. open is [os.OpenFile]
// or the method of an [os.Root].
func ReadRegular(open func(name string, flag int, perm fs.FileMode) (*os.File, error), name string, limit int64) ([]byte, error) {
	f, err := openRegular(open, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, name, limit)
}

func openRegular(open func(name string, flag int, perm fs.FileMode) (*os.File, error), name string) (*os.File, error) {
	f, err := open(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // opening a pipe would block
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
