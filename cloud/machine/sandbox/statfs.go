package sandbox

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// diskTeller answers statfs(2) in a machine. The files of its root and of its volumes are
// directories of the host's file system, of which the kernel tells; they are to look as large as
// the volumes are, and as full as what is in them makes them. A filter of seccomp's hands these
// calls over to the shim, see seccomp_unotify(2), and the shim hands those back to the kernel that
// are about something else, or that it cannot make out.
//
// What a call says is the machine's to choose, and so is when it ends. A path is walked as the
// process that names it would, from its root and with its rights, and nothing is opened for more
// than to know where it is.
type diskTeller struct {
	listener   int
	boot       *bootSpec
	proc       *os.File // the host's
	host       *os.File // the root and
	base       *os.File // the directory of this process
	workers    atomic.Int32
	hostDevice [2]uint32                    // of the file system with the volumes' trees
	first      atomic.Pointer[firstProcess] // once its root is the machine's
	root       *usage

	mu      sync.Mutex
	volumes map[string]*usage
}

const (
	askWorkers   = 2           // threads that look at calls side by side, and
	askMost      = 16          // with those that wait for a file system that hangs
	askPatience  = time.Second // until the kernel has the call
	inodeDensity = 16 << 10    // bytes of a volume for each of its inodes, as mkfs.ext4 has it
)

// listenDisks makes the calls of what the calling thread starts from now on come to a diskTeller.
// Linux lets one listener be among the filters of a process.
func listenDisks(boot *bootSpec) (*diskTeller, error) {
	t := &diskTeller{boot: boot, root: newUsage(boot.Layers, filepath.Join(boot.Dir, upperDir)), volumes: make(map[string]*usage)}
	var err error
	for path, f := range map[string]**os.File{"/proc": &t.proc, "/": &t.host, ".": &t.base} {
		if *f, err = os.OpenFile(path, unix.O_PATH, 0); err != nil {
			return nil, err
		}
	}
	dir, err := os.OpenFile(boot.Dir, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	at, err := placeOf(dir)
	if err != nil {
		return nil, err
	}
	t.hostDevice = at.device
	if t.listener, err = listenCalls(unix.SYS_STATFS); err == nil {
		// Since Linux 6.6: who called goes on where this process was.
		_ = unix.IoctlSetInt(t.listener, unix.SECCOMP_IOCTL_NOTIF_SET_FLAGS, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	}
	return t, err
}

// listenCalls returns the descriptor that a call of what the calling thread starts is to be read
// from.
func listenCalls(call uint32) (listener int, err error) {
	flags := []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} // the first since Linux 5.19: a signal that is handled interrupts no call
	for _, flag := range flags {
		listener, err = filterCalls([]uint32{call}, unix.SECCOMP_RET_USER_NOTIF, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW|flag)
		if err == nil {
			break
		}
	}
	return listener, err
}

// statfsCall is struct seccomp_notif.
type statfsCall struct {
	id        uint64
	thread    uint32 // as this process sees it
	_         uint32
	number    int32
	_         uint32
	_         uint64
	arguments [6]uint64
}

// statfsAnswer is struct seccomp_notif_resp.
type statfsAnswer struct {
	id    uint64
	value int64
	errno int32
	flags uint32
}

func (t *diskTeller) ioctl(request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.listener), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// serve answers as long as this process lives.
func (t *diskTeller) serve() {
	for range askWorkers {
		t.workers.Add(1)
		go t.work()
	}
}

// work answers calls, one after the other, on a thread with a root of its own.
func (t *diskTeller) work() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Unshare(unix.CLONE_FS) != nil {
		return
	}
	for {
		call := new(statfsCall)
		switch err := t.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(call)); err {
		case nil:
			// An init wants to know what kinds of file systems there are, while everybody waits.
			if first := t.first.Load(); first == nil || first.pid == call.thread {
				t.pass(call)
			} else {
				t.answer(call)
			}
		case unix.EINTR, unix.ENOENT: // it has ended
		default:
			return
		}
	}
}

// pass has the kernel do the call.
func (t *diskTeller) pass(call *statfsCall) {
	t.send(statfsAnswer{id: call.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE})
}

func (t *diskTeller) send(a statfsAnswer) {
	_ = t.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&a)) // whoever asks may have ended
}

