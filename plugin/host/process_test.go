package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/internal/procgroup"
	"bake/plugin/keeper"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// A plugin that ignores a cancellation is killed, after a time limit or when the user stops
// waiting.
func TestStubbornPlugin(t *testing.T) {
	for name, stops := range map[string]bool{"grace": false, "stop": true, "stop with keeper": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t)
			kept := strings.Contains(name, "keeper")
			if !kept {
				p.options.Keeper = nil
			}
			s, _ := scope(t)
			why := errors.New("enough")
			ctx, cancel := context.WithCancelCause(t.Context())
			stop, stopNow := context.WithCancel(context.Background())
			defer stopNow()
			l := &ledger{owned: map[string]step.Resource{}}
			s.Grace, s.Stop, s.Ledger = time.Second, stop, l
			if stops {
				s.Grace = time.Hour
			}
			emit := s.Emit
			s.Emit = func(e step.Event) {
				emit(e)
				if e.Text == "working" {
					cancel(why)
					if stops {
						stopNow()
					}
				}
			}
			_, err := build(t, p, ctx, s, "misbehave = \"stubborn\"\nat = \"Build\"\nsay = \"working\"", nil)
			want := "was killed: its resources may still exist"
			owned, _ := l.Owned()
			if kept {
				want = "it continues its teardown in process "
			}
			if !errors.Is(err, why) || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
			if kept != (len(owned) == 1) {
				t.Errorf("in the ledger: %v", owned)
			}
			for _, r := range owned {
				pid, _ := strconv.Atoi(strings.Split(r.ID, "@")[0])
				if err := procgroup.Kill(pid); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// waitGone waits until a process has ended, since killing it does not wait.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 1200 {
		if state := procgroup.Started(pid); state == "" || zombie(pid) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func zombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// Child processes of a plugin end with it, even if the plugin ends first.
func TestChildrenOfPlugin(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes are looked up in /proc")
	}
	for _, misbehave := range []string{"", "misbehave = \"kill\"\nat = \"Build\""} {
		p := newProbe(t)
		s, _ := scope(t)
		home := t.TempDir()
		a, _ := build(t, p, t.Context(), s, fmt.Sprintf("home = %q\n%s", home, misbehave), func(ctx context.Context, m builder.Machine) error {
			_, err := m.Run(ctx, communicator.Command{Line: "sleep 1000 >/dev/null 2>&1 & echo $! > pid"})
			return err
		})
		if a != nil {
			a.Live.Close()
		}
		b, err := os.ReadFile(filepath.Join(home, "pid"))
		pid, aerr := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil || aerr != nil {
			t.Fatalf("the plugin has left no PID: %v, %v", err, aerr)
		}
		waitGone(t, pid)
	}
}

// The error of a plugin that ends at once says so, also if its children hold its output, and the
// children end.
func TestEndedAtStart(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processes are looked up in /proc")
	}
	for _, tt := range []struct {
		keeper []string
		status int
	}{{nil, 0}, {nil, 3}, {keeper.Command(), 0}, {keeper.Command(), 3}} {
		t.Run(fmt.Sprintf("status %d with keeper %t", tt.status, tt.keeper != nil), func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			file := filepath.Join(root, "pid")
			script(t, root, "example.com/a/b", "1.0.0", fmt.Sprintf(`[ "$1" = describe ] || {
	sleep 1000 &
	echo $! >%q
	echo the license has expired >&2
	exit %d
}
`, file, tt.status)+says("1.0.0", "x5.0"))
			set := Installed(Options{Dirs: []string{root}, Env: os.Environ(), Keeper: tt.keeper})
			p, err := set.Require(t.Context(), Requirement{Source: "example.com/a/b"})
			if err != nil {
				t.Fatal(err)
			}
			_, err = p.start(t.Context(), "builder", "x", true)
			want := fmt.Sprintf("the plugin example.com/a/b did not start: it ended without a handshake (exit status %d); install another version of it\nthe license has expired", tt.status)
			if err == nil || err.Error() != want {
				t.Errorf("got %v, want %s", err, want)
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			child, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				t.Fatal(err)
			}
			waitGone(t, child)
		})
	}
}

