//go:build linux || darwin || windows

package procgroup_test

import (
	"os"
	"os/exec"
	"runtime"
	"testing"

	"bake/internal/procgroup"
)

func TestStarted(t *testing.T) {
	own := procgroup.Started(os.Getpid())
	if own == "" || procgroup.Started(os.Getpid()) != own {
		t.Errorf("this process was started at %q", own)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "PROCGROUP_TEST=waits")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := procgroup.Start(cmd); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if got := procgroup.Started(pid); got == "" || got == own && runtime.GOOS != "linux" { // which counts in hundredths
		t.Errorf("the child was started at %q, this process at %q", got, own)
	}
	if runtime.GOOS != "windows" && (!procgroup.Holds(pid, "PROCGROUP_TEST=waits") || procgroup.Holds(pid, "PROCGROUP_TEST=wait")) {
		t.Error("not by its environment")
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if got := procgroup.Started(pid); got != "" {
		t.Errorf("what has ended was started at %q", got)
	}
}

// TestChild is what TestStarted starts: it ends with its input.
func TestChild(*testing.T) {
	if os.Getenv("PROCGROUP_TEST") == "waits" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}
