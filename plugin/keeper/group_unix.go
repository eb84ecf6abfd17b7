//go:build unix

package keeper

import (
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// group is the process group that the keeper leads.
type group struct {
	heads  bool
	parent int // which waits for this process
}

// start starts the plugin in the group.
func (g *group) start(cmd *exec.Cmd) error {
	// The parent makes the keeper the leader of a group. If it has not, the keeper does so itself.
	_ = syscall.Setpgid(0, 0)
	g.heads, g.parent = syscall.Getpgrp() == os.Getpid(), os.Getppid()
	return cmd.Start()
}

// end kills all processes of the group, including this one.
func (g *group) end(cmd *exec.Cmd) {
	if g.heads {
		_ = syscall.Kill(0, syscall.SIGKILL)
	}
	_ = cmd.Process.Kill()
}

// clear kills the processes that the plugin has left in the group, after this process has moved to
// its parent's group. If it cannot move, the parent has to end the group. If the parent has ended,
// the plugin's exit status is not needed, and this process is killed too.
func (g *group) clear(cmd *exec.Cmd) {
	if os.Getppid() != g.parent {
		g.end(cmd)
	}
	if !g.heads {
		return
	}
	other, err := syscall.Getpgid(g.parent)
	if err == nil && other > 0 && syscall.Setpgid(0, other) == nil { // 0: it is in another namespace and invisible
		_ = syscall.Kill(-os.Getpid(), syscall.SIGKILL)
	}
}

// exitCode returns the keeper's exit code for the plugin's state s. It does not return if the
// plugin was killed by SIGKILL, SIGTERM or SIGINT: then the keeper dies of the same signal.
func exitCode(s *os.ProcessState) int {
	status, ok := s.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return s.ExitCode()
	}
	switch n := status.Signal(); n {
	case syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT:
		signal.Reset(n)
		_ = syscall.Kill(os.Getpid(), n)
		select {} // until the signal comes
	default:
		return 128 + int(n)
	}
}
