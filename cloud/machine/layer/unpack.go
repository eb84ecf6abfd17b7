package layer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Unpack writes a tar stream into the directory dir. It resolves names and links in the stream as
// if dir were the root of the file system, so no entry reaches outside dir. An entry replaces an
// earlier one of the same name. After an error dir contains a part of the stream.
func Unpack(r io.Reader, dir *os.File, o Options) error {
	u := newUnpacker(dir, o)
	defer u.close()
	end := &endWatcher{r: r}
	tr := tar.NewReader(bufio.NewReaderSize(end, 1<<20))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if err := u.entry(h, func(fd int) error { return u.content(fd, h, tr) }); err != nil {
			return named(h.Name, err)
		}
	}
	// Padding after the end of the archive is read too, so that the writer of a pipe does not fail.
	if _, err := io.Copy(io.Discard, end); err != nil {
		return fmt.Errorf("read tar: %w", err)
	}
	if !end.marked() {
		return fmt.Errorf("read tar: %w", io.ErrUnexpectedEOF)
	}
	return u.finishDirs()
}

// endWatcher keeps the last block of a stream. A tar ends with blocks of zeros. Their absence is
// the only sign that a tar was cut between two entries.
type endWatcher struct {
	r    io.Reader
	last []byte
}

const blockSize = 512

func (e *endWatcher) Read(b []byte) (int, error) {
	n, err := e.r.Read(b)
	e.last = append(e.last, b[max(0, n-blockSize):n]...)
	e.last = e.last[max(0, len(e.last)-blockSize):]
	return n, err
}

func (e *endWatcher) marked() bool {
	return len(e.last) == blockSize && bytes.Count(e.last, []byte{0}) == blockSize
}

type unpacker struct {
	dir     *os.File
	root    int // its descriptor
	options Options

	// dirs are the directories whose attributes are set at the end: a time would be overwritten,
	// and a mode might forbid writing.
	dirs map[string]*tar.Header

	// refused are the device nodes that the caller may not create.
	refused map[string]bool

	// parent is the open directory of the last entry; most entries are in the same one.
	parent     int
	parentName string

	buf    []byte
	sparse sparseBytes // total size of the sparse files so far
}

func newUnpacker(dir *os.File, o Options) *unpacker {
	return &unpacker{dir: dir, root: int(dir.Fd()), parent: -1, dirs: make(map[string]*tar.Header), refused: make(map[string]bool), options: o, buf: make([]byte, 256<<10)}
}

func (u *unpacker) close() {
	u.closeParent()
	runtime.KeepAlive(u.dir)
}

// add implements [receiver]: it copies a file.
func (u *unpacker) add(h *tar.Header, f *os.File) error {
	return named(h.Name, u.entry(h, func(fd int) error { return copyFile(fd, f, h.Size, u.buf) }))
}

// entry creates the file of an entry; write writes the content of a new regular file.
func (u *unpacker) entry(h *tar.Header, write func(fd int) error) error {
	name := path.Clean("/" + h.Name)[1:]
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil
	case tar.TypeDir:
		if name == "" {
			u.dirs[name] = h
			return nil
		}
	default:
		if name == "" {
			return errors.New("the root of a layer must be a directory")
		}
	}

	dir, base := path.Split(name)
	parent, err := u.openParent(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return u.whiteout(parent, dir, base)
	}
	if h.Typeflag == tar.TypeDir {
		err := unix.Mkdirat(parent, base, 0o700)
		if err == unix.EEXIST && isDir(parent, base) {
			err = nil
		} else if err == unix.EEXIST {
			if err := u.clear(parent, base, name); err != nil {
				return err
			}
			err = unix.Mkdirat(parent, base, 0o700)
		}
		u.dirs[name] = h
		return pathError("mkdir", name, err)
	}

	if err := u.clear(parent, base, name); err != nil {
		return err
	}
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(parent, base, h, write)
	case tar.TypeLink:
		return u.link(parent, base, h)
	case tar.TypeSymlink:
		err = unix.Symlinkat(h.Linkname, parent, base)
	case tar.TypeFifo:
		err = unix.Mkfifoat(parent, base, mode)
	case tar.TypeChar, tar.TypeBlock:
		kind := uint32(unix.S_IFCHR)
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
		err = unix.Mknodat(parent, base, kind|mode, int(unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))))
		if errors.Is(err, unix.EPERM) {
			u.refused[name] = true // not possible in a user namespace; see the package comment
			return nil
		}
	default:
		return fmt.Errorf("an entry of the unknown type %q", h.Typeflag)
	}
	if err != nil {
		return pathError("create", name, err)
	}
	return u.attributesAt(parent, base, h)
}

