package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"bake/cloud/durable"
	"bake/cloud/machine"
	"bake/cloud/network"

	"golang.org/x/sys/unix"
)

// Check implements [machine.Driver]. It leaves nothing behind.
func (d *Driver) Check(ctx context.Context) []machine.Finding {
	namespaces := sync.OnceValue(tried(ctx, d.checkNamespaces))
	overlay := sync.OnceValue(needing(namespaces, tried(ctx, d.checkOverlay)))
	checks := []func() machine.Finding{
		namespaces,
		d.checkIDs,
		d.checkStateDir,
		overlay,
		needing(namespaces, tried(ctx, d.checkNIC)),
		d.checkCgroup,
		d.checkLimits,
		needing(overlay, tried(ctx, d.checkFuse)),
		needing(namespaces, tried(ctx, d.checkDisks)),
		d.checkInotify,
		d.checkEmulation,
		checkLowPorts,
	}
	findings := make([]machine.Finding, len(checks))
	var all sync.WaitGroup
	for i, check := range checks {
		all.Go(func() { findings[i] = check() })
	}
	all.Wait()
	return findings
}

// tried wraps a check that tries something. A failure after the end of ctx says nothing about the
// host: the finding reports the interruption instead and is not fatal.
func tried(ctx context.Context, check func(context.Context) machine.Finding) func() machine.Finding {
	return func() machine.Finding {
		f := check(ctx)
		if cause := context.Cause(ctx); cause != nil && !f.OK {
			f.Fatal, f.Detail, f.Remedy = false, "the check was interrupted: "+cause.Error(), ""
		}
		return f
	}
}

// needing wraps a check that cannot succeed without what basis checks. If both fail, the failure of
// check is a consequence, and has no remedy of its own.
func needing(basis, check func() machine.Finding) func() machine.Finding {
	return func() machine.Finding {
		f := check()
		if b := basis(); !f.OK && !b.OK {
			return machine.Finding{Name: f.Name, Detail: "could not be checked without " + b.Name}
		}
		return f
	}
}

func good(name, detail string) machine.Finding {
	return machine.Finding{Name: name, OK: true, Detail: detail}
}

// checkNamespaces starts a process in new namespaces of all kinds that machines need.
func (d *Driver) checkNamespaces(ctx context.Context) machine.Finding {
	const name = "user namespaces"
	f := machine.Finding{Name: name, Fatal: true}
	err := d.probe(ctx, "namespaces", "")
	if err == nil {
		return good(name, fmt.Sprintf("a process can have its own, in mode %q", d.ids.mode))
	}
	f.Detail = err.Error()
	f.Remedy = namespaceRemedy(err, sysctl)
	return f
}

// namespaceRemedy returns what to do about err, the failure to start a process in new namespaces.
// read returns the content of a file below /proc.
func namespaceRemedy(err error, read func(path string) string) string {
	switch {
	case limitRemedy(err) != "":
		return limitRemedy(err)
	case read("/proc/sys/user/max_user_namespaces") == "0":
		return "sysctl user.max_user_namespaces=15000"
	case errors.Is(err, syscall.ENOSPC):
		return "raise the limits of namespaces: sysctl" + lowNamespaceLimits(read)
	case read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
		return "sysctl kernel.unprivileged_userns_clone=1"
	case read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or give bake an AppArmor profile with the rule userns"
	case errors.Is(err, errMapper) && strings.Contains(read("/proc/self/status"), "NoNewPrivs:\t1"):
		return "start bake without no_new_privs, which keeps newuidmap from its privileges: in a systemd unit, set NoNewPrivileges=no; in a container, leave out --security-opt no-new-privileges"
	case errors.Is(err, errMapper):
		return "check that the ranges of this user in /etc/subuid and /etc/subgid are its own, and that newuidmap and newgidmap are installed as Debian's package uidmap installs them"
	case errors.Is(err, syscall.EPERM):
		return "if this is a container, start it with --privileged, or with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
	}
	return "use a kernel with CONFIG_USER_NS, CONFIG_NET_NS and CONFIG_PID_NS"
}

