package layer

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pack writes the layer in the directory dir as a tar stream. The bytes depend only on the layer:
// entries are sorted by name, and nothing specific to the host, such as user names or access times,
// is included.
func Pack(dir *os.File, w io.Writer) error {
	return pack(w, func(a *Archive) error { return (&walker{to: a}).walk([]*os.File{dir}) })
}

// PackMerged writes the merged content of an overlay of layers, topmost first, as a tar stream, in
// the form of a single layer that hides nothing.
func PackMerged(layers []*os.File, w io.Writer) error {
	return pack(w, func(a *Archive) error { return (&walker{to: a, merged: true}).walk(layers) })
}

func pack(w io.Writer, walk func(*Archive) error) error {
	a := NewArchive(w)
	if err := walk(a); err != nil {
		return err
	}
	return a.Close()
}

// Archive writes entries as a tar stream, with the holes of files.
type Archive struct {
	tw  *tar.Writer
	out *bufio.Writer // the destination of tw
	buf []byte
}

// NewArchive returns an archive that is written to w, from which nothing is missing after Close.
func NewArchive(w io.Writer) *Archive {
	b := bufio.NewWriterSize(w, 1<<20)
	return &Archive{tw: tar.NewWriter(b), out: b, buf: make([]byte, 256<<10)}
}

// Close writes the end of the archive.
func (a *Archive) Close() error {
	if err := a.tw.Close(); err != nil {
		return err
	}
	return a.out.Flush()
}

// add implements [receiver].
func (a *Archive) add(h *tar.Header, f *os.File) error {
	if f == nil {
		return named(h.Name, a.Entry(h))
	}
	data, err := Segments(f, h.Size)
	if err != nil {
		return named(h.Name, err)
	}
	return named(h.Name, a.File(h, f, data))
}

// Entry writes an entry that has no content.
func (a *Archive) Entry(h *tar.Header) error { return a.tw.WriteHeader(h) }

// File writes a regular file of h.Size bytes, of which only those in the segments, which are in
// order, may be other than zeros.
func (a *Archive) File(h *tar.Header, content io.ReaderAt, data []Segment) error {
	data, err := joined(data)
	if err != nil {
		return err
	}
	if hasHoles(data, h.Size) {
		return a.sparse(h, content, data)
	}
	if err := a.tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyBuffer(onlyWriter{a.tw}, io.NewSectionReader(content, 0, h.Size), a.buf)
	if err == nil && n < h.Size {
		err = fmt.Errorf("the file shrank from %d to %d bytes while it was read", h.Size, n)
	}
	return err
}

// onlyWriter hides ReadFrom, which would bypass the buffer.
type onlyWriter struct{ io.Writer }

// receiver receives the entries of a layer, in an order that depends only on the layer. A regular
// file comes with its open file.
type receiver interface {
	add(h *tar.Header, f *os.File) error
}

// walker passes the entries of a layer to a receiver or, if merged is set, those of an overlay of
// layers, in which nothing marks a deletion anymore.
type walker struct {
	to     receiver
	merged bool
	links  map[inode]string // the first name of each file that has several
}

type inode struct{ dev, ino uint64 }

// walk passes on everything in layers, topmost first. There is one unless w.merged is set.
func (w *walker) walk(layers []*os.File) error {
	defer runtime.KeepAlive(layers)
	w.links = make(map[inode]string)
	fds := make([]int, len(layers))
	for i, layer := range layers {
		fds[i] = int(layer.Fd())
	}
	if len(fds) == 0 {
		return nil
	}
	return w.entry(fds, ".", "./")
}

