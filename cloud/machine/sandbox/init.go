package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// initMain is the main function of a machine's first process: it builds the machine's file system,
// gives the machine its identity and becomes its init.
func initMain() error {
	runtime.LockOSThread()
	unix.CloseOnExec(fdReport)
	report := os.NewFile(fdReport, "report")
	in := os.NewFile(fdBootSpec, "specification")
	var boot bootSpec
	err := json.NewDecoder(in).Decode(&boot)
	in.Close()
	if err == nil {
		err = boot.run(report)
	}
	if err != nil {
		fmt.Fprint(report, err)
		return err
	}
	return nil
}

// run returns an error only as long as no process of the machine runs.
func (b *bootSpec) run(report *os.File) error {
	if err := b.mountAll(); err != nil {
		return err
	}
	if len(b.Command) == 0 {
		if err := b.identify(); err != nil {
			return err
		}
		for _, v := range b.volumes {
			if err := plug(v); err != nil {
				return err
			}
		}
	}
	// If the machine runs out of memory, its own processes are to be killed before the shim, whose
	// memory counts towards the same limit.
	const score = "/proc/self/oom_score_adj"
	if now, err := strconv.Atoi(sysctl(score)); err == nil {
		if err := os.WriteFile(score, []byte(strconv.Itoa(min(now+100, 1000))), 0); err != nil {
			return err
		}
	}
	os.Clearenv()
	for key, value := range map[string]string{
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME": "/root", "LANG": "C.UTF-8", "TERM": "dumb", // the console is a file
	} {
		_ = os.Setenv(key, value)
	}
	if b.Mode == ModeSingle {
		if err := b.pretendRoot(); err != nil {
			return err
		}
	}
	if len(b.Command) > 0 {
		return runCommand(b.Command, report)
	}
	if b.First && b.Continues && hasCloudInit() {
		done, err := b.continueCloudInit("/")
		if err != nil {
			return err
		}
		b.Metadata = b.Metadata && !done // cloud-init is what the metadata service is for
	}
	init, err := b.chooseInit()
	if err != nil {
		return err
	}
	if init == InitSystemd {
		return b.becomeSystemd(report)
	}
	if err := b.installSystemctl(); err != nil {
		return err
	}
	return b.becomeBuiltin(report)
}

// chooseInit prefers systemd.
func (b *bootSpec) chooseInit() (Init, error) {
	lacks := b.lacksForSystemd()
	switch {
	case b.Init == InitSystemd && lacks != "":
		return "", fmt.Errorf("systemd cannot run here: %s", lacks)
	case b.Init == InitBuiltin || lacks != "":
		return InitBuiltin, nil
	}
	return InitSystemd, nil
}

// lacksForSystemd returns why systemd cannot be the machine's init; it is empty if it can be. qemu-user
// does not emulate all system calls that systemd uses to mount file systems.
func (b *bootSpec) lacksForSystemd() string {
	switch {
	case !exists("/usr/lib/systemd/systemd") && !exists("/lib/systemd/systemd"):
		return "it is not in the image"
	case b.InitCgroup == "":
		return "it needs a control group, and this process may not make one"
	case b.Mode == ModeSingle:
		return "it needs more than one user id"
	case b.emulated():
		return "it needs the host's processor, which is not that of the image"
	}
	return ""
}

// containerName is the name of the container type that a machine reports, see
// systemd-detect-virt(1), because it has no kernel of its own. The first process has it in its
// environment, as $container.
const containerName = "bake"

// becomeSystemd executes the image's systemd.
func (b *bootSpec) becomeSystemd(report *os.File) error {
	if err := b.configureSystemd("/run/systemd"); err != nil {
		return err
	}
	_ = os.Setenv("container", containerName)
	args := []string{"/sbin/init", "--log-target=console", "--show-status=true", b.cloudInitConfig()}
	path := args[0]
	if !exists(path) {
		path = "/lib/systemd/systemd"
	}
	if err := awaitInotify(freeInotify); err != nil {
		return err
	}
	fmt.Fprint(report, reportReady+string(InitSystemd)+"\n"+b.announced)
	return fmt.Errorf("exec %s: %w", path, syscall.Exec(path, args, os.Environ()))
}