// limitRemedy returns what to do about err if a limit of this process has kept it from starting
// another one, and else nothing.
func limitRemedy(err error) string {
	switch {
	case errors.Is(err, syscall.EMFILE):
		return "raise the limit of open files: ulimit -n 4096"
	case errors.Is(err, syscall.EAGAIN):
		return "raise the limit of processes: ulimit -u 4096"
	}
	return ""
}

// lowNamespaceLimits returns settings, as arguments of sysctl, for the kinds of namespace of which
// this host allows fewer than its machines may need.
func lowNamespaceLimits(read func(path string) string) string {
	const enough = 15000
	var low strings.Builder
	for _, kind := range []string{"user", "net", "mnt", "pid", "uts", "ipc", "cgroup"} {
		name := "max_" + kind + "_namespaces"
		if n, err := strconv.Atoi(read("/proc/sys/user/" + name)); err == nil && n < enough {
			fmt.Fprintf(&low, " user.%s=%d", name, enough)
		}
	}
	return cmp.Or(low.String(), " user.max_user_namespaces=100000") // they count for the whole user
}

func (d *Driver) checkIDs() machine.Finding {
	const name = "subordinate user ids"
	switch d.ids.mode {
	case ModeRange:
		return good(name, fmt.Sprintf("not needed by root; machines have %d user ids from %d on", d.ids.size(), d.ids.rootUID()))
	case ModeSubid:
		if d.ids.size() < rangeSize {
			return machine.Finding{
				Name:   name,
				Detail: fmt.Sprintf("only %d; files of users above that, such as nobody (65534), cannot be unpacked", d.ids.size()),
				Remedy: giveIDs(),
			}
		}
		return good(name, fmt.Sprintf("%d from %d on", d.ids.uids[1].Size, d.ids.uids[1].HostID))
	}
	const single = "machines run with one user id and without systemd"
	if _, err := subidIdentity(); err != nil {
		return machine.Finding{Name: name, Detail: err.Error() + "; " + single, Remedy: "apt-get install uidmap; " + giveIDs()}
	}
	return machine.Finding{
		Name:   name,
		Detail: fmt.Sprintf("%s, although this user has more: the images in %s were made with one", single, d.options.Dir),
		Remedy: "delete them with bake cloud reset, or use another directory", StateDir: true,
	}
}

// giveIDs returns the command that gives subordinate ids to the user of this process.
func giveIDs() string {
	return "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 " + cmp.Or(userName(), "USER")
}

// checkEmulation checks whether the host can run programs for EC2's other processor architecture.
func (d *Driver) checkEmulation() machine.Finding {
	const name = "other processors"
	var ran []string
	for _, arch := range slices.Sorted(maps.Keys(knownProcessors)) {
		if arch == runtime.GOARCH {
			continue
		}
		if err := d.Runs(arch); err != nil {
			if c, ok := errors.AsType[cannotRun](err); ok {
				return machine.Finding{Name: name, Detail: c.why, Remedy: c.remedy}
			}
			return machine.Finding{Name: name, Detail: err.Error()}
		}
		ran = append(ran, arch)
	}
	return good(name, "qemu-user runs programs for "+strings.Join(ran, ", ")+", many times slower than a processor")
}

// What a base takes while it is made, roughly.
const (
	baseBytes = 1_000_000_000
	baseFiles = 30_000
)

