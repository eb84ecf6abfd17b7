//go:build unix

package script

import "os/exec"

// run runs a command.
func (l *Local) run(cmd *exec.Cmd, run func(*exec.Cmd) error) error {
	cmd.Stdout, cmd.Stderr = l.Stdout, l.Stderr
	return run(cmd)
}

// encoded returns the text itself: it is UTF-8 for all.
func (l *Local) encoded(text string) (coded string, whole bool) { return text, true }
