package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A kernelFile is a file below /proc whose content the shim generates at each read, because the
// kernel's own describes the whole host. It is a FUSE file system with this one file, see fuse(4),
// mounted over the kernel's file.
type kernelFile struct {
	path string
	text func() ([]byte, error)
}

// fuseNode is a FUSE device node in a machine's directory. Root creates it for shims, because on
// some hosts only root may open the one in /dev.
const fuseNode = "fuse"

// fusePath is the host's own FUSE device.
const fusePath = "/dev/fuse"

// makeFuseNode makes fuseNode for the machine's root. The caller removes it once the machine has
// started.
func (d *Driver) makeFuseNode(dir string) (path string, err error) {
	const major, minor = 10, 229 // see admin-guide/devices in Linux's documentation
	path = filepath.Join(dir, fuseNode)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := unix.Mknod(path, unix.S_IFCHR|0o600, int(unix.Mkdev(major, minor))); err != nil {
		return "", &os.PathError{Op: "mknod", Path: path, Err: err}
	}
	return path, d.ids.give(path)
}

// openFuse opens a new FUSE connection for the current user namespace.
func openFuse(dir string) (*os.File, error) {
	var errs []error
	for _, path := range []string{filepath.Join(dir, fuseNode), fusePath} {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if path == fusePath || !errors.Is(err, unix.ENOENT) {
			errs = append(errs, &os.PathError{Op: "open", Path: path, Err: err})
		}
	}
	return nil, errors.Join(errs...)
}

// mountFuse returns a detached mount of a connection's file system.
func mountFuse(connection *os.File) (*os.File, error) {
	fd, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fuse: %w", err)
	}
	defer unix.Close(fd)
	for _, option := range [][2]string{
		{"source", "bake"}, {"fd", strconv.Itoa(int(connection.Fd()))}, {"rootmode", "100444"}, {"user_id", "0"}, {"group_id", "0"},
	} {
		if err := unix.FsconfigSetString(fd, option[0], option[1]); err != nil {
			return nil, fmt.Errorf("fuse: %s: %w", option[0], err)
		}
	}
	if err := unix.FsconfigSetFlag(fd, "allow_other"); err != nil {
		return nil, fmt.Errorf("fuse: allow_other: %w", err)
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return nil, fmt.Errorf("fuse: %w", err)
	}
	tree, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fuse: mount: %w", err)
	}
	return os.NewFile(uintptr(tree), "fuse"), nil
}

// Types of FUSE requests that are answered with more than an error, or not at all.
const (
	fuseForget      = 2
	fuseGetAttr     = 3
	fuseOpen        = 14
	fuseRead        = 15
	fuseStatFS      = 17
	fuseRelease     = 18
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseBatchForget = 42

	fuseRequestHeader = 40
	fuseMaxWrite      = 4096
	fuseDirectIO      = 1 // the file's size is unknown
)

// serve answers requests until the file is unmounted everywhere. The machine controls the content
// of requests.
func (k kernelFile) serve(connection *os.File) {
	defer connection.Close()
	request := make([]byte, 8192+fuseMaxWrite) // the minimum that the kernel accepts
	for {
		n, err := unix.Read(int(connection.Fd()), request)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOENT):
			continue
		case err != nil || n < fuseRequestHeader:
			return
		}
		if reply := k.answer(request[:n]); reply != nil {
			// Fails if the request was interrupted meanwhile.
			_, _ = unix.Write(int(connection.Fd()), reply)
		}
	}
}

// answer returns the reply to a request, or nil if no reply must be sent.
func (k kernelFile) answer(request []byte) []byte {
	le := binary.NativeEndian
	unique, body := le.Uint64(request[8:]), request[fuseRequestHeader:]
	var out []byte
	errno := unix.Errno(0)
	switch le.Uint32(request[4:]) {
	case fuseForget, fuseBatchForget, fuseInterrupt:
		return nil
	case fuseInit:
		out = make([]byte, 64)
		le.PutUint32(out, 7) // protocol version 7.31
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[20:], fuseMaxWrite)
		le.PutUint32(out[24:], 1) // time granularity in nanoseconds
	case fuseGetAttr:
		out = make([]byte, 16+88)
		attributes := out[16:]
		le.PutUint64(attributes, 1) // inode
		le.PutUint32(attributes[60:], unix.S_IFREG|0o444)
		le.PutUint32(attributes[64:], 1) // links
		le.PutUint32(attributes[80:], 4096)
	case fuseOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], fuseDirectIO)
	case fuseRead:
		out, errno = k.read(body)
	case fuseStatFS:
		out = make([]byte, 80)
	case fuseRelease:
	default:
		errno = unix.ENOSYS
	}
	reply := make([]byte, 16, 16+len(out))
	le.PutUint32(reply, uint32(16+len(out)))
	le.PutUint32(reply[4:], uint32(-int32(errno)))
	le.PutUint64(reply[8:], unique)
	return append(reply, out...)
}

// read generates the content again for each request, so that no state is kept for a reader.
func (k kernelFile) read(body []byte) ([]byte, unix.Errno) {
	if len(body) < 20 {
		return nil, unix.EINVAL
	}
	offset, size := binary.NativeEndian.Uint64(body[8:]), binary.NativeEndian.Uint32(body[16:])
	text, err := k.text()
	if err != nil {
		return nil, unix.EIO
	}
	if offset >= uint64(len(text)) {
		return nil, 0
	}
	text = text[offset:]
	return text[:min(uint64(size), uint64(len(text)))], 0
}
