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

// A background process that holds the output of an ended command open does not block
// the build, and is not a failure.
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