// whiteout handles an entry that hides what lower layers have: one name in dir, or all of dir.
func (u *unpacker) whiteout(parent int, dir, base string) error {
	if base == opaqueName {
		return pathError("setxattr", dir, unix.Fsetxattr(parent, opaqueXattr, []byte("y"), 0))
	}
	hidden := strings.TrimPrefix(base, whiteoutPrefix)
	if hidden == "" || hidden == "." || hidden == ".." {
		return errors.New("a whiteout that hides nothing")
	}
	if err := u.clear(parent, hidden, path.Join(dir, hidden)); err != nil {
		return err
	}
	return pathError("mknod", hidden, unix.Mknodat(parent, hidden, unix.S_IFCHR, 0))
}

func (u *unpacker) file(parent int, base string, h *tar.Header, write func(fd int) error) error {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat(parent, base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return pathError("create", h.Name, err)
	}
	if err = write(fd); err == nil {
		err = u.attributes(fd, h)
	}
	return errors.Join(err, pathError("close", h.Name, unix.Close(fd)))
}

// content writes the content of a file from a tar stream.
func (u *unpacker) content(fd int, h *tar.Header, r io.Reader) error {
	sparse := isSparse(h)
	if sparse {
		if err := u.sparse.add(h, u.options.holes()); err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, h.Size); err != nil {
			return pathError("truncate", h.Name, err)
		}
	}
	for left := h.Size; left > 0; {
		n, err := io.ReadFull(r, u.buf[:min(left, int64(len(u.buf)))])
		if err != nil {
			return fmt.Errorf("read tar: %w", err)
		}
		if sparse {
			if err := writeSparse(fd, u.buf[:n], h.Size-left); err != nil {
				return pathError("write", h.Name, err)
			}
			left -= int64(n)
			continue
		}
		for b := u.buf[:n]; len(b) > 0; {
			k, err := unix.Write(fd, b)
			if err != nil && err != unix.EINTR {
				return pathError("write", h.Name, err)
			}
			b = b[max(k, 0):]
		}
		left -= int64(n)
	}
	return nil
}

// link makes a hard link to an earlier entry. The target is resolved inside the layer. If its last
// element is a symbolic link, the hard link is to that symbolic link.
func (u *unpacker) link(parent int, base string, h *tar.Header) error {
	target := path.Clean("/" + h.Linkname)[1:]
	dir, last := path.Split(target)
	if last == "" {
		return errors.New("a hard link to the root of the layer")
	}
	from, err := u.openDir(strings.TrimSuffix(dir, "/"))
	if err != nil {
		return err
	}
	defer unix.Close(from)
	err = unix.Linkat(from, last, parent, base, 0)
	if errors.Is(err, unix.ENOENT) && u.refused[target] {
		u.refused[path.Clean("/" + h.Name)[1:]] = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("link to %q: %w", h.Linkname, err)
	}
	return nil
}

// attributes sets the attributes of an open file or directory. The owner comes first, because
// changing it clears set-user-id bits and capabilities.
func (u *unpacker) attributes(fd int, h *tar.Header) error {
	if !u.options.IgnoreOwner {
		if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
			return ownerError(h, err)
		}
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return pathError("chmod", h.Name, err)
	}
	err := u.eachXattr(h, func(key string, value []byte) error { return unix.Fsetxattr(fd, key, value, 0) })
	if err != nil {
		return err
	}
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	return pathError("set times of", h.Name, unix.UtimesNanoAt(unix.AT_FDCWD, path, times(h), 0))
}

