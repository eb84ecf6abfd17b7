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

// statfsServer answers statfs(2) calls in a machine. The machine's root and volumes are directories
// of a host file system, and the kernel would report the host's figures. statfsServer reports the
// size of the volume and the usage of its content instead. A seccomp filter passes these calls to
// the shim, see seccomp_unotify(2). The shim returns calls that concern anything else, and calls
// that it cannot interpret, to the kernel.
//
// The machine controls the content of a call and how long handling it takes. A path is walked as
// the calling process would walk it, from that process's root and with its rights. Files are opened
// only to find out where they are.
type statfsServer struct {
	calls      *callListener
	boot       *bootSpec
	proc       *os.File      // the host's /proc
	host       *os.File      // the host's root and
	base       *os.File      // the working directory of this process
	patience   time.Duration // how long a call waits before the kernel gets it
	queue      chan *question
	walkers    atomic.Int32                 // all that were started
	free       atomic.Int32                 // those expected to take another call soon
	hostDevice [2]uint32                    // device of the file system that holds the volumes' trees
	first      atomic.Pointer[firstProcess] // set once its root is the machine's; until then all calls go to the kernel
	root       *usage

	mu      sync.Mutex
	volumes map[string]*usage
}

const (
	askWalkers   = 2   // threads that walk paths concurrently
	askMost      = 16  // the same, including those blocked by a file system that hangs
	askQueue     = 256 // calls waiting for a thread
	askPatience  = time.Second
	inodeDensity = 16 << 10 // bytes of a volume per inode, the default of mkfs.ext4
)