// answer answers one call. If it is not known in time what it is about, the kernel has it, and
// another thread takes this one's place.
func (t *diskTeller) answer(call *statfsCall) {
	late := time.AfterFunc(askPatience, func() {
		t.pass(call)
		if t.workers.Add(1) <= askMost {
			t.work()
		}
	})
	f, d := t.named(call)
	if f != nil {
		defer f.Close()
	}
	if !late.Stop() {
		return
	}
	if d == nil || !t.tell(call, f, d) {
		t.pass(call)
	}
}

// named is the file that a call names and the disk that it is on, or nil if that is none of the
// machine's, or if the kernel will refuse the call.
func (t *diskTeller) named(call *statfsCall) (*os.File, *disk) {
	f, err := t.openNamed(call, rights{})
	if err != nil || f == nil {
		return nil, nil
	}
	d, err := t.disk(call, f)
	if err != nil || d == nil { // such as most of those of a boot, which look at /sys and /proc
		return f, nil
	}
	r, err := t.rights(call)
	if err != nil {
		return f, nil
	}
	if r.user != 0 {
		again, err := t.openNamed(call, r)
		if err != nil || again == nil {
			return f, nil
		}
		again.Close()
	}
	return f, d
}

// tell answers a call about a file, which is on a disk of the machine's.
func (t *diskTeller) tell(call *statfsCall, f *os.File, d *disk) bool {
	size, err := deviceSize(d.dir)
	if err != nil {
		return false
	}
	var st unix.Statfs_t
	if unix.Fstatfs(int(f.Fd()), &st) != nil || st.Bsize <= 0 {
		return false
	}
	fill(&st, size, d.usage.now())
	memory, err := t.openAt(call, "mem", unix.O_WRONLY)
	if err != nil {
		return false
	}
	defer memory.Close()
	// As long as the call waits, its thread is the one whose memory this is.
	if t.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&call.id)) != nil {
		return false
	}
	answer := unsafe.Slice((*byte)(unsafe.Pointer(&st)), unsafe.Sizeof(st))
	if _, err := memory.WriteAt(answer, int64(call.arguments[1])); err != nil {
		return false // the kernel says so
	}
	t.send(statfsAnswer{id: call.id})
	return true
}

// fill makes the answer for the host's disk that for a volume of size bytes. No more is available
// than the host has, too.
func fill(st *unix.Statfs_t, size int64, used diskUse) {
	block := uint64(st.Bsize)
	st.Blocks = uint64(size) / block
	st.Bfree = st.Blocks - min(st.Blocks, (uint64(used.bytes)+block-1)/block)
	st.Bavail = min(st.Bfree, st.Bavail)
	st.Files = uint64(size) / inodeDensity
	st.Ffree = st.Files - min(st.Files, uint64(used.files))
}

// disk is one of a machine: its root or a volume.
type disk struct {
	dir   string // the host's, with the device
	usage *usage
}

// disk is the one of the machine's that a file is on, or nil.
func (t *diskTeller) disk(call *statfsCall, f *os.File) (*disk, error) {
	at, err := placeOf(f)
	if err != nil {
		return nil, err
	}
	if first := t.first.Load(); first != nil && first.device == at.device {
		return &disk{t.boot.Dir, t.root}, nil
	}
	if at.device != t.hostDevice {
		return nil, nil
	}
	name, err := t.volume(call, at.mount)
	if err != nil || name == "" {
		return nil, err
	}
	dir := filepath.Join(t.boot.Dir, machine.VolumesDir, name)
	return &disk{dir, t.volumeUse(name, filepath.Join(dir, machine.VolumeContent))}, nil
}

// place is where a file is.
type place struct {
	device [2]uint32
	mount  uint64
}

// placeOf asks no file system that may hang.
func placeOf(f *os.File) (place, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	return place{[2]uint32{st.Dev_major, st.Dev_minor}, st.Mnt_id}, os.NewSyscallError("statx", err)
}

// firstProcess is the machine's.
type firstProcess struct {
	pid    uint32
	device [2]uint32 // of the machine's root
}

// begun says that the process pid is the machine's first and has its root.
func (t *diskTeller) begun(pid int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	at, err := placeOf(f)
	if err != nil {
		return err
	}
	t.first.Store(&firstProcess{uint32(pid), at.device})
	return nil
}

