//go:build unix

package script

import "os/exec"

// run runs a command.
func (l *Local) run(cmd *exec.Cmd, run func(*exec.Cmd) error) error {
	cmd.Stdout, cmd.Stderr = l.Stdout, l.Stderr
	return run(cmd)
}

// encoded returns text unchanged, because all programs use UTF-8.
func (l *Local) encoded(text string) (coded string, whole bool) { return text, true }
