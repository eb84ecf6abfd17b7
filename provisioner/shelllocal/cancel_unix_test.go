//go:build unix

package shelllocal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A cancelled script ends with all its child processes.
func TestCancel(t *testing.T) {
	pidFile := t.TempDir() + "/pid"
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	var pid int
	go func() {
		for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if b, _ := os.ReadFile(pidFile); len(b) > 0 && b[len(b)-1] == '\n' {
				fmt.Sscan(string(b), &pid)
				break
			}
		}
		cancel(why)
	}()
	_, err := provision(t, ctx, fmt.Sprintf(`inline = ["sleep 300 &", "echo $! > %s", "wait"]`, pidFile))
	if !errors.Is(err, why) || pid == 0 {
		t.Fatalf("got %v, child %d", err, pid)
	}
	for deadline := time.Now().Add(time.Minute); !gone(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still there", pid)
		}
	}
}

// gone reports whether a process has ended; a zombie has.
func gone(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return true
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || slices.Contains(strings.Fields(string(stat)), "Z")
}
