package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shutdownGrace = 5 * time.Second // between SIGTERM and SIGKILL
	respawnDelay  = time.Second     // before a server that ended is restarted
)

// Signals to the builtin init, as systemctl sends them.
const (
	powerOffSignal = unix.SIGTERM
	rebootSignal   = unix.SIGINT
)

// runCommand runs a command as the machine's only task and exits with its status. It returns an
// error only if the command does not start.
func runCommand(command []string, report *os.File) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, powerOffSignal, rebootSignal)
	main, err := start(exec.Command(command[0], command[1:]...))
	if err != nil {
		return err
	}
	fmt.Fprint(report, reportReady+string(InitBuiltin))
	report.Close()
	ends := reap()
	for {
		select {
		case <-stop:
			endAll(ends)
			os.Exit(128 + int(powerOffSignal))
		case end := <-ends:
			if end.pid != main {
				continue
			}
			endAll(ends)
			if end.status.Signaled() {
				os.Exit(128 + int(end.status.Signal()))
			}
			os.Exit(end.status.ExitStatus())
		}
	}
}

// becomeBuiltin runs the machine without systemd: it runs the SSH server, cloud-init and the
// enabled services until a signal tells it how to end.
func (b *bootSpec) becomeBuiltin(report *os.File) error {
	if err := makeDir("/run/sshd", 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := markContainer(); err != nil {
		return err
	}
	setUp()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, powerOffSignal, rebootSignal)
	server := sshServer(b.Mode)
	setsUp := b.Metadata && hasCloudInit()
	if setsUp {
		if err := markCloudInit(runCloudInit); err != nil {
			return err
		}
	}
	if setsUp && b.HasUserData {
		// The SSH server has to wait, because user data may create the login user.
		if err := cloudInitStages(2, b.cloudInitConfig()); err != nil {
			fmt.Println("bake: cloud-init:", err)
		}
	}
	serverPID, err := startSSHServer(server)
	if err != nil {
		return fmt.Errorf("start the SSH server: %w", err)
	}
	boot := self(roleSupervise, "boot")
	if setsUp {
		boot.Args = append(boot.Args, b.cloudInitConfig())
	}
	services, err := start(boot)
	if err != nil {
		return err
	}
	fmt.Fprint(report, reportReady+string(InitBuiltin)+"\n"+b.announced)
	report.Close()
	return superviseBuiltin(stop, server, serverPID, services)
}

// superviseBuiltin restarts the SSH server whenever it ends, until a signal requests the end of the
// machine. services is the process that starts the services.
func superviseBuiltin(stop <-chan os.Signal, server func() *exec.Cmd, serverPID, services int) error {
	ends := reap()
	respawn := make(<-chan time.Time)
	for {
		select {
		case s := <-stop:
			endAll(ends)
			unix.Sync()
			how := unix.LINUX_REBOOT_CMD_POWER_OFF
			if s == rebootSignal {
				how = unix.LINUX_REBOOT_CMD_RESTART
			}
			return fmt.Errorf("reboot(2): %w", unix.Reboot(how)) // in a pid namespace it ends the caller
		case end, more := <-ends:
			if !more { // no process is left
				ends, respawn = nil, time.After(respawnDelay)
				continue
			}
			switch end.pid {
			case serverPID:
				if !exists(sshServerStopped) {
					fmt.Println("bake: the SSH server ended, starting it again")
				}
				respawn = time.After(respawnDelay)
			case services:
				if end.status != 0 {
					fmt.Println("bake: not all services started")
				}
			}
		case <-respawn:
			var err error
			if exists(sshServerStopped) {
				respawn = time.After(respawnDelay)
			} else if serverPID, err = startSSHServer(server); err != nil {
				fmt.Println("bake: the SSH server:", err)
				respawn = time.After(respawnDelay)
			} else if ends == nil {
				ends = reap()
			}
		}
	}
}

// markContainer records, as systemd does, that this is a container, for programs that may not read
// the first process's environment.
func markContainer() error {
	return errors.Join(os.MkdirAll("/run/systemd", 0o755), os.WriteFile("/run/systemd/container", []byte(containerName+"\n"), 0o644))
}

