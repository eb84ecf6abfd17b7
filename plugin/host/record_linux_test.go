package host

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/internal/procgroup"
	"bake/step"
)

// TestDestroyProcess: a plugin that a killed run has left is ended, but not while its keeper lets
// it tear down.
func TestDestroyProcess(t *testing.T) {
	for name, tc := range map[string]struct {
		with     map[string]string
		script   string
		finishes bool
	}{
		"on its own":  {nil, "touch begun; sleep 100; touch finished", false},
		"with keeper": {map[string]string{withKeeper: "true"}, "touch begun; until [ -e go-on ]; do sleep 0.05; done; touch finished", true},
	} {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(context.Background(), "sh", "-c", tc.script)
			cmd.Dir = t.TempDir()
			if err := procgroup.Start(cmd); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			r := step.Resource{Kind: ProcessKind, ID: processID(cmd.Process.Pid, procgroup.Started(cmd.Process.Pid)), With: tc.with}
			go func() { ended <- cmd.Wait() }()
			for _, err := os.Stat(filepath.Join(cmd.Dir, "begun")); err != nil; _, err = os.Stat(filepath.Join(cmd.Dir, "begun")) {
				time.Sleep(time.Millisecond)
			}
			if tc.finishes {
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(errors.New("no time"))
				if err := DestroyProcess(ctx, r); err == nil || !strings.HasSuffix(err.Error(), "is still tearing down: no time") {
					t.Errorf("with no time: %v", err)
				}
				time.AfterFunc(300*time.Millisecond, func() {
					if err := os.WriteFile(filepath.Join(cmd.Dir, "go-on"), nil, 0o600); err != nil {
						t.Error(err)
					}
				})
			}
			if err := DestroyProcess(t.Context(), r); err != nil {
				t.Error(err)
			}
			if err := <-ended; (err == nil) != tc.finishes {
				t.Errorf("it ended with %v", err)
			}
			if err := DestroyProcess(t.Context(), r); err != nil {
				t.Errorf("once more: %v", err)
			}
		})
	}
}

// TestDestroyChildren: the remaining processes of a killed plugin's or keeper's group are ended,
// and unrelated ones are not.
func TestDestroyChildren(t *testing.T) {
	cmd := exec.CommandContext(context.Background(), "sh", "-c", "sleep 100 & echo $! > pid; mv pid child; wait")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PACKER_RUN_UUID=it")
	if err := procgroup.Start(cmd); err != nil {
		t.Fatal(err)
	}
	r := step.Resource{Kind: ProcessKind, ID: processID(cmd.Process.Pid, procgroup.Started(cmd.Process.Pid)), With: map[string]string{withKeeper: "true"}}
	text, err := os.ReadFile(filepath.Join(cmd.Dir, "child"))
	for ; err != nil; text, err = os.ReadFile(filepath.Join(cmd.Dir, "child")) {
		time.Sleep(time.Millisecond)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(child, syscall.SIGKILL) })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for _, run := range []string{"", "another", "it"} {
		if procgroup.Started(child) == "" {
			t.Fatal("the child is gone")
		}
		r.With["run"] = run
		if err := DestroyProcess(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	waitGone(t, child)
}
