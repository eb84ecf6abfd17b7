package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/builder"
	"bake/builder/buildertest"
	"bake/communicator"
	"bake/communicator/commtest"
	"bake/plugin/wire"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// build builds with the probe and closes what it returns.
func build(t *testing.T, p *probe, ctx context.Context, s *step.Scope, body string, provision builder.Provision) (*builder.Artifact, error) {
	t.Helper()
	b := made(t, p.Builders[0], p.input(t, body, nil))
	a, err := b.Build(ctx, s, builder.Hooks{Provision: provision})
	if a != nil {
		t.Cleanup(func() { a.Live.Close() })
	}
	return a, err
}

func TestBuilderConforms(t *testing.T) {
	t.Parallel() // plugins are waited for
	p := newProbe(t)
	p.options.Keeper = nil // many of them are started
	dir := t.TempDir()
	file := filepath.Join(dir, "resource")
	buildertest.Suite{Factory: p.Builders[0], Dir: dir, Body: fmt.Sprintf("home = %q\nresource = %q\nfiles = [%q]", t.TempDir(), file, file)}.Run(t)
}

func TestBuild(t *testing.T) {
	p := newProbe(t)
	s, log := scope(t)
	home := t.TempDir()
	disk := filepath.Join(home, "disk")
	os.WriteFile(disk, nil, 0o644)
	body := fmt.Sprintf("home = %q\nfiles = [%q]\nvalues = %q\nsay = \"one\\ntwo\"\nmessage = \"three\\nfour\\n\"\nerror = \"five\"\nprogress = 1000\nwarnings = [\"careful\"]",
		home, disk, `{"Colour": "red", "Count": 3, "Deep": {"a": [1]}, "Flag": true, "not a name": "x", "None": null}`)
	var data builder.Data
	a, err := build(t, p, t.Context(), s, body, func(ctx context.Context, m builder.Machine) error {
		data = m.Data
		st, err := m.Run(ctx, communicator.Command{Line: "echo hello > greeting; exit 3"})
		if st.Code != 3 {
			t.Errorf("got %+v, %v", st, err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(home, "greeting")); err != nil || string(b) != "hello\n" {
		t.Errorf("%q, %v", b, err)
	}
	want := map[string]any{
		"Colour": "red", "Count": "3", "Deep": `{"a":[1]}`, "Flag": "true", "PackerRunUUID": "run",
		"ID": "probe-1", "Host": "192.0.2.7", "Port": 2222, "User": "probe", "ConnType": "ssh", "SSHAgentAuth": "false",
	}
	if diff := cmp.Diff(want, data.Public().Plain()); diff != "" {
		t.Errorf("build.* (-want +got):\n%s", diff)
	}
	if got := data.Secrets(); len(got) != 1 || got[0] != "pass-of-the-probe" {
		t.Errorf("secrets: %q", got)
	}
	if a.BuilderID != "probe.builder" || a.ID != "probe-image" || a.Text != "An image of the probe" || len(a.Files) != 1 || a.Data["Colour"].Text != "blue" || len(a.Data.Secrets()) > 0 {
		t.Errorf("artifact: %+v", a)
	}
	if v, err := a.Live.State(t.Context(), "diskName"); err != nil || v != "disk-of-the-probe" {
		t.Errorf("state: %v, %v", v, err)
	}
	if err := a.Live.Destroy(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(disk); err == nil {
		t.Error("the artifact's file is still there")
	}
	if err := a.Live.Close(); err != nil {
		t.Error(err)
	}
	for kind, want := range map[step.Kind]string{step.Say: "one\ntwo", step.Output: "three|four", step.ErrOutput: "five", step.Warning: "probe: careful"} {
		if got := strings.Join(log.Texts(kind), "|"); got != want {
			t.Errorf("%s: got %q, want %q", kind, got, want)
		}
	}
	if n := len(log.Texts(step.Progressed)); n != 2 {
		t.Errorf("%d events of progress", n)
	}
}

func TestBuildWithoutArtifact(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	a, err := build(t, p, t.Context(), s, `returns = "nothing"`, nil)
	if a != nil || err != nil {
		t.Errorf("got %v, %v", a, err)
	}
}

// The error of provisioning is returned unchanged, and the plugin tears down.
func TestProvisioningFails(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	no := errors.New("no")
	resource := filepath.Join(t.TempDir(), "resource")
	_, err := build(t, p, t.Context(), s, fmt.Sprintf("home = %q\nresource = %q", t.TempDir(), resource), func(context.Context, builder.Machine) error { return no })
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(resource); err == nil {
		t.Error("the plugin has not torn down")
	}
	if got := p.notes(t, "cleanup: "); len(got) != 1 || got[0] != "<nil>" {
		t.Errorf("the cleanup hook has answered %q", got)
	}
}

// A cancelled build tears down, whenever it is cancelled, and returns the cause.
func TestCancelBuild(t *testing.T) {
	why := errors.New("enough")
	for name, tt := range map[string]struct {
		body   string
		cancel string // when: at this step's start, or while provisioning
	}{
		"before it has begun": {"", "build with probe"},
		"while provisioning":  {"", "provisioning"},
		"while it works":      {"misbehave = \"hang\"\nat = \"Build\"\nsay = \"working\"", "working"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			s, _ := scope(t)
			emit := s.Emit
			s.Emit = func(e step.Event) {
				emit(e)
				if e.Kind == step.StepStarted && e.Step == tt.cancel || e.Text == tt.cancel {
					cancel(why)
				}
			}
			resource := filepath.Join(t.TempDir(), "resource")
			body := fmt.Sprintf("home = %q\nresource = %q\n%s", t.TempDir(), resource, tt.body)
			provisioned := make(chan error, 2)
			a, err := build(t, p, ctx, s, body, func(ctx context.Context, m builder.Machine) error {
				if tt.cancel == "provisioning" {
					cancel(why)
				}
				if tt.cancel == "working" {
					return nil
				}
				_, err := m.Run(ctx, communicator.Command{Line: "sleep 60"})
				provisioned <- err
				return err
			})
			if a != nil || !errors.Is(err, why) || errors.Is(err, wire.ErrGone) { // a plugin that is cancelled too early crashes
				t.Errorf("got %v, %v", a, err)
			}
			if _, err := os.Stat(resource); err == nil {
				t.Error("the plugin has not torn down")
			}
			if tt.cancel == "provisioning" && !errors.Is(<-provisioned, why) {
				t.Error("the provisioner was not cancelled")
			}
		})
	}
}

// The death of a plugin that builds is noticed at once, and its last output is reported.
func TestBuilderDies(t *testing.T) {
	for _, at := range []string{"Start", "Build", "Upload"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t)
			s, _ := scope(t)
			body := fmt.Sprintf("home = %q\nmisbehave = \"kill\"\nat = %q", t.TempDir(), at)
			_, err := build(t, p, t.Context(), s, body, func(ctx context.Context, m builder.Machine) error {
				if at == "Upload" {
					return m.Put(ctx, ".", communicator.File("a", 0o644, []byte("a")))
				}
				_, err := m.Run(ctx, communicator.Command{Line: "true"})
				return err
			})
			for _, want := range []string{"the plugin process went away (signal: killed)", "the probe is killed at", "may still exist"} {
				if !errors.Is(err, wire.ErrGone) || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
		})
	}
}

// The questions that plugins may ask, and their answers.
func TestAsk(t *testing.T) {
	const onError = "[c] Clean up and exit, [a] abort without cleanup, or [r] retry step (build may fail even if retry succeeds)?"
	const debug = "Pausing after run of step 'StepX'. Press enter to continue. "
	for name, tt := range map[string]struct {
		question string
		failed   func(context.Context, string, error) step.Decision
		leaves   bool
		want     string
	}{
		"nobody":           {onError, nil, false, `"c" <nil>`},
		"retry":            {onError, func(context.Context, string, error) step.Decision { return step.Retry }, false, `"r" <nil>`},
		"give up":          {onError, func(context.Context, string, error) step.Decision { return step.GiveUp }, false, `"c" <nil>`},
		"leave":            {onError, func(context.Context, string, error) step.Decision { return step.GiveUp }, true, `"a" <nil>`},
		"pause":            {debug, nil, false, `"" <nil>`},
		"anything else":    {"Who are you?", nil, false, `"probe" <nil>`},
		"without terminal": {"Really?", nil, false, `"" there is no terminal to ask on`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProbe(t)
			s, log := scope(t)
			paused := ""
			s.Failed, s.Leaves = tt.failed, func() bool { return tt.leaves }
			s.Pause = func(_ context.Context, what string) error {
				if strings.HasPrefix(what, "after") {
					paused = what
				}
				return nil
			}
			if name == "anything else" {
				p.Plugin.options.Terminal = terminal("probe\n")
			}
			in := p.input(t, fmt.Sprintf("ask = %q", tt.question), nil)
			in.Build.OnError = "ask"
			a, err := made(t, p.Builders[0], in).Build(t.Context(), s, builder.Hooks{})
			if err != nil {
				t.Fatal(err)
			}
			a.Live.Close()
			if got := p.notes(t, "answer: "); len(got) != 1 || got[0] != tt.want {
				t.Errorf("got %q, want %s", got, tt.want)
			}
			if name == "pause" && paused != "after run of step 'StepX'" {
				t.Errorf("paused %q", paused)
			}
			if name == "anything else" && log.Texts(step.Say)[0] != tt.question {
				t.Errorf("said %q", log.Texts(step.Say))
			}
		})
	}
}

// The communicator of a plugin's builder passes the conformance suite.
func TestMachine(t *testing.T) {
	commtest.Run(t, func(t *testing.T) commtest.Subject { return commtest.Subject{Communicator: pluginMachine(t)} })
}

// pluginMachine is the communicator of a build that lasts as long as the test.
func pluginMachine(t *testing.T) communicator.Communicator {
	p := newProbe(t)
	s, _ := provisionertest.Scope(t)
	up, over := make(chan communicator.Communicator), make(chan struct{})
	var done sync.WaitGroup
	b := made(t, p.Builders[0], p.input(t, fmt.Sprintf("home = %q\nreturns = \"nothing\"", t.TempDir()), nil))
	ctx := context.WithoutCancel(t.Context())
	done.Go(func() {
		if _, err := b.Build(ctx, s, builder.Hooks{Provision: func(_ context.Context, m builder.Machine) error {
			up <- m.Communicator
			<-over
			return nil
		}}); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		close(over)
		done.Wait()
	})
	return <-up
}
