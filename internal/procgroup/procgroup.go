// Package procgroup runs a command so that processes that it starts end with it.
package procgroup

import "os/exec"

// Run is [Start], and waits for the command to end.
func Run(cmd *exec.Cmd) error {
	if err := Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}
