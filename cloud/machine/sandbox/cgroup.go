package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// cgroups describes where in the host's cgroup v2 tree machines can be placed. Only systemd as a
// machine's init needs a cgroup, but all machines benefit from one.
type cgroups struct {
	mount  string            // mount point of the cgroup2 file system; empty if there is none
	own    string            // the group that this process is in; empty if it may not move processes there
	parent string            // directory in which this user may make groups; empty if there is none
	v1     map[string]string // where this user may make groups of version 1 controllers, by controller
	scopes bool              // otherwise, the user's systemd can create a scope for each machine
	log    *slog.Logger
}

// group is the cgroup of one machine: dir/shim holds the shim, dir/init is the root of the
// machine's own tree.
type group struct{ dir string }

// groupPrefix starts the names of bake's groups. The process id and start time of the driver
// follow, by which the groups of a dead driver are recognized.
const groupPrefix = "bake-"

func findCgroups(log *slog.Logger) cgroups {
	g := cgroups{log: log}
	mounts, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return g
	}
	defer mounts.Close()
	table, err := io.ReadAll(mounts)
	if err != nil {
		return g
	}
	g.v1 = map[string]string{}
	for controller, dir := range v1Hierarchies(bytes.NewReader(table)) {
		if os.Geteuid() == 0 && unix.Access(dir, unix.W_OK) == nil {
			g.v1[controller] = dir
		}
	}
	if g.mount = cgroup2Mount(bytes.NewReader(table)); g.mount == "" {
		return g
	}
	own, err := ownCgroup("/proc/self/cgroup")
	if err != nil {
		return g
	}
	own = filepath.Join(g.mount, own)
	if unix.Access(filepath.Join(own, "cgroup.procs"), unix.W_OK) == nil {
		g.own = own
	}
	candidates := []string{own}
	if os.Geteuid() == 0 {
		candidates = []string{g.mount, own}
	}
	for _, dir := range candidates {
		if unix.Access(dir, unix.W_OK) == nil && unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) == nil {
			g.parent = dir
			g.enableControllers()
			return g
		}
	}
	_, missing := exec.LookPath("busctl")
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	g.scopes = missing == nil && runtime != "" && exists(filepath.Join(runtime, "bus")) && exists(filepath.Join(runtime, "systemd"))
	return g
}

// cgroup2Mount finds the cgroup v2 file system in a mountinfo file, see proc(5).
func cgroup2Mount(r io.Reader) string {
	for s := bufio.NewScanner(r); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) >= 5 && strings.HasPrefix(after, "cgroup2 ") {
			return unescapeMount(fields[4])
		}
	}
	return ""
}

// unescapeMount undoes the octal escapes of a mountinfo file.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// ownCgroup returns the v2 path in a /proc/PID/cgroup file.
func ownCgroup(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s contains no cgroup v2 path", file)
}

// create makes a machine's group, owned by the machines' root. It returns nil if the group can only
// be made once the shim runs; see adopt.
func (g cgroups) create(id string, ids identity) (*group, error) {
	if g.parent == "" {
		return nil, nil
	}
	name, err := groupName(id)
	if err != nil {
		return nil, err
	}
	made := &group{dir: filepath.Join(g.parent, name)}
	if err := made.populate(ids); err != nil {
		_ = made.remove()
		return nil, err
	}
	return made, nil
}

// groupName returns the name of a machine's groups.
func groupName(id string) (string, error) {
	started, err := startTime(os.Getpid())
	return fmt.Sprintf("%s%d-%d-%s", groupPrefix, os.Getpid(), started, id), err
}

// adopt asks the user's systemd for a scope that contains the running shim, and moves the shim to
// its group in the scope.
func (g cgroups) adopt(ctx context.Context, id string, pid int, ids identity, l machine.Limits) (*group, error) {
	unit := fmt.Sprintf("%s%d-%s.scope", groupPrefix, os.Getpid(), id)
	before, err := ownCgroup(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return nil, err
	}
	n, limits := scopeProperties(l)
	args := []string{"--user", "call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1",
		"org.freedesktop.systemd1.Manager", "StartTransientUnit", "ssa(sv)a(sa(sv))",
		unit, "fail", strconv.Itoa(3 + n), "PIDs", "au", "1", strconv.Itoa(pid), "Delegate", "b", "true", "CollectMode", "s", "inactive-or-failed"}
	out, err := exec.CommandContext(ctx, "busctl", append(append(args, limits...), "0")...).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("ask systemd for a scope: %w: %s", err, clean(string(out)))
	}
	// The answer only means that the job is queued; the process is moved when the job is done.
	var path string
	err = eventually(ctx, 5*time.Second, func() (bool, error) {
		path, err = ownCgroup(fmt.Sprintf("/proc/%d/cgroup", pid))
		return path != before, err
	})
	if err != nil {
		return nil, fmt.Errorf("systemd did not move the machine into %s: %w", unit, err)
	}
	made := &group{dir: filepath.Join(g.mount, path)}
	if err := made.populate(ids); err != nil {
		return nil, err
	}
	return made, made.take(pid)
}

