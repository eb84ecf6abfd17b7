package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"

	subid "github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// Mode is how the user ids of a machine map to those of the host.
type Mode string

const (
	// ModeRange gives machines a range of ids that no other user has. It requires root.
	ModeRange Mode = "range"
	// ModeSubid maps the machines' root to the user and the other ids to the user's subordinate
	// ids. It is for ordinary users.
	ModeSubid Mode = "subid"
	// ModeSingle maps only one id, the user's own: every file and process of a machine belongs to
	// its root. It is for users without subordinate ids.
	ModeSingle Mode = "single"
)

const (
	// rangeBase is the start of root's range. It is above the ranges that distributions assign to
	// the first users and below those that systemd-nspawn uses.
	rangeBase = 1 << 20
	rangeSize = 1 << 16
)

// identity is the mapping of a driver's machines. They share it so that a machine can read a layer
// that another has written.
type identity struct {
	mode Mode
	uids []syscall.SysProcIDMap
	gids []syscall.SysProcIDMap
}

// hostIdentity chooses a mapping; want is empty or forces a mode.
func hostIdentity(want Mode) (identity, error) {
	root := os.Geteuid() == 0
	switch want {
	case "":
		if root {
			return rangeIdentity()
		}
		if id, err := subidIdentity(); err == nil {
			return id, nil
		}
		return singleIdentity(), nil
	case ModeRange:
		if !root {
			return identity{}, errors.New("only root can use a range of user ids")
		}
		return rangeIdentity()
	case ModeSubid:
		return subidIdentity()
	case ModeSingle:
		return singleIdentity(), nil
	}
	return identity{}, fmt.Errorf("unknown user namespace mode %q", want)
}

// rangeIdentity maps machines to rangeBase. If this process is in a user namespace that lacks those
// ids, they get the ids that exist, from 0 on. In that case 0 is not the host's root either.
func rangeIdentity() (identity, error) {
	uids, err := rangeWithin("/proc/self/uid_map")
	if err != nil {
		return identity{}, err
	}
	gids, err := rangeWithin("/proc/self/gid_map")
	return identity{ModeRange, uids, gids}, err
}

func rangeWithin(path string) ([]syscall.SysProcIDMap, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var extents []syscall.SysProcIDMap
	for s := bufio.NewScanner(f); s.Scan(); {
		var inside, outside, size int
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &size); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if inside <= rangeBase && rangeBase+rangeSize <= inside+size {
			return []syscall.SysProcIDMap{{ContainerID: 0, HostID: rangeBase, Size: rangeSize}}, nil
		}
		extents = append(extents, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
	}
	return extents, nil
}

func subidIdentity() (identity, error) {
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(program); err != nil {
			return identity{}, fmt.Errorf("%s is not installed", program)
		}
	}
	name := userName()
	uids, err := subordinateMap("/etc/subuid", name, os.Getuid(), os.Getuid())
	if err != nil {
		return identity{}, err
	}
	gids, err := subordinateMap("/etc/subgid", name, os.Getuid(), os.Getgid())
	return identity{ModeSubid, uids, gids}, err
}

// userName returns the name of the user of this process, empty if it has none. $USER may be
// missing, or that of another user.
func userName() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// subordinateMap maps root to the user's own id and the other ids to the largest range that the
// file assigns to the user.
func subordinateMap(file, name string, uid, own int) ([]syscall.SysProcIDMap, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	first, count, err := largestRange(f, name, uid)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if count == 0 {
		return nil, fmt.Errorf("%s has no range for user %s", file, name)
	}
	return []syscall.SysProcIDMap{
		{ContainerID: 0, HostID: own, Size: 1},
		{ContainerID: 1, HostID: first, Size: min(count, rangeSize)},
	}, nil
}

