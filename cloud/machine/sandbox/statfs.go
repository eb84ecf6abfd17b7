package sandbox

import (
	"bufio"
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
	calls      *callListener
	boot       *bootSpec
	proc       *os.File      // the host's
	host       *os.File      // the root and
	base       *os.File      // the directory of this process
	patience   time.Duration // how long a call waits, until the kernel has it
	queue      chan *question
	walkers    atomic.Int32                 // all that have been begun
	free       atomic.Int32                 // those that can be expected to take another call soon
	hostDevice [2]uint32                    // of the file system with the volumes' trees
	first      atomic.Pointer[firstProcess] // once its root is the machine's; until then all calls are passed
	root       *usage

	mu      sync.Mutex
	volumes map[string]*usage
}

const (
	askWalkers   = 2   // threads that walk paths side by side, and
	askMost      = 16  // with those that wait for a file system that hangs
	askQueue     = 256 // calls that wait for one
	askPatience  = time.Second
	inodeDensity = 16 << 10 // bytes of a volume for each of its inodes, as mkfs.ext4 has it
)

// listenDisks makes the calls of what the calling thread starts from now on come to a diskTeller.
// What it cannot go on for it says.
func listenDisks(boot *bootSpec, say func(error)) (*diskTeller, error) {
	t := &diskTeller{
		boot: boot, patience: askPatience, queue: make(chan *question, askQueue),
		root: newUsage(boot.Layers, filepath.Join(boot.Dir, upperDir)), volumes: make(map[string]*usage),
	}
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
	t.calls, err = listenCalls(unix.SYS_STATFS, say)
	return t, err
}

// question is a call that is passed or answered by who takes it first.
type question struct {
	*stoppedCall
	late  *time.Timer
	taken atomic.Bool
}

func (q *question) take() bool { return q.taken.CompareAndSwap(false, true) }

// serve receives calls as long as somebody can make one. It does nothing itself that the machine
// could make it wait for: others walk paths, and when all of them wait the kernel has every call.
func (t *diskTeller) serve() {
	for range askWalkers {
		t.walkers.Add(1)
		go t.walk()
	}
	defer close(t.queue)
	for {
		call, err := t.calls.receive()
		if err != nil {
			t.calls.fail(err)
			return
		}
		// An init wants to know what kinds of file systems there are, while everybody waits.
		first := t.first.Load()
		if first == nil || first.pid == call.thread || t.free.Load() <= 0 {
			t.calls.pass(call)
			continue
		}
		q := &question{stoppedCall: call}
		pass := func() {
			if q.take() {
				t.calls.pass(call)
			}
		}
		q.late = time.AfterFunc(t.patience, pass)
		select {
		case t.queue <- q:
		default:
			pass()
		}
	}
}

// walk answers calls, one after the other, on a thread with a root of its own. While it takes long
// for one, another takes its place.
func (t *diskTeller) walk() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	if unix.Unshare(unix.CLONE_FS) != nil {
		return
	}
	t.free.Add(1)
	for q := range t.queue {
		if q.taken.Load() {
			continue
		}
		late := time.AfterFunc(t.patience, func() {
			t.free.Add(-1)
			if t.walkers.Add(1) <= askMost {
				t.walk()
			}
		})
		t.answer(q)
		if !late.Stop() {
			t.free.Add(1)
		}
	}
}

// answer answers one call, unless it has been passed meanwhile.
func (t *diskTeller) answer(q *question) {
	st, ok := t.look(q.stoppedCall)
	if !q.take() {
		return
	}
	q.late.Stop()
	// The thread is named anew to be written to: process_vm_writev(2) takes no more than a number, and
	// /proc/PID/mem writes what the caller could not. Should the caller be killed after the look and its
	// number be given anew at once, another process gets the answer: one that this may trace, so of
	// the machine's user namespace. For that all numbers have to be used between the two calls.
	if ok && t.calls.waits(q.stoppedCall) && q.writeStatfs(&st) == nil {
		t.calls.done(q.stoppedCall)
	} else {
		t.calls.pass(q.stoppedCall) // and the kernel says what is wrong
	}
}

// look makes the answer to a call about a disk of the machine's. It holds nothing of the machine's
// when it returns: whoever asked may want to unmount it.
func (t *diskTeller) look(call *stoppedCall) (st unix.Statfs_t, ok bool) {
	f, d := t.named(call)
	if f == nil {
		return st, false
	}
	defer f.Close()
	if d == nil || unix.Fstatfs(int(f.Fd()), &st) != nil || st.Bsize <= 0 {
		return st, false
	}
	size, err := readSize(d.dir)
	if err != nil {
		return st, false
	}
	fill(&st, size, d.usage.now())
	return st, true
}

// named is the file that a call names and the disk that it is on, or nil if that is none of the
// machine's, or if the kernel will refuse the call.
func (t *diskTeller) named(call *stoppedCall) (*os.File, *disk) {
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

// fill makes the answer for the host's disk that for a volume of size bytes. No more is available
// than the host has, too.
func fill(st *unix.Statfs_t, size int64, used diskUse) {
	block := uint64(st.Bsize)
	if st.Frsize > 0 { // what the blocks are counted in, see statvfs(3)
		block = uint64(st.Frsize)
	}
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
func (t *diskTeller) disk(call *stoppedCall, f *os.File) (*disk, error) {
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

// volume is the name of the volume whose tree is mounted by that number, as the caller sees it, or "".
func (t *diskTeller) volume(call *stoppedCall, mount uint64) (string, error) {
	mounts, err := t.openAt(call, "mountinfo", unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	return volumeMounted(mounts, mount, filepath.Base(t.boot.Dir))
}

const mountsMost = 4 << 20 // bytes of a table of mounts that are read

// volumeMounted looks mount up in a table of the form of proc_pid_mountinfo(5), which is as long as the
// machine makes it.
func volumeMounted(table io.Reader, mount uint64, machineDir string) (string, error) {
	id := strconv.FormatUint(mount, 10)
	lines := bufio.NewScanner(io.LimitReader(table, mountsMost))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), id+" "); ok {
			if f := strings.Fields(rest); len(f) > 3 {
				return volumeIn(unescape(f[2]), machineDir), nil
			}
		}
	}
	return "", lines.Err()
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
func (t *diskTeller) openNamed(call *stoppedCall, r rights) (*os.File, error) {
	path, err := call.pathname()
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
func (t *diskTeller) openAt(call *stoppedCall, name string, flags int) (*os.File, error) {
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

// rights are the ids that the kernel judges by who may walk a path.
type rights struct {
	user, group uintptr
	groups      []uint32
}

// rights are those of the thread that calls, see proc_pid_status(5).
func (t *diskTeller) rights(call *stoppedCall) (r rights, err error) {
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
