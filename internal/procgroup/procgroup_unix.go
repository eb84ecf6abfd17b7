//go:build unix

package procgroup

import (
	"os/exec"
	"syscall"
)

// Start starts cmd, which has a context, as the leader of a process group, which is killed
// when the context ends. Signals from a terminal do not reach the group.
func Start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return Signal(cmd, syscall.SIGKILL) }
	return cmd.Start()
}

// Signal sends a signal to a process that [Start] has started and to its children.
func Signal(cmd *exec.Cmd, s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }

// Kill kills the process group whose leader is a process.
func Kill(pid int) error { return syscall.Kill(-pid, syscall.SIGKILL) }
