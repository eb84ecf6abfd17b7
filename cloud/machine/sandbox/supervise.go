package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	unitState = "/run/bake/units" // a file for each running service, with its supervisor's process id
	unitLogs  = "/run/bake/log"
	fdStarted = 3 // a supervisor reports here that its service has started, or why not

	startLimit = 90 * time.Second // systemd's default
	stopLimit  = 10 * time.Second

	pidFileLimit = 5 * time.Second
)

// sshUnits are the names of the SSH server's unit. The builtin init itself starts the server.
var sshUnits = []string{"ssh.service", "sshd.service"}

// superviseMain is the main function of a service's supervisor, and of the process that starts the
// services enabled in the image. Without control groups only the supervisor knows the service's
// processes, as the process that adopts their orphans.
func superviseMain(args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "boot":
		err := bootServices()
		if len(args) == 2 {
			err = errors.Join(err, cloudInitStages(4, args[1]))
		}
		return err
	case len(args) == 2 && args[0] == "run":
		started := os.NewFile(fdStarted, "started")
		unix.CloseOnExec(fdStarted)
		if err := supervise(args[1], started); err != nil {
			fmt.Fprint(started, err)
			return err
		}
		return nil
	}
	return fmt.Errorf("supervise: %q", args)
}

// supervise runs a service until its last process has ended.
func supervise(name string, started *os.File) error {
	u, err := loadUnit(name)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	var main mainProcess
	log, err := u.prepare()
	if err == nil {
		main, err = u.start(log)
	}
	if err != nil {
		endChildren()
		return errors.Join(err, u.fail(failureOf(err)))
	}
	state := filepath.Join(unitState, u.name)
	if err := os.WriteFile(state, []byte(strconv.Itoa(os.Getpid())), 0o644); err != nil {
		return err
	}
	defer os.Remove(state)
	fmt.Fprint(started, "ok")
	started.Close()

	signal.Ignore(syscall.SIGHUP, syscall.SIGTERM) // it ends after its service, not before
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGUSR1)
	last := main.follow(reap())
	if last != nil {
		if f := u.failureOfEnd(*last, u.kind() != "oneshot"); f != nil {
			return u.fail(*f)
		}
	}
	if u.kind() == "oneshot" && u.get("Service.RemainAfterExit") == "yes" {
		<-stop
	}
	return nil
}