func (d *Driver) checkStateDir() machine.Finding {
	const name = "state directory"
	dir := existing(d.options.Dir)
	if dir == "" {
		return good(name, "not given")
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return badStateDir(name, (&os.PathError{Op: "statfs", Path: dir, Err: err}).Error(), "choose a directory that you can read")
	}
	switch fs.Type {
	case unix.OVERLAYFS_SUPER_MAGIC:
		return badStateDir(name, dir+" is on overlayfs, which cannot hold the writable layer of another overlay", "put the state on a volume or another file system")
	case unix.NFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.CIFS_SUPER_MAGIC, unix.FUSE_SUPER_MAGIC, unix.MSDOS_SUPER_MAGIC:
		return badStateDir(name, fmt.Sprintf("%s is on a file system of type %#x, which cannot hold the disks of machines", dir, fs.Type), "put the state on a local file system such as ext4, xfs or btrfs")
	}
	room, err := durable.RoomFor(dir)
	if err != nil {
		return badStateDir(name, err.Error(), "choose a directory that you can read")
	}
	const more = "free some space there, or choose a directory on another disk"
	switch detail := fmt.Sprintf("%s: %s", dir, room); {
	case room.ReadOnly:
		return badStateDir(name, dir+" is on a disk that is mounted read-only", "make it writable, or choose a directory on another disk")
	case room.Full():
		return badStateDir(name, detail, more)
	case room.Less(baseBytes, baseFiles):
		return machine.Finding{Name: name, StateDir: true, Detail: detail + "; making a base takes about 1 GB", Remedy: more}
	default:
		return good(name, detail)
	}
}

// badStateDir returns a finding that another state directory may be without.
func badStateDir(name, detail, remedy string) machine.Finding {
	return machine.Finding{Name: name, Fatal: true, StateDir: true, Detail: detail, Remedy: remedy}
}

// checkOverlay mounts an overlay in the state directory, in a directory like those of machines. The
// directories above it need not be accessible to the machines' root.
func (d *Driver) checkOverlay(ctx context.Context) machine.Finding {
	const name = "overlay file system"
	dir := existing(d.options.Dir)
	if dir == "" {
		return good(name, "not tried without a state directory")
	}
	probe, err := os.MkdirTemp(dir, ".check-")
	if err != nil {
		return badStateDir(name, err.Error(), "choose a state directory that you can write to")
	}
	defer func() { _ = d.Remove(context.WithoutCancel(ctx), probe) }()
	if err := d.Private(probe); err != nil {
		return badStateDir(name, err.Error(), "choose a state directory that is yours")
	}
	for _, sub := range []string{"lower", upperDir, workDir, rootDir} {
		if err := d.makeLayerDir(filepath.Join(probe, sub)); err != nil {
			return badStateDir(name, err.Error(), "choose a state directory that is yours")
		}
	}
	if err := d.probe(ctx, "overlay", probe); err != nil {
		return badStateDir(name, err.Error(), cmp.Or(limitRemedy(err), "use Linux 5.11 or later (6.6 when the state is on tmpfs) and a state directory on ext4, xfs, btrfs or tmpfs"))
	}
	return good(name, "works on "+dir+" with its metadata in user attributes")
}

func (d *Driver) checkNIC(ctx context.Context) machine.Finding {
	const name = "network card"
	var tap error
	if d.ids.mode == ModeRange { // root opens the device for its machines
		var f *os.File
		if f, tap = openTunOf(os.Getpid()); tap == nil {
			f.Close()
		}
	} else {
		tap = d.probe(ctx, "tap", "")
	}
	if tap == nil {
		return good(name, tunPath+" is usable")
	}
	if packet := d.probe(ctx, "packet", ""); packet != nil {
		return machine.Finding{Name: name, Fatal: true, Detail: fmt.Sprintf("%v; %v", tap, packet), Remedy: cmp.Or(limitRemedy(packet), "chmod 0666 "+tunPath+", or use a kernel with CONFIG_VETH and CONFIG_PACKET")}
	}
	return good(name, fmt.Sprintf("%v; a packet socket works instead", tap))
}

