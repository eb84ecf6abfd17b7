package sandbox

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// diskUse is what files take of a disk.
type diskUse struct{ bytes, files int64 }

// usage knows what the files in a tree take. It looks when it is asked, and not again soon: what it
// says may be some seconds old, or of a tree that takes long to look through some minutes.
type usage struct {
	fixed []string // directories that never change and have not been looked at; look's
	dir   string   // the one that does

	mu      sync.Mutex
	base    diskUse       // what the fixed ones take
	last    diskUse       // what the other did when it was looked at
	looking chan struct{} // closed at the end of a look; nil if there is none
	began   time.Time     // when it did
	until   time.Time     // what is known is good
}

const (
	usageAge   = 2 * time.Second        // for how long what is known is good, at least
	usageShare = 20                     // times as long as it took to find out
	usageWait  = 500 * time.Millisecond // from the begin of a look; then what is known is told
	usageLimit = 10 * time.Second       // to look; what has not been seen then is not counted
	usageDepth = 200                    // of directories, each of which takes a descriptor
	usageLinks = 100_000                // files with several names that are known to be the same
)

func newUsage(fixed []string, dir string) *usage { return &usage{fixed: fixed, dir: dir} }

// now is what the files take. It does not wait long: before the end of the first look it may be less.
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

// look looks at the files. There is one at a time.
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

// measure adds up what is below dir until the deadline, if there is one.
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

// dir adds what is in the directory fd, which it closes. What a machine changes meanwhile is
// counted or not: no name leads out of the tree.
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
			m.sum.bytes += st.Blocks * 512 // whatever the file system's own blocks, see stat(2)
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

// again reports whether the file was counted under another name.
func (m *meter) again(st *unix.Stat_t) bool {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR || st.Nlink < 2 || len(m.seen) == usageLinks {
		return false
	}
	before := m.seen[st.Ino]
	m.seen[st.Ino] = true
	return before
}