// deviceSize is the size of the volume in dir, which is not the machine's to change.
func deviceSize(dir string) (int64, error) {
	st, err := os.Lstat(filepath.Join(dir, volumeDevice))
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// volume is the name of the volume whose tree is mounted by that number, as the caller sees it, or "".
func (t *diskTeller) volume(call *statfsCall, mount uint64) (string, error) {
	mounts, err := t.openAt(call, "mountinfo", unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	table, err := io.ReadAll(mounts)
	if err != nil {
		return "", err
	}
	id := strconv.FormatUint(mount, 10)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 4 && f[0] == id {
			return volumeIn(unescape(f[3]), filepath.Base(t.boot.Dir)), nil
		}
	}
	return "", nil
}

// volumeIn is the name of the volume of a machine, whose directory has that name, which a directory of
// the host is in the tree of, or "".
func volumeIn(path, machineDir string) string {
	_, rest, _ := strings.Cut(path+"/", "/"+machineDir+"/"+machine.VolumesDir+"/")
	name, rest, _ := strings.Cut(rest, "/")
	if !strings.HasPrefix(rest, machine.VolumeContent+"/") || name == ".." {
		return ""
	}
	return name
}

// volumeUse is what is known of the use of a volume, whose tree is dir.
func (t *diskTeller) volumeUse(name, dir string) *usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.volumes[name] == nil {
		t.volumes[name] = newUsage(nil, dir)
	}
	return t.volumes[name]
}

// openNamed opens the path of the call as its thread would that had these rights, but for what is
// in the directories of threads in the machine's /proc: those are not of this process. It is nil for
// a [kernelPath]. It may block.
func (t *diskTeller) openNamed(call *statfsCall, r rights) (*os.File, error) {
	path, err := t.path(call)
	if err != nil || kernelPath(path) {
		return nil, err
	}
	root, err := t.openAt(call, "root", unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	cwd, err := t.openAt(call, "cwd", unix.O_PATH)
	if err != nil {
		return nil, err
	}
	defer cwd.Close()
	defer func() { _ = moveTo(t.host, t.base) }() // or a file system of the machine would be in use
	if err := moveTo(root, cwd); err != nil {
		return nil, err
	}
	if r.user != 0 {
		r.take()
		defer rights{}.take()
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// kernelPath reports whether a path is sure to be below one of the kernel's own file systems, or
// where programs look for one when they begin, which is most calls of a boot.
func kernelPath(path string) bool {
	below := strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/") || path == "/selinux"
	return below && !strings.Contains(path, "..")
}

// openAt opens what the host's /proc has of the thread that calls.
func (t *diskTeller) openAt(call *statfsCall, name string, flags int) (*os.File, error) {
	fd, err := unix.Openat(int(t.proc.Fd()), fmt.Sprintf("%d/%s", call.thread, name), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// moveTo changes the root and the working directory of the calling thread.
func moveTo(root, dir *os.File) error {
	err := unix.Fchdir(int(root.Fd()))
	if err == nil {
		err = unix.Chroot(".")
	}
	if err == nil {
		err = unix.Fchdir(int(dir.Fd()))
	}
	return err
}

// path reads what the call names. A path that is not one is the kernel's to refuse.
func (t *diskTeller) path(call *statfsCall) (string, error) {
	memory, err := t.openAt(call, "mem", unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer memory.Close()
	text := make([]byte, unix.PathMax)
	n, err := memory.ReadAt(text, int64(call.arguments[0]))
	path, _, ok := strings.Cut(string(text[:n]), "\x00")
	if !ok {
		return "", fmt.Errorf("a path that does not end: %w", err)
	}
	return path, nil
}

// rights are the ids that the kernel judges by who may walk a path.
type rights struct {
	user, group uintptr
	groups      []uint32
}

// rights are those of the thread that calls, see proc_pid_status(5).
func (t *diskTeller) rights(call *statfsCall) (r rights, err error) {
	status, err := t.openAt(call, "status", unix.O_RDONLY)
	if err != nil {
		return r, err
	}
	defer status.Close()
	text, err := io.ReadAll(status)
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		switch {
		case name == "Uid" && len(fields) == 4:
			r.user = number(fields[3]) // for files
		case name == "Gid" && len(fields) == 4:
			r.group = number(fields[3])
		case name == "Groups":
			for _, f := range fields {
				r.groups = append(r.groups, uint32(number(f)))
			}
		}
	}
	return r, err
}

// number is one of the kernel's, which are numbers.
func number(text string) uintptr {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uintptr(n)
}

// take gives the calling thread alone these rights, and with a user other than root none of root's
// over files. A machine with one user id has nobody else's to take.
func (r rights) take() {
	var first unsafe.Pointer
	if len(r.groups) > 0 {
		first = unsafe.Pointer(&r.groups[0])
	}
	_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(r.groups)), uintptr(first), 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, r.group, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, r.user, 0, 0)
}