// mountAll builds the machine's file system and makes it the root. After that the host's files are
// out of reach.
func (b *bootSpec) mountAll() error {
	if b.InitCgroup != "" {
		// This has to be done here, not when the process was started: only now is the process in
		// its own group, which becomes the root of the new namespace.
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fmt.Errorf("new view of control groups: %w", err)
		}
	}
	if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	// A work directory can serve only one mount. The permissions of the old one may exclude every
	// user but root.
	work := filepath.Join(b.Dir, workDir)
	if err := os.RemoveAll(filepath.Join(work, "work")); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(work, "index")); err != nil {
		return err
	}
	var err error
	if b.volumes, err = openVolumes(b.Dir, b.Volumes); err != nil {
		return err
	}
	root := filepath.Join(b.Dir, rootDir)
	disk := overlay{lower: b.Layers, upper: filepath.Join(b.Dir, upperDir), work: work}
	if err := disk.mount(root, b.OldMount); err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := b.mountKernel(); err != nil {
		return err
	}
	if err := b.emulate(); err != nil {
		return err
	}
	if err := b.mountDevices(); err != nil {
		return err
	}
	if err := (mount{kind: "tmpfs", target: "run", flags: unix.MS_NOSUID | unix.MS_NODEV, options: "mode=755" + b.share(5)}).do(); err != nil {
		return err
	}
	if err := makeDir("run/lock", 0o1777); err != nil {
		return err
	}
	if err := makeDir("run/bake", 0o755); err != nil {
		return err
	}
	if err := b.mountSys(); err != nil {
		return err
	}
	if b.InitCgroup != "" {
		if err := (mount{kind: "cgroup2", target: "sys/fs/cgroup", flags: noSpecial}).do(); err != nil {
			return err
		}
	}
	if err := b.bindProgram("run/bake/program"); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := protectKernel(); err != nil {
		return err
	}
	if err := b.coverKernelFiles(fdFuse); err != nil {
		return err
	}
	return newBootID()
}

// mount is one call of mount(2). The target is relative to the working directory.
type mount struct {
	kind, source, target, options string
	flags                         uintptr
}

func (m mount) do() error {
	if m.source == "" {
		m.source = m.kind
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
	}
	return nil
}

// share returns the option that limits a tmpfs to one nth of the machine's memory. The kernel's
// default depends on the host's memory.
func (b *bootSpec) share(n int64) string {
	if b.Memory == 0 {
		return ""
	}
	return fmt.Sprintf(",size=%d", b.Memory/n)
}

const noSpecial = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

func (b *bootSpec) mountKernel() error {
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "etc", "root", "var"} {
		if err := ensureDir(dir); err != nil {
			return err
		}
	}
	if err := (mount{kind: "proc", target: "proc", flags: noSpecial}).do(); err != nil {
		if errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%w: this process is in a container that hides parts of /proc; start the container with --security-opt systempaths=unconfined", err)
		}
		return err
	}
	return nil
}

func (b *bootSpec) mountDevices() error {
	if err := (mount{kind: "tmpfs", target: "dev", flags: unix.MS_NOSUID | unix.MS_STRICTATIME, options: "mode=755,size=64m"}).do(); err != nil {
		return err
	}
	devices := map[string]string{"console": b.Console}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		devices[name] = "/dev/" + name
	}
	for name, source := range devices {
		if err := bind(source, "dev/"+name); err != nil {
			return err
		}
	}
	for dir, mode := range map[string]uint32{"dev/pts": 0o755, "dev/shm": 0o1777, "dev/mqueue": 0o755} {
		if err := makeDir(dir, mode); err != nil {
			return err
		}
	}
	const pts = "newinstance,ptmxmode=0666,mode=0620"
	terminals := mount{kind: "devpts", target: "dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, options: pts + ",gid=5"}
	err := terminals.do()
	if errors.Is(err, unix.EINVAL) { // group 5 (tty) is not among the mapped ids
		terminals.options = pts
		err = terminals.do()
	}
	if err != nil {
		return err
	}
	if err := (mount{kind: "tmpfs", source: "shm", target: "dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, options: "mode=1777" + b.share(2)}).do(); err != nil {
		return err
	}
	if err := (mount{kind: "mqueue", target: "dev/mqueue", flags: noSpecial}).do(); err != nil {
		return err
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd",
		"stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

// protectKernel makes the kernel settings of the whole host read-only or inaccessible.
func protectKernel() error {
	// The machine's own network settings stay writable.
	if err := unix.Mount("/proc/sys/net", "/proc/sys/net", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /proc/sys/net: %w", err)
	}
	for _, path := range []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"} {
		if !exists(path) {
			continue
		}
		err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, "")
		if err == nil {
			err = unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|noSpecial, "")
		}
		if err != nil {
			return fmt.Errorf("protect %s: %w", path, err)
		}
	}
	for _, path := range []string{"/proc/kcore", "/proc/keys", "/proc/timer_list"} {
		if !exists(path) {
			continue
		}
		if err := unix.Mount("/dev/null", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// bind makes the file source appear at target, which must not exist. On error target does not exist
// afterwards.
func bind(source, target string) error {
	if err := os.WriteFile(target, nil, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("bind %s to %s: %w", source, target, err), os.Remove(target))
	}
	return nil
}

// makeDir makes a directory with exactly that mode, whatever the umask.
func makeDir(path string, mode uint32) error {
	if err := unix.Mkdir(path, mode); err != nil {
		return &os.PathError{Op: "mkdir", Path: path, Err: err}
	}
	return unix.Chmod(path, mode)
}

// ensureDir makes a mount point if the image lacks it.
func ensureDir(path string) error {
	st, err := os.Lstat(path)
	if err == nil && st.IsDir() {
		return nil
	}
	if err == nil {
		return fmt.Errorf("the image's /%s is not a directory", path)
	}
	return os.Mkdir(path, 0o755)
}

func copyFile(source, target string, mode os.FileMode) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = out.ReadFrom(in)
	return errors.Join(err, out.Close())
}
