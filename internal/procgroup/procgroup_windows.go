package procgroup

import (
	"os/exec"
	"strconv"
	"syscall"
)

// Own makes cmd, which has a context and has not begun, the head of a group of processes, all of
// which are killed when its context ends.
func Own(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
	cmd.Cancel = func() error { return Signal(cmd, syscall.SIGKILL) }
}

// Signal ends a process that [Own] was called for and its children: Windows has no
// gentler signal that reaches them all.
func Signal(cmd *exec.Cmd, _ syscall.Signal) error {
	return exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(cmd.Process.Pid)).Run()
}
