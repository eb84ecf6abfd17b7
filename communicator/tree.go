package communicator

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"bake/internal/hostpath"
)

// LocalFile returns a tree of one file: the local file at path, under the given name.
func LocalFile(name, path string) fs.FS { return renamed{name: name, path: path} }

// LocalDir returns a tree that holds the local directory dir under name, or, if name is
// empty, the contents of dir.
func LocalDir(name, dir string) fs.FS {
	return renamed{name: name, path: dir}
}

// renamed is a tree whose root holds one thing: a local file or directory, under
// a name of its own. Without a name it is the directory itself. Unlike those of
// [os.DirFS], names need not be UTF-8.
type renamed struct{ name, path string }

// Open implements [fs.FS].
func (r renamed) Open(name string) (fs.File, error) {
	local, err := r.local("open", name)
	if err != nil {
		return nil, err
	}
	if local == "" {
		info, err := r.Stat(r.name)
		if err != nil {
			return nil, err
		}
		return &root{entries: []fs.DirEntry{fs.FileInfoToDirEntry(info)}}, nil
	}
	open := hostpath.Open
	if info, err := os.Stat(local); err == nil && info.IsDir() {
		open = os.Open
	}
	f, err := open(local)
	if err != nil {
		return nil, err
	}
	return &namedFile{f, path.Base(name)}, nil
}

// Stat implements [fs.StatFS].
func (r renamed) Stat(name string) (fs.FileInfo, error) {
	local, err := r.local("stat", name)
	if err != nil {
		return nil, err
	}
	if local == "" {
		return rootInfo{}, nil
	}
	info, err := os.Stat(local)
	if err != nil {
		return nil, err
	}
	return namedInfo{info, path.Base(name)}, nil
}

// local returns the local path of name; empty for the root.
func (r renamed) local(op, name string) (string, error) {
	switch ok := validPath(name); {
	case ok && r.name == "":
		return filepath.Join(r.path, filepath.FromSlash(name)), nil
	case ok && name == ".":
		return "", nil
	case ok && name == r.name:
		return r.path, nil
	case ok && len(name) > len(r.name)+1 && name[:len(r.name)+1] == r.name+"/":
		return filepath.Join(r.path, filepath.FromSlash(name[len(r.name)+1:])), nil
	}
	return "", &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
}

// validPath reports whether name, in any encoding, is a path of [fs.FS] and means the same
// on this system. On Windows, names with backslashes or colons and names of devices are not
// valid.
func validPath(name string) bool {
	_, err := filepath.Localize(strings.ToValidUTF8(name, "?"))
	return err == nil
}

// namedFile is an open file or directory with another name.
type namedFile struct {
	*os.File
	name string
}

func (f *namedFile) Stat() (fs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return namedInfo{info, f.name}, nil
}

type namedInfo struct {
	fs.FileInfo
	name string
}

func (i namedInfo) Name() string { return i.name }

// File returns a tree of one file with the given content.
func File(name string, mode fs.FileMode, content []byte) fs.FS {
	return single{memInfo{name: name, mode: mode.Perm(), size: int64(len(content))}, content}
}

type single struct {
	info    memInfo
	content []byte
}

// Open implements [fs.FS].
func (s single) Open(name string) (fs.File, error) {
	switch name {
	case ".":
		return &root{entries: []fs.DirEntry{fs.FileInfoToDirEntry(s.info)}}, nil
	case s.info.name:
		return &memFile{s.info, bytes.NewReader(s.content)}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

type memInfo struct {
	name string
	mode fs.FileMode
	size int64
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return false }
func (i memInfo) Sys() any           { return nil }

type memFile struct {
	info memInfo
	*bytes.Reader
}

func (f *memFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *memFile) Close() error               { return nil }

// root is the opened root directory of a tree.
type root struct{ entries []fs.DirEntry }

func (r *root) Stat() (fs.FileInfo, error) { return rootInfo{}, nil }
func (r *root) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: ".", Err: fs.ErrInvalid}
}
func (r *root) Close() error { return nil }

// ReadDir implements [fs.ReadDirFile].
func (r *root) ReadDir(n int) ([]fs.DirEntry, error) {
	if n > 0 && len(r.entries) == 0 {
		return nil, io.EOF
	}
	out := r.entries
	r.entries = nil
	return out, nil
}

type rootInfo struct{}

func (rootInfo) Name() string       { return "." }
func (rootInfo) Size() int64        { return 0 }
func (rootInfo) Mode() fs.FileMode  { return fs.ModeDir | 0o755 }
func (rootInfo) ModTime() time.Time { return time.Time{} }
func (rootInfo) IsDir() bool        { return true }
func (rootInfo) Sys() any           { return nil }