// prepare creates the directories that the service needs and opens its log.
func (u *unit) prepare() (log *os.File, err error) {
	for _, dir := range []string{unitState, unitLogs} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := u.makeDirectories(); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(unitLogs, u.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// mainProcess is the process whose exit status decides about a service.
type mainProcess struct {
	pid   int                     // 0 if there is none or it is unknown
	ended <-chan *unix.WaitStatus // receives the status of a process that another goroutine waits for too, or nil if that one did not get the status
}

// follow receives the ends of all processes of the service and returns the status of the main one,
// if it is known.
func (m mainProcess) follow(all <-chan end) (last *unix.WaitStatus) {
	for e := range all {
		if e.pid == m.pid {
			last = &e.status
		}
	}
	if last == nil && m.ended != nil {
		last = <-m.ended
	}
	return last
}

// start runs the commands of the unit until the service has started.
func (u *unit) start(log *os.File) (main mainProcess, err error) {
	run := func(line string, daemon bool) error {
		cmd, mayFail, err := u.command(line, 0)
		if err != nil {
			return err
		}
		cmd.Stdout, cmd.Stderr = log, log
		err = cmd.Run()
		if status, ended := statusOf(err); ended && u.failureOfEnd(unix.WaitStatus(status), daemon) == nil {
			return nil
		}
		if err != nil && !mayFail {
			return fmt.Errorf("%s: %w; see %s", line, err, log.Name())
		}
		return nil
	}
	for _, line := range u.values["Service.ExecStartPre"] {
		if err := run(line, false); err != nil {
			return main, err
		}
	}
	kind := u.kind()
	for _, line := range u.values["Service.ExecStart"] {
		if kind == "forking" || kind == "oneshot" {
			if err := run(line, kind == "forking"); err != nil {
				return main, err
			}
			continue
		}
		cmd, mayFail, err := u.command(line, 0)
		if err != nil {
			return main, err
		}
		cmd.Stdout, cmd.Stderr = log, log
		var ended <-chan *unix.WaitStatus
		if strings.HasPrefix(kind, "notify") {
			ended, err = startNotifying(cmd, u.name)
		} else {
			err = cmd.Start()
		}
		if err != nil {
			return main, fmt.Errorf("%s: %w; see %s", line, err, log.Name())
		}
		if !mayFail {
			main = mainProcess{cmd.Process.Pid, ended}
		}
	}
	if kind == "forking" {
		main.pid = u.daemon()
	}
	for _, line := range u.values["Service.ExecStartPost"] {
		if err := run(line, false); err != nil {
			return main, err
		}
	}
	return main, nil
}

// daemon returns the main process of a service that forks: the process that its PIDFile names, or
// its only process. It returns 0 if neither can be determined.
func (u *unit) daemon() (pid int) {
	file := u.get("Service.PIDFile")
	if file == "" {
		var left []int
		for _, child := range children(os.Getpid()) {
			if fields := statFields(fmt.Sprintf("/proc/%d/stat", child)); len(fields) > 0 && fields[0] != "Z" {
				left = append(left, child)
			}
		}
		if len(left) == 1 {
			return left[0]
		}
		return 0
	}
	if !filepath.IsAbs(file) {
		file = filepath.Join("/run", file)
	}
	_ = eventually(context.Background(), pidFileLimit, func() (bool, error) { // the file may be written late, or never
		all := descendants(os.Getpid())
		text, _ := os.ReadFile(file)
		named, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err == nil && slices.Contains(all, named) {
			pid = named
		}
		return pid != 0 || len(all) == 0, nil
	})
	return pid
}

var errEndedEarly = errors.New("it ended before it was ready")

var errNotReady = fmt.Errorf("not ready after %v", startLimit)

// startNotifying starts a service that reports when it is ready, see sd_notify(3). The returned
// channel receives the exit status, or nil if another goroutine has waited for the process.
func startNotifying(cmd *exec.Cmd, name string) (<-chan *unix.WaitStatus, error) {
	path := filepath.Join("/run/bake", name+".notify")
	os.Remove(path)
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = l.Close() }()
	defer os.Remove(path)
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended, later := make(chan error, 1), make(chan *unix.WaitStatus, 1)
	go func() {
		ended <- cmd.Wait()
		_ = l.Close()
		var last *unix.WaitStatus
		if cmd.ProcessState != nil {
			if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
				last = new(unix.WaitStatus(status))
			}
		}
		later <- last
	}()
	_ = l.SetReadDeadline(time.Now().Add(startLimit))
	b := make([]byte, 4096)
	for {
		n, err := l.Read(b)
		if err != nil {
			select {
			case err := <-ended:
				if err == nil {
					err = errEndedEarly
				}
				return nil, err
			default:
				return nil, errNotReady
			}
		}
		if slices.Contains(strings.Split(string(b[:n]), "\n"), "READY=1") {
			return later, nil
		}
	}
}

// supervisor returns the process id of a service's supervisor, 0 if it is not running.
func (u *unit) supervisor() int {
	b, err := os.ReadFile(filepath.Join(unitState, u.name))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil || !alive(pid) {
		return 0
	}
	return pid
}

// alive reports whether a process exists, even if it is another user's.
func alive(pid int) bool {
	err := syscall.Kill(pid, 0)
	return err == nil || errors.Is(err, syscall.EPERM)
}

// sshServer returns the process id of the SSH server if this unit is the server's and it runs,
// otherwise 0. own reports whether it is the image's own server, which reloads its configuration on
// a signal.
func (u *unit) sshServer() (pid int, own bool) {
	if !slices.Contains(sshUnits, u.name) {
		return 0, false
	}
	text, err := os.ReadFile(sshServerFile)
	if err != nil {
		return 0, false
	}
	if _, err := fmt.Sscan(string(text), &pid, &own); err != nil || !alive(pid) {
		return 0, false
	}
	return pid, own
}

// running reports whether the service runs.
func (u *unit) running() bool {
	server, _ := u.sshServer()
	return server != 0 || u.supervisor() != 0
}

// processes returns the service's processes.
func (u *unit) processes() []int {
	if server, _ := u.sshServer(); server != 0 { // without its sessions
		return []int{server}
	}
	return descendants(u.supervisor())
}

