//go:build unix

package procgroup

import (
	"os/exec"
	"syscall"
)

// Own makes cmd, which has a context and has not begun, the head of a group of processes, all of
// which are killed when its context ends.
func Own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return Signal(cmd, syscall.SIGKILL) }
}

// Signal sends a signal to a process that [Own] was called for and to its children.
func Signal(cmd *exec.Cmd, s syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, s) }
