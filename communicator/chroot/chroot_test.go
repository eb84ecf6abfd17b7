package chroot_test

import (
	"os"
	"strings"
	"testing"

	"bake/communicator"
	"bake/communicator/chroot"
	"bake/communicator/commtest"
)

// TestConformance runs the suite in the root of this computer, which is a valid chroot.
func TestConformance(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("chroot needs root")
	}
	commtest.Run(t, func(t *testing.T) commtest.Subject {
		c := chroot.New("/", func(command string) (string, error) { return "nice -n 0 " + command, nil }, os.Environ())
		return commtest.Subject{Communicator: c}
	})
}

func TestWrapper(t *testing.T) {
	c := chroot.New("/a b", func(command string) (string, error) { return "printf '%s|' " + command, nil }, nil)
	var out strings.Builder
	if _, err := c.Run(t.Context(), communicator.Command{Line: "echo 'x'", Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	if want := `chroot|/a b|/bin/sh|-c|echo 'x'|`; out.String() != want {
		t.Errorf("ran %s, want %s", out.String(), want)
	}
}