// entry passes on base, and everything below it, under the given name. parents are the open
// directories that have it, topmost first.
func (w *walker) entry(parents []int, base, name string) error {
	parent := parents[0]
	var st unix.Stat_t
	if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return pathError("stat", name, err)
	}
	if MarksDeletion(base) {
		return fmt.Errorf("%q: a name that begins with %s marks a deletion; rename the file", name, whiteoutPrefix)
	}
	if isWhiteout(&st) {
		if w.merged {
			return nil
		}
		dir, last := path.Split(name)
		return w.to.add(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: dir + whiteoutPrefix + last}, nil)
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK {
		return nil // see the package comment
	}
	h := &tar.Header{
		Format:  tar.FormatPAX,
		Name:    name,
		Mode:    int64(st.Mode & 0o7777),
		Uid:     int(st.Uid),
		Gid:     int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	if kind != unix.S_IFDIR && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := w.links[key]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return w.to.add(h, nil)
		}
		w.links[key] = name
	}
	switch kind {
	case unix.S_IFDIR:
		return w.dir(parents, base, h)
	case unix.S_IFREG:
		return w.file(parent, base, h)
	case unix.S_IFLNK:
		target, err := readlink(parent, base, st.Size)
		if err != nil {
			return pathError("readlink", name, err)
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if kind == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if err := xattrs(h, pathXattrs(at(parent, base))); err != nil {
		return err
	}
	return w.to.add(h, nil)
}

// dir passes on the directory base, merged from those of its parents that are not hidden by another.
func (w *walker) dir(parents []int, base string, h *tar.Header) error {
	dirs, opaque, err := openDirs(parents, base, h.Name)
	defer func() {
		for _, d := range dirs {
			d.Close()
		}
	}()
	if err != nil {
		return err
	}
	prefix := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/")+"/", "./")
	h.Typeflag, h.Name = tar.TypeDir, strings.TrimSuffix(h.Name, "/")+"/"
	if err := xattrs(h, fdXattrs(int(dirs[0].Fd()))); err != nil {
		return err
	}
	if err := w.to.add(h, nil); err != nil {
		return err
	}
	if opaque && !w.merged {
		if err := w.to.add(&tar.Header{Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: prefix + opaqueName}, nil); err != nil {
			return err
		}
	}
	having := make(map[string][]int) // the directories that have each name, topmost first
	for _, d := range dirs {
		names, err := d.Readdirnames(-1)
		if err != nil {
			return err
		}
		for _, base := range names {
			having[base] = append(having[base], int(d.Fd()))
		}
	}
	for _, base := range slices.Sorted(maps.Keys(having)) {
		if err := w.entry(having[base], base, prefix+base); err != nil {
			return err
		}
	}
	return nil
}

// openDirs opens the directories named base in parents, topmost first, up to the first one that hides
// those below it, because it is opaque or no directory. opaque is whether the topmost is. The caller
// closes dirs, also after an error.
func openDirs(parents []int, base, name string) (dirs []*os.File, opaque bool, err error) {
	for i, parent := range parents {
		fd, err := open(parent, base, unix.O_DIRECTORY)
		if i > 0 && errors.Is(err, unix.ENOTDIR) {
			break
		}
		if err != nil {
			return dirs, opaque, pathError("open", name, err)
		}
		dirs = append(dirs, os.NewFile(uintptr(fd), name))
		value, err := fdXattrs(fd).get(opaqueXattr)
		hides := err == nil && string(value) == "y"
		opaque = opaque || hides && i == 0
		if hides {
			break
		}
	}
	return dirs, opaque, nil
}

func (w *walker) file(parent int, base string, h *tar.Header) error {
	// Without O_NONBLOCK, opening a FIFO that has replaced the file would block until there is a
	// writer.
	fd, err := open(parent, base, unix.O_NONBLOCK|unix.O_NOATIME)
	if errors.Is(err, unix.EPERM) {
		fd, err = open(parent, base, unix.O_NONBLOCK)
	}
	if err != nil {
		return pathError("open", h.Name, err)
	}
	f := os.NewFile(uintptr(fd), h.Name)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return fmt.Errorf("%q: it is no longer a file: the layer changed while it was read", h.Name)
	}
	h.Typeflag, h.Size = tar.TypeReg, st.Size()
	if err := xattrs(h, fdXattrs(fd)); err != nil {
		return err
	}
	return w.to.add(h, f)
}

// MarksDeletion reports whether a file of this name marks a deletion in a tar stream.
func MarksDeletion(base string) bool { return strings.HasPrefix(base, whiteoutPrefix) }

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

// attributes reads the extended attributes of one file. Both functions work like the system calls:
// with a nil buffer they return the size.
type attributes struct {
	listInto func([]byte) (int, error)
	getInto  func(string, []byte) (int, error)
}

func fdXattrs(fd int) attributes {
	return attributes{
		func(b []byte) (int, error) { return unix.Flistxattr(fd, b) },
		func(key string, b []byte) (int, error) { return unix.Fgetxattr(fd, key, b) },
	}
}

func pathXattrs(path string) attributes {
	return attributes{
		func(b []byte) (int, error) { return unix.Llistxattr(path, b) },
		func(key string, b []byte) (int, error) { return unix.Lgetxattr(path, key, b) },
	}
}

func (a attributes) list() ([]string, error) {
	b, err := sized(a.listInto)
	if errors.Is(err, unix.EOPNOTSUPP) || len(b) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00"), nil
}

func (a attributes) get(key string) ([]byte, error) {
	return sized(func(b []byte) (int, error) { return a.getInto(key, b) })
}

// sized calls read first for the size and then for the value.
func sized(read func([]byte) (int, error)) ([]byte, error) {
	n, err := read(nil)
	if err != nil || n == 0 {
		return nil, err
	}
	b := make([]byte, n)
	n, err = read(b)
	if err != nil {
		return nil, err
	}
	return b[:n], nil
}

func xattrs(h *tar.Header, a attributes) error {
	keys, err := a.list()
	if err != nil {
		return pathError("list attributes of", h.Name, err)
	}
	for _, key := range keys {
		if overlayXattr(key) {
			continue
		}
		value, err := a.get(key)
		if err != nil {
			return pathError("read attribute "+key+" of", h.Name, err)
		}
		if h.PAXRecords == nil {
			h.PAXRecords = make(map[string]string)
		}
		h.PAXRecords[xattrRecord+key] = string(value)
	}
	return nil
}

func open(parent int, base string, flags int) (fd int, err error) {
	err = retry(func() (err error) {
		fd, err = unix.Openat(parent, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flags, 0)
		return err
	})
	return fd, err
}

func readlink(parent int, base string, size int64) (string, error) {
	b := make([]byte, max(size, 255)+1)
	n, err := unix.Readlinkat(parent, base, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}