// newStatfsServer returns a server that receives the statfs calls of all processes that the calling
// thread starts from now on. It calls say with the errors that end its service.
func newStatfsServer(boot *bootSpec, say func(error)) (*statfsServer, error) {
	t := &statfsServer{
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

// question is a call that is either passed to the kernel or answered, by the
// goroutine that takes it first.
type question struct {
	*stoppedCall
	late  *time.Timer
	taken atomic.Bool
}

func (q *question) take() bool { return q.taken.CompareAndSwap(false, true) }

// serve receives calls as long as there are processes to make them. It does
// nothing that the machine could block: other goroutines walk paths, and when
// all of those are blocked, every call goes to the kernel.
func (t *statfsServer) serve() {
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
		// A call of the init goes to the kernel: it asks for the types of file
		// systems, while the whole boot waits for it.
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

// walk answers calls one at a time, on a thread with its own root directory. If
// one call takes too long, another goroutine takes over the queue.
func (t *statfsServer) walk() {
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

// answer answers one call, unless the call was passed to the kernel meanwhile.
func (t *statfsServer) answer(q *question) {
	st, ok := t.look(q.stoppedCall)
	if !q.take() {
		return
	}
	q.late.Stop()
	// The thread is addressed by its number again for the write:
	// process_vm_writev(2) accepts only a number, and /proc/PID/mem can write
	// where the caller could not. If the caller is killed after the check and
	// its number is reused at once, another process gets the answer. This
	// process must be able to trace that one, so it is in the machine's user
	// namespace too. And all other numbers would have to be used between the
	// two calls.
	if ok && t.calls.waits(q.stoppedCall) && q.writeStatfs(&st) == nil {
		t.calls.done(q.stoppedCall)
	} else {
		t.calls.pass(q.stoppedCall) // the kernel reports what is wrong
	}
}

// look computes the answer to a call about one of the machine's disks. It holds
// no file of the machine open when it returns, because the caller may want to
// unmount the file system.
func (t *statfsServer) look(call *stoppedCall) (st unix.Statfs_t, ok bool) {
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

// named returns the file that a call names and the disk that holds it. The disk
// is nil if it is not one of the machine's or if the kernel will refuse the
// call.
func (t *statfsServer) named(call *stoppedCall) (*os.File, *disk) {
	f, err := t.openNamed(call, rights{})
	if err != nil || f == nil {
		return nil, nil
	}
	d, err := t.disk(call, f)
	if err != nil || d == nil { // most calls during a boot: they concern /sys and /proc
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

// fill turns the answer for the host's file system into that for a volume of
// size bytes. The available space is at most the host's.
func fill(st *unix.Statfs_t, size int64, used diskUse) {
	block := uint64(st.Bsize)
	if st.Frsize > 0 { // the unit of the block counts, see statvfs(3)
		block = uint64(st.Frsize)
	}
	st.Blocks = uint64(size) / block
	st.Bfree = st.Blocks - min(st.Blocks, (uint64(used.bytes)+block-1)/block)
	st.Bavail = min(st.Bfree, st.Bavail)
	st.Files = uint64(size) / inodeDensity
	st.Ffree = st.Files - min(st.Files, uint64(used.files))
}

// disk is a machine's root or one of its volumes.
type disk struct {
	dir   string // the directory on the host that holds the device
	usage *usage
}

// disk returns the machine's disk that holds a file, or nil.
func (t *statfsServer) disk(call *stoppedCall, f *os.File) (*disk, error) {
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

// place is the location of a file.
type place struct {
	device [2]uint32
	mount  uint64
}

// placeOf returns the place of f. It does not query a file system that may
// hang.
func placeOf(f *os.File) (place, error) {
	var st unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	return place{[2]uint32{st.Dev_major, st.Dev_minor}, st.Mnt_id}, os.NewSyscallError("statx", err)
}

// firstProcess is the machine's first process.
type firstProcess struct {
	pid    uint32
	device [2]uint32 // of the machine's root
}

// begun records that process pid is the machine's first process and has changed to the machine's
// root.
func (t *statfsServer) begun(pid int) error {
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

// volume returns the name of the volume whose tree is mounted with that mount
// id, as the caller sees it, or "".
func (t *statfsServer) volume(call *stoppedCall, mount uint64) (string, error) {
	mounts, err := t.openAt(call, "mountinfo", unix.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer mounts.Close()
	return volumeMounted(mounts, mount, filepath.Base(t.boot.Dir))
}

const mountsMost = 4 << 20 // bytes read of a mount table

// volumeMounted looks mount up in a table in the format of
// proc_pid_mountinfo(5). The machine controls the table's length.
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

// volumeIn returns the name of the volume whose tree contains path, a directory
// of the host, or "". The volume's machine has a directory named machineDir.
func volumeIn(path, machineDir string) string {
	_, rest, _ := strings.Cut(path+"/", "/"+machineDir+"/"+machine.VolumesDir+"/")
	name, rest, _ := strings.Cut(rest, "/")
	if !strings.HasPrefix(rest, machine.VolumeContent+"/") || name == ".." {
		return ""
	}
	return name
}

// volumeUse returns the usage record of a volume whose tree is dir.
func (t *statfsServer) volumeUse(name, dir string) *usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.volumes[name] == nil {
		t.volumes[name] = newUsage(nil, dir)
	}
	return t.volumes[name]
}

// openNamed opens the path of the call as the calling thread would with rights
// r. The exception is a thread's own directory in the machine's /proc, which
// differs for this process. It returns nil for a [kernelPath]. It may block.
func (t *statfsServer) openNamed(call *stoppedCall, r rights) (*os.File, error) {
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
	defer func() { _ = moveTo(t.host, t.base) }() // otherwise a file system of the machine would stay in use
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

// kernelPath reports whether a path is certainly below one of the kernel's own
// file systems, or is the path where programs look for one when they start.
// Most calls during a boot have such a path.
func kernelPath(path string) bool {
	below := strings.HasPrefix(path, "/sys/") || strings.HasPrefix(path, "/proc/") || path == "/selinux"
	return below && !strings.Contains(path, "..")
}

// openAt opens a file in the host's /proc directory of the calling thread.
func (t *statfsServer) openAt(call *stoppedCall, name string, flags int) (*os.File, error) {
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

// rights are the ids that the kernel checks when a path is walked.
type rights struct {
	user, group uintptr
	groups      []uint32
}

// rights returns those of the calling thread, see proc_pid_status(5).
func (t *statfsServer) rights(call *stoppedCall) (r rights, err error) {
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
			r.user = number(fields[3]) // the user id for file access
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

// number parses a number printed by the kernel.
func number(text string) uintptr {
	n, _ := strconv.ParseUint(text, 10, 32)
	return uintptr(n)
}

// take gives the calling thread, and no other, these rights. For a user other
// than root it drops root's rights over files. A machine with one user id has
// no other user's rights to take.
func (r rights) take() {
	var first unsafe.Pointer
	if len(r.groups) > 0 {
		first = unsafe.Pointer(&r.groups[0])
	}
	_, _, _ = unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(r.groups)), uintptr(first), 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSGID, r.group, 0, 0)
	_, _, _ = unix.RawSyscall(unix.SYS_SETFSUID, r.user, 0, 0)
}