func (d *Driver) checkCgroup() machine.Finding {
	const name = "control groups"
	f := machine.Finding{Name: name}
	switch {
	case d.ids.mode == ModeSingle:
		return good(name, "not needed with one user id")
	case d.groups.parent != "":
		return good(name, "machines get their own in "+d.groups.parent)
	case d.groups.scopes:
		return good(name, "systemd gives a scope to each machine")
	case d.groups.mount == "":
		f.Detail = "no cgroup v2 file system is mounted; machines run without systemd"
		f.Remedy = "mount -t cgroup2 none /sys/fs/cgroup"
	default:
		f.Detail = "none is delegated to this user; machines run without systemd"
		f.Remedy = "apt-get install dbus-user-session and log in again; or run bake as: systemd-run --user --scope -p Delegate=yes bake ..."
	}
	return f
}

// checkLimits reports which limits of instance types are enforced.
func (d *Driver) checkLimits() machine.Finding {
	const name = "size of machines"
	const disk = "; the size of a root volume is not enforced: a machine can fill the disk that the state directory is on"
	missing := d.groups.unlimited()
	if len(missing) == 0 {
		return good(name, "memory, CPU time and processes are those of the instance type"+disk)
	}
	return machine.Finding{
		Name: name, Detail: "not limited to the instance type's: " + strings.Join(missing, ", ") + disk,
		Remedy: "delegate the cgroup v2 controllers memory, pids and cpu to this user: with systemd, set Delegate=yes in a drop-in for user@.service",
	}
}

// checkFuse tries to serve the files that show a machine its own memory and load: see [kernelFile].
func (d *Driver) checkFuse(ctx context.Context) machine.Finding {
	const name = "sizes that machines see"
	err := d.probeFuse(ctx)
	if err == nil {
		return good(name, "/proc/meminfo and /proc/stat are the machine's own, through FUSE")
	}
	f := machine.Finding{Name: name, Detail: fmt.Sprintf("%v; free, top and other programs that read /proc/meminfo or /proc/stat show the host's memory and CPUs, not the machine's", err)}
	systems, _ := os.ReadFile("/proc/filesystems")
	f.Remedy = cmp.Or(limitRemedy(err), fuseRemedy(string(systems)))
	return f
}

// checkDisks tries to show a machine disks with the sizes of its volumes: see [statfsServer].
func (d *Driver) checkDisks(ctx context.Context) machine.Finding {
	const name = "disks that machines see"
	if err := d.probe(ctx, "disks", ""); err != nil {
		f := machine.Finding{
			Name: name, Detail: fmt.Sprintf("%v; df and other programs that call statfs(2) show the host's disk, not the machine's", err),
			Remedy: cmp.Or(limitRemedy(err), "use a kernel with CONFIG_SECCOMP_FILTER; if this is a container, start it with --security-opt seccomp=unconfined"),
		}
		if sysctl("/proc/sys/kernel/yama/ptrace_scope") == "3" {
			f.Remedy = "boot the host with kernel.yama.ptrace_scope below 3"
		}
		return f
	}
	return good(name, "df shows the sizes of volumes, through seccomp")
}

// fuseRemedy returns how to make FUSE usable. systems is the content of /proc/filesystems.
func fuseRemedy(systems string) string {
	if !slices.Contains(strings.Fields(systems), "fuse") {
		return "modprobe fuse, or use a kernel with CONFIG_FUSE_FS; if this is a container, do so on its host"
	}
	return "chmod 0666 " + fusePath + "; if this is a container, start it with --device " + fusePath
}

func (d *Driver) probeFuse(ctx context.Context) error {
	if d.ids.mode != ModeRange {
		return d.probe(ctx, "fuse", "")
	}
	dir, err := os.MkdirTemp(existing(d.options.Dir), ".check-")
	if err != nil {
		return err
	}
	defer func() { _ = d.Remove(context.WithoutCancel(ctx), dir) }()
	if err := d.Private(dir); err != nil {
		return err
	}
	node, err := d.makeFuseNode(dir)
	if err == nil {
		defer os.Remove(node)
	}
	return d.probe(ctx, "fuse", dir) // this may also use the host's own device
}

