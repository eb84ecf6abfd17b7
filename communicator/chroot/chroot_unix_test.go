//go:build unix

package chroot_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"bake/communicator"
	"bake/communicator/chroot"
)

// A process in the background that holds the output of a command that has ended
// does not hold the build, and is no failure.
func TestBackgroundProcess(t *testing.T) {
	var out strings.Builder
	status, err := chroot.Local(t.Context(), "sleep 60 & echo $!", os.Environ(), communicator.Command{Stdout: &out})
	if err != nil || status.Code != 0 {
		t.Errorf("got %+v, %v", status, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(out.String()))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("the process in the background has ended: %v", err)
	}
}
