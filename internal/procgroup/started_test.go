//go:build linux || darwin || windows

package procgroup_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

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
	if got := procgroup.Started(pid); got == "" || got == own && runtime.GOOS != "linux" { // whose unit is a hundredth of a second
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

// TestKill: the children of a process are killed with it, given only its number.
func TestKill(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), "PROCGROUP_TEST=starts")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := procgroup.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("started"))); err != nil {
		t.Fatal(err)
	}
	if err := procgroup.Kill(cmd.Process.Pid); err != nil {
		t.Error(err)
	}
	began := time.Now()
	if _, err := io.Copy(io.Discard, out); err != nil || time.Since(began) > sleeps/2 {
		t.Errorf("what it has started lived on for %v, %v", time.Since(began), err)
	}
	var ended *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &ended) {
		t.Errorf("it was killed: %v", err)
	}
}

const sleeps = 20 * time.Second

// TestChild is the program that the other tests start: it ends with its input, or sleeps, or
// starts a child that sleeps, which writes to the same output.
func TestChild(*testing.T) {
	switch os.Getenv("PROCGROUP_TEST") {
	case "waits":
		_, _ = os.Stdin.Read(make([]byte, 1))
	case "starts":
		cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
		cmd.Env, cmd.Stdout = append(os.Environ(), "PROCGROUP_TEST=sleeps"), os.Stdout
		_ = cmd.Run()
	case "sleeps":
		os.Stdout.WriteString("started")
		time.Sleep(sleeps)
	}
}