// checkLowPorts opens the ports that clients expect, on an address that is unlikely to be in use.
func checkLowPorts() machine.Finding {
	const name = "public addresses"
	for _, port := range []string{"22", "80", "443"} {
		l, err := net.Listen("tcp4", net.JoinHostPort("127.255.71.3", port))
		if err == nil {
			l.Close()
			continue
		}
		f := machine.Finding{Name: name, Detail: fmt.Sprintf("%v; the machines' port %s is served %d higher", err, port, network.MovedBy)}
		switch {
		case errors.Is(err, syscall.EACCES):
			f.Remedy = "sysctl net.ipv4.ip_unprivileged_port_start=0, or setcap cap_net_bind_service=+ep on bake"
		case errors.Is(err, syscall.EADDRINUSE):
			f.Remedy = "make the program that listens on port " + port + " of all addresses listen on the host's own address only (sshd: ListenAddress)"
		default:
			f.Remedy = "bring the loopback interface up with 127.0.0.1/8"
		}
		return f
	}
	return good(name, "ports 22, 80 and 443 can be opened in 127.0.0.0/8")
}

// probe tries something in new namespaces. dir is the child's working directory, which the child
// may not be able to reach by its path.
func (d *Driver) probe(ctx context.Context, what, dir string) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	gate, open, err := os.Pipe()
	if err != nil {
		return err
	}
	defer gate.Close()
	defer open.Close()
	var complaint strings.Builder
	program, err := sealedProgram()
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Args = []string{roleProbe, what}
	cmd.Env = []string{}
	cmd.Stderr = &complaint
	cmd.ExtraFiles = []*os.File{gate}
	d.ids.prepare(cmd, unix.CLONE_NEWNET|unix.CLONE_NEWNS|unix.CLONE_NEWPID|unix.CLONE_NEWUTS|unix.CLONE_NEWIPC)
	if dir == "" {
		dir = "/"
	}
	ended, err := startInDir(cmd, dir)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { cmd.Process.Kill() })
	defer stop()
	if err := d.ids.finish(cmd.Process.Pid); err != nil {
		cmd.Process.Kill()
		<-ended //nolint:errcheck // err is the cause
		return err
	}
	_, _ = open.Write([]byte{1})
	if err := <-ended; err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		if text := clean(complaint.String()); text != "" {
			return errors.New(text)
		}
		return err
	}
	return nil
}

// probeMain is the main function of probe's child.
func probeMain(args []string) error {
	what, err := enterNamespace(args)
	if err != nil {
		return err
	}
	switch what[0] {
	case "namespaces":
		return unix.Sethostname([]byte("probe"))
	case "overlay":
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return overlay{lower: []string{"lower"}, upper: upperDir, work: workDir}.mount(rootDir, false)
	case "tap":
		return closing(newTap(nil))
	case "packet":
		return closing(newPacketPair())
	case "fuse":
		connection, err := openFuse(".")
		if err != nil {
			return err
		}
		defer connection.Close()
		return closing(mountFuse(connection))
	case "disks":
		runtime.LockOSThread()
		return tryCalls(func() error {
			cmd := exec.Command("/proc/self/exe")
			cmd.Args, cmd.Env = []string{roleProbe, mappedAgain, "statfs"}, []string{}
			cmd.Stderr = os.Stderr
			return cmd.Run()
		})
	case "statfs":
		return askCalls()
	default:
		return fmt.Errorf("unknown probe %q", what[0])
	}
}

func closing(f *os.File, err error) error {
	if err != nil {
		return err
	}
	return f.Close()
}

// existing returns dir or, if it does not exist, the nearest existing directory above it.
func existing(dir string) string {
	if dir == "" {
		return ""
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for !exists(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func sysctl(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
