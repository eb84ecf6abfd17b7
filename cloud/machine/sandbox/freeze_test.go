package sandbox

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"bake/cloud/machine"

	"golang.org/x/sys/unix"
)

// TestReleased checks that a caller that suspended a machine learns that the machine was resumed
// for a stop, and that the machine cannot be suspended again.
func TestReleased(t *testing.T) {
	m := &running{freezing: make(chan struct{}, 1), done: make(chan struct{}), holds: 2}
	close(m.done)
	_ = m.release() // fails, since there is no shim
	for range 2 {
		if err := m.Thaw(); !errors.Is(err, machine.ErrReleased) {
			t.Errorf("thaw: %v", err)
		}
	}
	if err := m.Freeze(t.Context()); !errors.Is(err, machine.ErrReleased) {
		t.Errorf("freeze: %v", err)
	}
}

// TestCommandThatDoesNotBegin checks that a machine in which commands do not start delays
// suspensions and other commands only as long as their callers wait, and at most by the limit for
// starting a command.
func TestCommandThatDoesNotBegin(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	shim := os.NewFile(uintptr(pair[1]), "shim")
	defer shim.Close() // receives the message with the socket, and does nothing
	m := &running{freezing: make(chan struct{}, 1), done: make(chan struct{}), commands: t.Context()}
	if m.control, err = newControl(os.NewFile(uintptr(pair[0]), "driver")); err != nil {
		t.Fatal(err)
	}
	defer m.control.close()
	run := func(ctx context.Context) error {
		_, err := m.Exec(ctx, machine.Command{Script: []byte("true"), Stdout: io.Discard, Stderr: io.Discard})
		return err
	}
	began, ended := time.Now(), make(chan error, 1)
	go func() { ended <- run(t.Context()) }()
	if err := eventually(t.Context(), execBegin/2, func() (bool, error) { return len(m.freezing) > 0, nil }); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if err := m.Freeze(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("freeze: %v", err)
	}
	if err := run(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("another command: %v", err)
	}
	if took := time.Since(began); took >= execBegin {
		t.Errorf("they waited for %v", took)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "did not start within") {
		t.Errorf("the command: %v", err)
	}
	if len(m.freezing) > 0 {
		t.Error("it still holds the machine up")
	}
}