// largestRange reads lines of the form user:first:count, see subuid(5).
func largestRange(r io.Reader, name string, uid int) (first, count int, err error) {
	ranges, err := subid.ParseSubIDFilter(r, func(s subid.SubID) bool { return s.Name == name || s.Name == strconv.Itoa(uid) })
	for _, s := range ranges {
		if s.SubID > 0 && int(s.Count) > count { // an invalid number is 0
			first, count = int(s.SubID), int(s.Count)
		}
	}
	return first, count, err
}

func singleIdentity() identity {
	one := func(id int) []syscall.SysProcIDMap {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	return identity{ModeSingle, one(os.Geteuid()), one(os.Getegid())}
}

// size returns the number of user ids of a machine.
func (id identity) size() int {
	n := 0
	for _, m := range id.uids {
		n += m.Size
	}
	return n
}

// rootUID and rootGID return the host's ids for the machines' root.
func (id identity) rootUID() int { return id.uids[0].HostID }
func (id identity) rootGID() int { return id.gids[0].HostID }

// give makes the machines' root the owner of path.
func (id identity) give(path string) error {
	if id.mode != ModeRange {
		return nil
	}
	return os.Lchown(path, id.rootUID(), id.rootGID())
}

// prepare makes cmd start in a new user namespace and in the namespaces given by flags.
func (id identity) prepare(cmd *exec.Cmd, flags uintptr) {
	attr := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | flags}
	if id.mode == ModeRange {
		attr.UidMappings, attr.GidMappings = id.uids, id.gids
		attr.GidMappingsEnableSetgroups = true
		attr.Credential = &syscall.Credential{Uid: 0, Gid: 0}
	}
	cmd.SysProcAttr = attr
}

// finish maps the ids of a process that was started after prepare. Until then the process waits in
// enterNamespace.
func (id identity) finish(pid int) error {
	proc := fmt.Sprintf("/proc/%d/", pid)
	switch id.mode {
	case ModeSubid:
		if err := runMapper("newuidmap", pid, id.uids); err != nil {
			return err
		}
		return runMapper("newgidmap", pid, id.gids)
	case ModeSingle:
		for _, file := range []struct{ name, text string }{
			{"setgroups", "deny"},
			{"gid_map", fmt.Sprintf("0 %d 1", id.rootGID())},
			{"uid_map", fmt.Sprintf("0 %d 1", id.rootUID())},
		} {
			if err := os.WriteFile(proc+file.name, []byte(file.text), 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// errMapper means that newuidmap or newgidmap refused to map ids.
var errMapper = errors.New("the ids could not be mapped")

func runMapper(program string, pid int, ids []syscall.SysProcIDMap) error {
	args := []string{strconv.Itoa(pid)}
	for _, m := range ids {
		args = append(args, strconv.Itoa(m.ContainerID), strconv.Itoa(m.HostID), strconv.Itoa(m.Size))
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s: %w: %s", errMapper, program, err, clean(string(out)))
	}
	return nil
}

const (
	fdMapped    = 3 // a byte received on it means that the ids are mapped
	mappedAgain = "mapped"
)

// enterNamespace is the first call of a child that was started after prepare. It waits until the
// ids are mapped and returns the child's arguments. Unless the ids were mapped when the program
// started, it executes the program again, because a process gets its capabilities in a new user
// namespace only at an exec as the namespace's root. It sets the umask of Linux's first processes,
// whatever the umask of the driver's user is.
func enterNamespace(args []string) (operands []string, err error) {
	unix.Umask(0o022)
	if len(args) > 1 && args[1] == mappedAgain {
		return args[2:], nil
	}
	gate := os.NewFile(fdMapped, "gate")
	if _, err := io.ReadFull(gate, make([]byte, 1)); err != nil {
		return nil, fmt.Errorf("the driver gave up before the machine started: %w", err)
	}
	header, able := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &able[0]); err != nil {
		return nil, os.NewSyscallError("capget", err)
	}
	if able[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0 {
		return args[1:], nil
	}
	again := append([]string{args[0], mappedAgain}, args[1:]...)
	return nil, syscall.Exec("/proc/self/exe", again, os.Environ())
}
