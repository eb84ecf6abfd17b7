package onhost_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"bake/internal/procgroup"
	"bake/step"
	"bake/step/onhost"
)

func scope(t *testing.T) (*step.Scope, func() []step.Resource) {
	t.Helper()
	l, err := step.CreateLedger(t.TempDir(), step.Header{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	s := &step.Scope{Ledger: l}
	s.Run.ID = "the-run"
	return s, func() []step.Resource {
		t.Helper()
		owned, err := l.Owned()
		if err != nil {
			t.Fatal(err)
		}
		return owned
	}
}

// shell returns a command, and a function that returns the ids of its processes once they run.
func shell(t *testing.T, script string) (cmd *exec.Cmd, pids func() []int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pids")
	cmd = exec.CommandContext(t.Context(), "sh", "-c", script, "sh", file)
	cmd.Env = append(os.Environ(), "PACKER_RUN_UUID=the-run")
	return cmd, func() (all []int) {
		t.Helper()
		for range 6000 {
			text, _ := os.ReadFile(file)
			if strings.HasSuffix(string(text), "\n") {
				for _, f := range strings.Fields(string(text)) {
					n, err := strconv.Atoi(f)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, n)
				}
				return all
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Fatal("the command does not run")
		return nil
	}
}

func gone(t *testing.T, pid int) {
	t.Helper()
	for range 6000 {
		if procgroup.Started(pid) == "" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d goes on", pid)
}

// The processes of a killed run are ended: the process and its children, or the remaining children.
func TestSweep(t *testing.T) {
	for name, killed := range map[string]bool{"running": false, "its children": true} {
		t.Run(name, func(t *testing.T) {
			s, owned := scope(t)
			cmd, pids := shell(t, "sleep 1000 & echo $$ $! >$1.new && mv $1.new $1; wait")
			ended := make(chan error, 1)
			go func() { ended <- onhost.Run(s, cmd) }()
			all := pids()
			var left []step.Resource
			for len(left) == 0 || left[0].ID == "" {
				left = owned()
			}
			if len(left) != 1 || !strings.HasPrefix(left[0].ID, strconv.Itoa(all[0])+"@") || left[0].String() != "process "+strconv.Itoa(all[0])+" (sh)" {
				t.Fatalf("owned: %+v", left)
			}
			if killed {
				p, err := os.FindProcess(all[0])
				if err != nil || p.Kill() != nil {
					t.Fatal(err)
				}
				<-ended
			}
			for range 2 {
				if err := onhost.Destroy(t.Context(), left[0]); err != nil {
					t.Error(err)
				}
			}
			for _, pid := range all {
				gone(t, pid)
			}
			if !killed {
				<-ended
			}
			if left := owned(); len(left) != 0 {
				t.Errorf("owned: %+v", left)
			}
		})
	}
}

// Another process that has got the same id is left alone.
func TestAnother(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "sleep", "1000")
	if err := procgroup.Start(cmd); err != nil {
		t.Fatal(err)
	}
	r := step.Resource{Kind: "host:process", ID: strconv.Itoa(cmd.Process.Pid) + "@1", With: map[string]string{"run": "the-run"}}
	if err := onhost.Destroy(t.Context(), r); err != nil || procgroup.Started(cmd.Process.Pid) == "" {
		t.Errorf("it has ended: %v", err)
	}
	_ = procgroup.Kill(cmd.Process.Pid)
	_ = cmd.Wait()
}

func TestRun(t *testing.T) {
	s, owned := scope(t)
	cmd := exec.CommandContext(t.Context(), "sh", "-c", "exit 3")
	exit, ok := errors.AsType[*exec.ExitError](onhost.Run(s, cmd))
	if !ok || exit.ExitCode() != 3 || onhost.Run(s, exec.CommandContext(t.Context(), "/nowhere")) == nil || len(owned()) != 0 {
		t.Errorf("%v, owned: %v", exit, owned())
	}
	if err := onhost.Run(&step.Scope{}, exec.CommandContext(t.Context(), "true")); err != nil {
		t.Error(err)
	}
}

func TestTempDir(t *testing.T) {
	s, owned := scope(t)
	dir, remove, err := onhost.TempDir(s, t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 || len(owned()) != 1 || owned()[0].String() != "directory "+dir {
		t.Errorf("%v, owned: %v", err, owned())
	}
	other, removeOther, err := onhost.TempDir(s, filepath.Dir(dir), "x")
	if err != nil || other == dir || removeOther() != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range owned() {
		if err := onhost.Destroy(t.Context(), r); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it is still there")
	}
	if err := remove(); err != nil || len(owned()) != 0 {
		t.Errorf("%v, owned: %v", err, owned())
	}
	for _, path := range []string{"/", "/home", "bake-x", t.TempDir()} {
		if err := onhost.Destroy(t.Context(), step.Resource{Kind: "host:directory", Key: path, ID: path}); err == nil {
			t.Errorf("%s is deleted", path)
		}
	}
}