// attributesAt does the same for files that cannot be opened.
func (u *unpacker) attributesAt(parent int, base string, h *tar.Header) error {
	if !u.options.IgnoreOwner {
		if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return ownerError(h, err)
		}
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(h.Mode&0o7777), 0); err != nil {
			return pathError("chmod", h.Name, err)
		}
	}
	err := u.eachXattr(h, func(key string, value []byte) error { return unix.Lsetxattr(at(parent, base), key, value, 0) })
	if err != nil {
		return err
	}
	return pathError("set times of", h.Name, unix.UtimesNanoAt(parent, base, times(h), unix.AT_SYMLINK_NOFOLLOW))
}

func (u *unpacker) finishDirs() error {
	for name, h := range u.dirs {
		fd, err := u.openDir(name)
		if err != nil {
			return err
		}
		if err := errors.Join(u.attributes(fd, h), unix.Close(fd)); err != nil {
			return named(h.Name, err)
		}
	}
	return nil
}

// openParent opens the directory name below the root and creates missing directories. The result is
// valid until the next call.
func (u *unpacker) openParent(name string) (int, error) {
	if u.parent >= 0 && u.parentName == name {
		return u.parent, nil
	}
	fd, err := u.openDir(name)
	if errors.Is(err, unix.ENOENT) {
		dir, base := path.Split(name)
		up, err := u.openParent(strings.TrimSuffix(dir, "/"))
		if err != nil {
			return -1, err
		}
		if err := unix.Mkdirat(up, base, 0o755); err != nil {
			return -1, pathError("mkdir", name, err)
		}
		if fd, err = u.openDir(name); err != nil {
			return -1, err
		}
	} else if err != nil {
		return -1, err
	}
	u.closeParent()
	u.parent, u.parentName = fd, name
	return fd, nil
}

func (u *unpacker) closeParent() {
	if u.parent >= 0 {
		unix.Close(u.parent)
		u.parent = -1
	}
}

// openDir opens a directory of the layer; name is relative, "" is the root.
func (u *unpacker) openDir(name string) (int, error) {
	if name == "" {
		name = "."
	}
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Openat2(u.root, name, &unix.OpenHow{
			Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
		})
		if err == unix.EAGAIN { // a rename elsewhere on the host raced with ".."
			err = unix.EINTR
		}
		return err
	})
	if err != nil {
		return -1, pathError("open", name, err)
	}
	return fd, nil
}

// clear removes an earlier entry of that name, if there is one.
func (u *unpacker) clear(parent int, base, name string) error {
	err := unix.Unlinkat(parent, base, 0)
	switch err {
	case nil, unix.ENOENT:
		u.forget(name)
		return nil
	case unix.EISDIR:
		u.forget(name)
		return os.RemoveAll(at(parent, base))
	}
	return pathError("replace", name, err)
}

// forget drops the pending attributes of a directory that is replaced.
func (u *unpacker) forget(name string) {
	if _, ok := u.dirs[name]; !ok {
		return
	}
	for dir := range u.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(u.dirs, dir)
		}
	}
}

func isDir(parent int, base string) bool {
	var st unix.Stat_t
	err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// eachXattr calls set for every extended attribute of h. It ignores refused attributes that only
// the host's root may set, and access lists if there are no users that they could refer to.
func (u *unpacker) eachXattr(h *tar.Header, set func(key string, value []byte) error) error {
	for record, value := range h.PAXRecords {
		key, ok := strings.CutPrefix(record, xattrRecord)
		if !ok || overlayXattr(key) || u.options.IgnoreOwner && strings.HasPrefix(key, "system.posix_acl_") {
			continue
		}
		err := set(key, []byte(value))
		hostsOwn := strings.HasPrefix(key, "trusted.") || key == "security.selinux" || key == "security.ima"
		if err != nil && !(hostsOwn && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EOPNOTSUPP))) {
			return pathError("set attribute "+key+" of", h.Name, err)
		}
	}
	return nil
}

func times(h *tar.Header) []unix.Timespec {
	t := unix.NsecToTimespec(h.ModTime.UnixNano())
	return []unix.Timespec{t, t}
}

func ownerError(h *tar.Header, err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("owner %d:%d is outside the range of user ids that this user may use", h.Uid, h.Gid)
	}
	return pathError("chown", h.Name, err)
}