// ledger holds the entries of a run.
type ledger struct {
	mu    sync.Mutex
	owned map[string]step.Resource
	all   []step.Resource
}

func (l *ledger) Intend(r step.Resource) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.owned[r.Key] = r
	return nil
}

func (l *ledger) Created(key, id string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.owned[key]
	r.ID = id
	l.owned[key], l.all = r, append(l.all, r)
	return nil
}

func (l *ledger) Gone(keys ...string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.owned, key)
	}
	return nil
}

func (l *ledger) Owned() (all []step.Resource, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.owned {
		all = append(all, r)
	}
	return all, nil
}

// The process of a plugin is in the ledger while it runs, but not among the resources of its
// build.
func TestProcessInLedger(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	l := &ledger{owned: map[string]step.Resource{}}
	s.Ledger = l
	a, err := build(t, p, t.Context(), s, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	owned, _ := l.Owned()
	if len(owned) != 1 || owned[0].Kind != ProcessKind || owned[0].Build != "" || owned[0].With["build"] != s.Build {
		t.Fatalf("owned: %+v", owned)
	}
	if runtime.GOOS == "linux" {
		pid, _ := strconv.Atoi(strings.Split(owned[0].ID, "@")[0])
		if owned[0].ID != processID(pid, procgroup.Started(pid)) {
			t.Errorf("the process is called %s", owned[0].ID)
		}
	}
	a.Live.Close()
	for _, body := range []string{`errors = ["no"]`, "misbehave = \"kill\"\nat = \"Machine\""} {
		_ = made(t, p.Provisioners[0], p.input(t, body, nil)).Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
	}
	if owned, _ := l.Owned(); len(owned) > 0 || len(l.all) != 3 {
		t.Errorf("still owned: %v; there were %v", owned, l.all)
	}
}

// A process that has the number of a former plugin is left alone.
func TestDestroyNoOtherProcess(t *testing.T) {
	for _, id := range []string{"", "x", "1@1", "0@", "-1@1", processID(os.Getpid(), "1"), processID(os.Getpid(), "")} {
		if err := DestroyProcess(t.Context(), step.Resource{Kind: ProcessKind, ID: id}); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
}

// The log output of a plugin is kept up to a limit.
func TestTail(t *testing.T) {
	var debug lines
	l := &tail{name: "p", to: &debug}
	for i := range 3 * maxLogLines {
		fmt.Fprintf(l, "line %d\n", i)
	}
	fmt.Fprint(l, strings.Repeat("x", 3*maxLogLine), "\n\nend")
	l.flush()
	if len(l.lines) > maxLogLines+5 || len(debug) != 3*maxLogLines+4 {
		t.Errorf("%d lines are kept of %d", len(l.lines), len(debug))
	}
	if last := strings.Split(l.last(), "\n"); len(last) != 5 || last[4] != "end" || len(last[3]) != maxLogLine {
		t.Errorf("the last lines are %.200q", last)
	}
	fmt.Fprint(l, "panic: oh no\n", strings.Repeat("goroutine\n", 100))
	if last := strings.Split(l.last(), "\n"); len(last) != panicLines || last[0] != "panic: oh no" {
		t.Errorf("the panic is %q", last)
	}
}

type lines []string

func (l *lines) Debug(msg string, _ ...any) { *l = append(*l, msg) }

// A plugin that was replaced since it was verified is not started.
func TestReplaced(t *testing.T) {
	p := newProbe(t)
	if err := os.Remove(p.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.Path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Builders[0].Docs(); err == nil || !strings.Contains(err.Error(), "has changed since the start") {
		t.Errorf("got %v", err)
	}
}