// mainPID returns the service's oldest process.
func (u *unit) mainPID() int {
	pids := u.processes()
	if len(pids) == 0 {
		return 0
	}
	return slices.Min(pids)
}

// begin starts the service and returns once it has started.
func (u *unit) begin() error {
	if u.running() {
		return nil
	}
	if slices.Contains(sshUnits, u.name) {
		if err := os.Remove(sshServerStopped); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return eventually(context.Background(), stopLimit, func() (bool, error) { return u.running(), nil })
	}
	if err := u.forget(); err != nil {
		return err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd := self(roleSupervise, "run", u.name)
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if string(answer) != "ok" {
		_ = cmd.Wait()
		return errors.New(strings.TrimSpace(string(answer)))
	}
	return nil
}

// end stops the service and returns once it has stopped.
func (u *unit) end() error {
	if server, _ := u.sshServer(); server != 0 { // its sessions continue
		if err := os.WriteFile(sshServerStopped, nil, 0o644); err != nil {
			return err
		}
		return errors.Join(syscall.Kill(server, syscall.SIGTERM),
			eventually(context.Background(), stopLimit, func() (bool, error) { return !u.running(), nil }))
	}
	supervisor := u.supervisor()
	if supervisor == 0 {
		return nil
	}
	for _, line := range u.values["Service.ExecStop"] {
		cmd, _, err := u.command(line, u.mainPID())
		if err != nil {
			return err
		}
		_ = cmd.Run() // the result is checked below
	}
	_ = syscall.Kill(supervisor, syscall.SIGUSR1)
	signalEach(descendants(supervisor), syscall.SIGTERM)
	gone := func() (bool, error) { return u.supervisor() == 0, nil }
	if eventually(context.Background(), stopLimit, gone) == nil {
		return nil
	}
	signalEach(descendants(supervisor), syscall.SIGKILL)
	if err := eventually(context.Background(), stopLimit, gone); err != nil {
		return fmt.Errorf("unit %s does not stop: %w", u.name, err)
	}
	return nil
}

// restart stops and starts the service. The image's SSH server executes itself again, if its
// configuration is valid.
func (u *unit) restart() error {
	server, own := u.sshServer()
	if server == 0 {
		if err := u.end(); err != nil {
			return err
		}
		return begin(u)
	}
	if !own {
		return nil // the builtin server has no configuration in the image
	}
	for _, line := range u.values["Service.ExecStartPre"] {
		cmd, mayFail, err := u.command(line, server)
		if err != nil {
			return err
		}
		if out, err := cmd.CombinedOutput(); err != nil && !mayFail {
			return fmt.Errorf("%s: %w: %s", line, err, bytes.TrimSpace(out))
		}
	}
	return syscall.Kill(server, syscall.SIGHUP)
}

func endChildren() { signalEach(descendants(os.Getpid()), syscall.SIGKILL) }

func signalEach(pids []int, s syscall.Signal) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, s)
	}
}

// descendants returns the children of a process, their children and so on.
func descendants(pid int) []int {
	all := children(pid)
	for _, child := range all {
		all = append(all, descendants(child)...)
	}
	return all
}

func children(pid int) []int {
	var all []int
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for field := range strings.FieldsSeq(string(b)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// bootServices starts the services enabled in the image, except those that only systemd needs and
// those that the builtin init handles itself.
func bootServices() error {
	var errs []error
	skipped := append(slices.Clone(sshUnits), "networking.service", "dbus.service", "cron.service")
	for _, dir := range []string{"/usr/lib/systemd/system", "/etc/systemd/system"} {
		wanted, _ := filepath.Glob(filepath.Join(dir, "multi-user.target.wants", "*.service"))
		for _, path := range wanted {
			name := filepath.Base(path)
			if slices.Contains(skipped, name) || strings.HasPrefix(name, "systemd-") || strings.HasPrefix(name, "getty") || strings.HasPrefix(name, "cloud-") {
				continue
			}
			u, err := loadUnit(name)
			if err == nil {
				err = u.begin()
			}
			if err != nil && !errors.Is(err, errMaskedUnit) {
				fmt.Println("bake:", name+":", err)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}