// take moves the process that becomes the shim into its group.
func (g *group) take(pid int) error {
	return joinGroup(g.shim(), pid)
}

// joinGroup moves a process to a control group.
func joinGroup(dir string, pid int) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
}

func (g *group) shim() string { return filepath.Join(g.dir, "shim") }
func (g *group) init() string { return filepath.Join(g.dir, "init") }

// populate makes the group's directories and gives the machines' root those files that it needs to
// move processes and to make groups below.
func (g *group) populate(ids identity) error {
	for _, dir := range []string{g.dir, g.shim(), g.init()} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		for _, file := range []string{"", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"} {
			if err := ids.give(filepath.Join(dir, file)); err != nil {
				return err
			}
		}
	}
	return nil
}

// kill ends every process of the group at once. It needs kernel 5.14.
func (g *group) kill() error {
	return os.WriteFile(filepath.Join(g.dir, "cgroup.kill"), []byte("1"), 0)
}

// freeze suspends the machine but not the shim, and waits until all processes have stopped.
func (g *group) freeze(ctx context.Context) error {
	if err := os.WriteFile(filepath.Join(g.init(), "cgroup.freeze"), []byte("1"), 0); err != nil {
		return err
	}
	return eventually(ctx, 10*time.Second, func() (bool, error) { return g.event(g.init(), "frozen 1") })
}

func (g *group) thaw() error {
	return os.WriteFile(filepath.Join(g.init(), "cgroup.freeze"), []byte("0"), 0)
}

func (g *group) event(dir, line string) (bool, error) {
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return strings.Contains(string(b), line), err
}

// remove kills the remaining processes of the group and removes its directories. The last processes
// may take a moment to disappear.
func (g *group) remove() error {
	if !exists(g.dir) {
		return nil
	}
	_ = g.kill()
	ctx := context.Background()
	err := eventually(ctx, 5*time.Second, func() (bool, error) {
		empty, err := g.event(g.dir, "populated 0")
		return empty || errors.Is(err, fs.ErrNotExist), nil
	})
	if err != nil {
		return fmt.Errorf("processes remain in %s: %w", g.dir, err)
	}
	return removeTree(g.dir)
}

// removeTree removes a cgroup and the groups below it.
func removeTree(dir string) error {
	if err := removeBelow(dir); err != nil {
		return err
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// removeBelow removes the groups below a cgroup.
func removeBelow(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeTree(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeGroup removes a machine's group, see [group.remove]. Groups of the machine's users, such as
// those of their sessions, belong to user ids of the machine, which only a worker can remove.
func (d *Driver) removeGroup(g *group) error {
	err := g.remove()
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	dir, err := os.Open(g.dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := d.inNamespace(ctx, filesJob{op: "remove-groups", dirs: []*os.File{dir}}); err != nil {
		return fmt.Errorf("remove the groups below %s: %w", g.dir, err)
	}
	return g.remove()
}

// removeStale removes the groups of drivers that have died, those of version 2 with remove.
func (g cgroups) removeStale(remove func(*group) error) {
	var dirs []string
	for _, parent := range append(slices.Collect(maps.Values(g.v1)), g.parent) {
		if parent != "" {
			found, _ := filepath.Glob(filepath.Join(parent, groupPrefix+"*-*-*"))
			dirs = append(dirs, found...)
		}
	}
	for _, dir := range dirs {
		var pid int
		var started uint64
		if _, err := fmt.Sscanf(filepath.Base(dir), groupPrefix+"%d-%d-", &pid, &started); err != nil {
			continue
		}
		if now, err := startTime(pid); err == nil && now == started {
			continue
		}
		var err error
		if exists(filepath.Join(dir, "cgroup.events")) {
			err = remove(&group{dir: dir})
		} else { // of v1: its processes were killed through the other group
			err = removeTree(dir)
		}
		if err != nil {
			g.log.Warn("cannot remove a stale control group", "dir", dir, "error", err)
		}
	}
}

// startTime returns the start time of a process in clock ticks since the boot of the host, see
// proc(5). It distinguishes two processes with the same id.
func startTime(pid int) (uint64, error) {
	fields := statFields(fmt.Sprintf("/proc/%d/stat", pid))
	if len(fields) < 20 || fields[0] == "Z" {
		return 0, syscall.ESRCH
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// statFields returns the fields of a process's or thread's stat file from the state on; none if it
// has ended.
func statFields(path string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	// The second field, the command's name in parentheses, may contain any characters.
	_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')')+1:]), " ")
	return strings.Fields(rest)
}

// eventually polls for a state of the kernel that cannot be waited for.
func eventually(ctx context.Context, limit time.Duration, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if ctx.Err() != nil { // checked because select may choose the other case if both are ready
			return context.Cause(ctx)
		}
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
