package sandbox

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// inotifyLimit is the file with the number of inotify instances that a user may have. The instances
// of all machines of a user count towards that user's limit.
const inotifyLimit = "/proc/sys/fs/inotify/max_user_instances"

const (
	inotifyPerMachine = 8  // seven for systemd and its services; the rest is for the machine's programs
	inotifyEnough     = 64 // number of concurrent machines that Check considers sufficient
	inotifyRemedy     = "sysctl fs.inotify.max_user_instances=1024"
)

// budget limits the number of running machines to the available inotify instances. Without any,
// systemd fails as soon as it starts.
type budget struct {
	limit func() int      // the user's limit
	free  func(n int) int // how many of n more instances are available now

	mu     sync.Mutex
	own    int // machines of this driver
	others int // instances that others used when none were available
	ended  chan struct{}
}

func newBudget() *budget {
	return &budget{
		limit: func() int { n, _ := strconv.Atoi(sysctl(inotifyLimit)); return n },
		free:  freeInotify,
		ended: make(chan struct{}),
	}
}

// recheck is how often a waiting machine checks again, because other programs free instances
// without notice.
const recheck = time.Second

// acquire waits until there are inotify instances for one more machine. It calls waiting, once, if
// it has to wait. It fails if other machines are not the reason that instances are missing.
func (b *budget) acquire(ctx context.Context, waiting func(why string)) (release func(), err error) {
	for told := false; ; {
		b.mu.Lock()
		limit := b.limit()
		if b.own == 0 {
			b.others = limit - b.free(limit)
		}
		switch {
		case limit <= 0, (b.own+1)*inotifyPerMachine <= limit-b.others && b.free(inotifyPerMachine) == inotifyPerMachine:
			b.own++
			b.mu.Unlock()
			return sync.OnceFunc(b.release), nil
		case b.own == 0:
			b.mu.Unlock()
			return nil, fmt.Errorf("not enough inotify instances for a machine: this user may have %d (fs.inotify.max_user_instances), "+
				"other programs use %d of them, and a machine needs %d; as root, run: %s", limit, b.others, inotifyPerMachine, inotifyRemedy)
		}
		own, ended := b.own, b.ended
		b.mu.Unlock()
		if !told && waiting != nil {
			waiting(fmt.Sprintf("Waiting for another machine to end: this host has enough inotify instances for %d at once (fs.inotify.max_user_instances is %d). To run more, as root: %s",
				own, limit, inotifyRemedy))
		}
		told = true
		select {
		case <-ended:
		case <-time.After(recheck):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (b *budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.own--
	close(b.ended)
	b.ended = make(chan struct{})
}

// inotifyPatience is how long a machine that is about to start systemd waits for
// what it had when it was admitted.
const inotifyPatience = 2 * time.Minute

// awaitInotify waits, in the machine, until there are inotify instances for systemd. The budget
// counts only the machines of its own driver: those of another driver may have taken the instances
// that were free when this machine was admitted.
func awaitInotify(free func(n int) int) error {
	for begin := time.Now(); free(inotifyPerMachine) < inotifyPerMachine; time.Sleep(recheck / 4) {
		if time.Since(begin) > inotifyPatience {
			return fmt.Errorf("not enough inotify instances for systemd (fs.inotify.max_user_instances), because other programs of this host's user have taken them; as root, run: %s", inotifyRemedy)
		}
	}
	return nil
}

// freeInotify opens up to n instances, and closes them again.
func freeInotify(n int) int {
	fds := make([]int, 0, min(n, 1024))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for len(fds) < n {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if err != nil {
			break
		}
		fds = append(fds, fd)
	}
	return len(fds)
}

// wantsBudget reports whether a machine may come to run systemd.
func (d *Driver) wantsBudget(spec machine.Spec) bool {
	return len(spec.Command) == 0 && d.mayRunSystemd()
}

func (d *Driver) mayRunSystemd() bool {
	return d.options.Init != InitBuiltin && d.ids.mode != ModeSingle && (d.groups.parent != "" || d.groups.scopes)
}

func (d *Driver) checkInotify() machine.Finding {
	const name = "inotify instances"
	if !d.mayRunSystemd() {
		return good(name, "machines without systemd need almost none")
	}
	limit := d.budget.limit()
	detail := fmt.Sprintf("fs.inotify.max_user_instances is %d, enough for about %d machines at once", limit, limit/inotifyPerMachine)
	if limit >= inotifyPerMachine*inotifyEnough {
		return good(name, detail)
	}
	return machine.Finding{Name: name, Detail: detail + "; more wait for one to end", Remedy: inotifyRemedy + ", and the same line in a file in /etc/sysctl.d to keep it"}
}
