package sandbox

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// diskUse is the space that files use on a disk.
type diskUse struct{ bytes, files int64 }

// usage measures the space that the files in a tree use. It measures on demand and caches the
// result: a result may be some seconds old, for a large tree some minutes.
type usage struct {
	fixed []string // directories that never change and have not been measured yet; used only by look
	dir   string   // the directory that changes

	mu      sync.Mutex
	base    diskUse       // use of the fixed directories
	last    diskUse       // use of dir at the last measurement
	looking chan struct{} // closed when the running measurement ends; nil if none is running
	began   time.Time     // when that measurement started
	until   time.Time     // until when the result is valid
}

const (
	usageAge   = 2 * time.Second        // how long a result is valid, at least
	usageShare = 20                     // and at least this many times as long as the measurement took
	usageWait  = 500 * time.Millisecond // from the start of a measurement until the previous result is returned
	usageLimit = 10 * time.Second       // for one measurement; files not seen by then are not counted
	usageDepth = 200                    // of directories, each of which needs a file descriptor
	usageLinks = 100_000                // files with several names that are remembered
)

func newUsage(fixed []string, dir string) *usage { return &usage{fixed: fixed, dir: dir} }

// now returns the space that the files use. It does not wait long: until the first measurement is
// complete the result may be too low.
func (u *usage) now() diskUse {
	u.mu.Lock()
	if now := time.Now(); u.looking == nil && now.After(u.until) {
		u.looking, u.began = make(chan struct{}), now
		go u.look()
	}
	looking, end := u.looking, u.began.Add(usageWait)
	u.mu.Unlock()
	if looking != nil {
		select {
		case <-looking:
		case <-time.After(time.Until(end)):
		}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.base.plus(u.last)
}

// look measures the files. Only one measurement runs at a time.
func (u *usage) look() {
	for ; len(u.fixed) > 0; u.fixed = u.fixed[1:] {
		n := measure(u.fixed[0], time.Time{})
		u.mu.Lock()
		u.base = u.base.plus(n)
		u.mu.Unlock()
	}
	began := time.Now()
	n := measure(u.dir, began.Add(usageLimit))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last, u.until = n, time.Now().Add(max(usageAge, usageShare*time.Since(began)))
	close(u.looking)
	u.looking = nil
}

func (u diskUse) plus(v diskUse) diskUse { return diskUse{u.bytes + v.bytes, u.files + v.files} }

// measure adds up the files below dir until the deadline, if there is one.
func measure(dir string, deadline time.Time) diskUse {
	m := meter{deadline: deadline, seen: make(map[uint64]bool)}
	if fd, err := unix.Open(dir, openTree, 0); err == nil {
		m.dir(fd, 1)
	}
	return m.sum
}

const openTree = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC

type meter struct {
	sum      diskUse
	deadline time.Time
	seen     map[uint64]bool // inodes with several names
}

// dir adds the files in the directory fd, which it closes. It may or may not count what the machine
// changes meanwhile; no name leads out of the tree.
func (m *meter) dir(fd, depth int) {
	d := os.NewFile(uintptr(fd), "")
	defer d.Close()
	for m.deadline.IsZero() || time.Now().Before(m.deadline) {
		names, err := d.Readdirnames(256)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(fd, name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || m.again(&st) {
				continue
			}
			m.sum.files++
			m.sum.bytes += st.Blocks * 512 // in units of 512 bytes on any file system, see stat(2)
			if st.Mode&unix.S_IFMT != unix.S_IFDIR || depth == usageDepth {
				continue
			}
			if sub, err := unix.Openat(fd, name, openTree, 0); err == nil {
				m.dir(sub, depth+1)
			}
		}
		if err != nil { // io.EOF at the end
			return
		}
	}
}

// again reports whether the file was counted already, under another name.
func (m *meter) again(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink < 2 || len(m.seen) == usageLinks {
		return false
	}
	before := m.seen[st.Ino]
	m.seen[st.Ino] = true
	return before
}