// setUp runs those programs of an image that systemd runs at each start. They set kernel
// parameters, see sysctl.d(5), of which the machine has only the network's of its own, and create
// files, see tmpfiles.d(5). They print errors for what is not possible here and continue.
func setUp() {
	for _, command := range [][]string{
		{"/usr/lib/systemd/systemd-sysctl"},
		{"/usr/bin/systemd-tmpfiles", "--create", "--remove", "--boot", "--exclude-prefix=/dev"},
	} {
		for _, path := range []string{command[0], strings.TrimPrefix(command[0], "/usr")} {
			if exists(path) {
				_ = exec.Command(path, command[1:]...).Run()
				break
			}
		}
	}
	_ = os.Remove("/run/nologin") // one of those files creates it to keep users from logging in
}

const sshdPath = "/usr/sbin/sshd"

// sshServer returns the command of the image's SSH server, or else of the builtin one. The image's
// server changes its user id and verifies the change, which fails with only one id.
func sshServer(mode Mode) func() *exec.Cmd {
	if mode != ModeSingle && exists(sshdPath) {
		return func() *exec.Cmd { return exec.Command(sshdPath, "-D", "-e") }
	}
	return func() *exec.Cmd { return self(roleAgent) }
}

// Files that tell systemctl about the SSH server, which the builtin init starts without a
// supervisor.
const (
	sshServerFile    = "/run/bake/ssh-server"         // its process id, and whether it is the image's
	sshServerStopped = "/run/bake/ssh-server.stopped" // exists as long as the server is not to run
)

// startSSHServer starts the SSH server and records it in its file.
func startSSHServer(server func() *exec.Cmd) (pid int, err error) {
	cmd := server()
	if pid, err = start(cmd); err != nil {
		return 0, err
	}
	return pid, os.WriteFile(sshServerFile, fmt.Appendf(nil, "%d %t", pid, cmd.Path == sshdPath), 0o644)
}

// self returns a command that runs this program in another role. Its file may be out of reach by
// its path, but not by this one.
func self(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = append([]string{role}, args...)
	return cmd
}

// start starts a process that reap will report.
func start(cmd *exec.Cmd) (pid int, err error) {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	return cmd.Process.Pid, nil
}

// end is the exit of a process.
type end struct {
	pid    int
	status unix.WaitStatus
}

// reap waits for every child that ends, including orphans that this process has adopted, and
// reports them. The channel is closed when no child is left.
func reap() <-chan end {
	ends := make(chan end)
	go func() {
		defer close(ends)
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, 0, nil)
			switch {
			case err == unix.EINTR:
			case err != nil:
				return
			default:
				ends <- end{pid, status}
			}
		}
	}()
	return ends
}

// endAll ends every other process, first with SIGTERM and then with SIGKILL.
func endAll(ends <-chan end) {
	if ends == nil {
		return
	}
	_ = unix.Kill(-1, unix.SIGTERM)
	_ = unix.Kill(-1, unix.SIGCONT)
	grace := time.After(shutdownGrace)
	for {
		select {
		case _, more := <-ends:
			if !more {
				return
			}
		case <-grace:
			_ = unix.Kill(-1, unix.SIGKILL)
			grace = nil
		}
	}
}

const (
	cloudInitProgram = "/usr/bin/cloud-init"
	runCloudInit     = "/run/cloud-init" // cloud-init's state of this boot
)

// hasCloudInit reports whether the image has cloud-init and has not disabled it.
func hasCloudInit() bool {
	return exists(cloudInitProgram) && !exists("/etc/cloud/cloud-init.disabled")
}

// cloudInitStages runs the first n stages of the image's cloud-init with a configuration. A failed
// stage does not prevent the next ones, as with systemd: the last stage reports that cloud-init has
// finished.
func cloudInitStages(n int, config string) (err error) {
	stages := [][]string{{"init", "--local"}, {"init"}, {"modules", "--mode=config"}, {"modules", "--mode=final"}}
	for _, args := range stages[:n] {
		cmd := exec.Command(cloudInitProgram, args...)
		given := config
		if slices.Contains(args, "--local") {
			given = cloudInitLocal(config)
		}
		cmd.Env = append(os.Environ(), "DEBUG_PROC_CMDLINE="+given)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if rerr := cmd.Run(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("%s %v: %w", cloudInitProgram, args, rerr))
		}
	}
	return err
}
