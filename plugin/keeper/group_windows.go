package keeper

import (
	"os"
	"os/exec"

	"bake/internal/procgroup"
)

// group is the job with the plugin and all processes that it starts.
type group struct{}

// start starts the plugin in a job, which belongs to the keeper's own, if there is one.
func (group) start(cmd *exec.Cmd) error { return procgroup.Start(cmd) }

// end kills all processes of the job.
func (group) end(cmd *exec.Cmd) { _ = cmd.Cancel() }

// clear kills the processes that the plugin has left in the job.
func (g group) clear(cmd *exec.Cmd) { g.end(cmd) }

// exitCode returns the exit code for the keeper, that of the plugin.
func exitCode(s *os.ProcessState) int { return s.ExitCode() }
