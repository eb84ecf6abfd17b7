package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy starts processes in their own namespaces that constantly start others and write so much in
// one call that they stop late.
func busy(t *testing.T) *shim {
	t.Helper()
	const script = `for i in 1 2; do (while :; do /bin/true; done) & (while :; do dd if=/dev/zero of="$0$i" bs=64M count=1 conv=notrunc 2>/dev/null; done) & done; wait`
	cmd := exec.Command("/bin/sh", "-c", script, filepath.Join(t.TempDir(), "file"))
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
	}
	if err := cmd.Start(); err != nil {
		t.Skip("no namespace of processes: ", err)
	}
	t.Cleanup(func() { // all of them end with the first process
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return &shim{init: cmd}
}

func going(t *testing.T, s *shim) (n int) {
	t.Helper()
	all, err := s.processes()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if !p.still {
			n++
		}
	}
	return n
}

// TestFreezeWithoutGroup checks that nothing happens in a frozen machine until it is thawed.
func TestFreezeWithoutGroup(t *testing.T) {
	s := busy(t)
	for range 10 {
		time.Sleep(50 * time.Millisecond)
		if err := s.freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if n := going(t, s); n != 0 {
				t.Fatalf("%d processes go on", n)
			}
			time.Sleep(time.Millisecond)
		}
		if err := s.thaw(); err != nil {
			t.Fatal(err)
		}
		if err := eventually(t.Context(), 10*time.Second, func() (bool, error) { return going(t, s) > 0, nil }); err != nil {
			t.Fatal("nothing goes on: ", err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.freeze(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}
