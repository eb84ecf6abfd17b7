package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/config"
	"bake/engine"
	"bake/run"
	"bake/step"
)

// chains is a template with two builds. The second chain of post-processors fails until DIR/ready
// exists, and each one that runs writes a line to DIR/log.
const chains = `
variable "password" {
  type      = string
  sensitive = true
  default   = "none"
}
source "file" "f" {
  target  = "IMAGE"
  content = "x"
}
source "file" "other" {
  target  = "DIR/other"
  content = "x"
}
build {
  sources = ["file.f", "file.other"]
  post-processor "shell-local" {
    inline = ["echo first >> DIR/log"]
  }
  post-processor "shell-local" {
    environment_vars = ["PASSWORD=${var.password}"]
    inline           = ["test -e DIR/ready", "echo \"second $PASSWORD\" >> DIR/log"]
  }
}
`

// resumed builds chains until it fails, and returns a function that resumes it.
func (b *bench) resumed(t *testing.T, vars ...string) run.ResumeOptions {
	t.Helper()
	o := b.options(t, chains)
	o.Template.Only, o.Template.Vars = []string{"file.f"}, vars
	o.Parallel, o.FailFast, o.CloudInit = 3, true, time.Minute
	result, err := run.Build(t.Context(), o)
	if err == nil || !result.Resumable {
		t.Fatalf("the build: %v; resumable: %v", err, result.Resumable)
	}
	o.Template.Options = config.Options{Env: o.Template.Env}
	return run.ResumeOptions{Options: o, Run: "r1"}
}

func (b *bench) log(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (b *bench) ready(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, "ready"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestResumeChains: finished chains are not run again, a run can be resumed again after another
// failure, but not after it has succeeded.
func TestResumeChains(t *testing.T) {
	var b bench
	o := b.resumed(t)
	m, err := o.State.Resumable("r", false)
	if err != nil || !slices.Equal(m.Builds, []string{"file.f"}) || m.Parallel != 3 || !m.FailFast || m.CloudInit == nil || *m.CloudInit != time.Minute {
		t.Errorf("the run remembers %+v, %v", m, err)
	}
	if result, err := run.Resume(t.Context(), o); err == nil || !result.Resumable {
		t.Errorf("the second life: %v; resumable: %v", err, result.Resumable)
	}
	b.ready(t)
	result, err := run.Resume(t.Context(), o)
	if err != nil || len(result.Builds) != 1 || len(result.Builds[0].Artifacts) == 0 {
		t.Errorf("the third life: %+v, %v", result, err)
	}
	if got, want := b.log(t), "first\nsecond none\n"; got != want {
		t.Errorf("the post-processors wrote %q, want %q", got, want)
	}
	if _, err := o.State.Resumable("r1", true); err == nil || !strings.Contains(err.Error(), "it succeeded") {
		t.Errorf("after it has succeeded: %v", err)
	}
	if _, err := run.Resume(t.Context(), o); err == nil || !strings.Contains(err.Error(), "nothing to resume") {
		t.Errorf("a fourth life: %v", err)
	}
}

// TestResumeSensitive: the value of a sensitive variable is not in the journal, and
// must be given again; a different value is an error.
func TestResumeSensitive(t *testing.T) {
	var b bench
	o := b.resumed(t, "password=hunter2-hunter2")
	journal, err := os.ReadFile(o.State.Journal("r1"))
	if err != nil || strings.Contains(string(journal), "hunter2") {
		t.Fatalf("the journal holds the password, or cannot be read: %v", err)
	}
	b.ready(t)
	if _, err := run.Resume(t.Context(), o); err == nil || !strings.Contains(err.Error(), "-var password=...") {
		t.Errorf("without the password: %v", err)
	}
	o.Template.Vars = []string{"password=hunter2-hunter2", "size=1"}
	if _, err := run.Resume(t.Context(), o); err == nil || !strings.Contains(err.Error(), "the value of size cannot be changed") {
		t.Errorf("with another variable: %v", err)
	}
	o.Template.Vars = o.Template.Vars[:1]
	if _, err := run.Resume(t.Context(), o); err != nil {
		t.Error(err)
	}
	if got := b.log(t); !strings.Contains(got, "second hunter2-hunter2") {
		t.Errorf("the post-processors wrote %q", got)
	}
}

// TestResumeRefused: attempts to resume that do nothing, and leave the run unchanged.
func TestResumeRefused(t *testing.T) {
	var b bench
	o := b.resumed(t)
	b.ready(t)
	refused := func(what, want string) {
		t.Helper()
		if _, err := run.Resume(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	var m run.Memory
	held, err := step.OpenJournal(o.State.Journal("r1"), &m)
	if err != nil {
		t.Fatal(err)
	}
	refused("at the same time as another one", "is being resumed by another bake")
	if err := held.Close(true); err != nil {
		t.Fatal(err)
	}
	o.From = "1"
	refused("from a provisioner, of which none is left", "all of its provisioners had finished")
	o.From, o.Version = "", "2.0"
	refused("of another version", "use -force")
	o.Version = ""
	template := filepath.Join(b.dir, "t.pkr.hcl")
	text, err := os.ReadFile(template)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(template, append(text, "# changed\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("with another template", "the template has changed since the run began: ")
	if m, err := o.State.Resumable("", false); err != nil || m.Run != "r1" || m.OnError != engine.OnError("") {
		t.Errorf("the run is not as it was: %+v, %v", m, err)
	}
	if got := b.log(t); got != "first\n" {
		t.Errorf("the post-processors wrote %q", got)
	}
	o.Changed = true
	if _, err := run.Resume(t.Context(), o); err != nil {
		t.Error(err)
	}
}

// TestResumeCancelledBeforeItsTurn: a build whose turn does not come before its resumed run is
// cancelled is left as it is, and says that it was cancelled.
func TestResumeCancelledBeforeItsTurn(t *testing.T) {
	var b bench
	o := b.options(t, chains)
	o.Parallel, o.FailFast = 1, true
	if result, err := run.Build(t.Context(), o); err == nil || !result.Resumable {
		t.Fatalf("the build: %v; resumable: %v", err, result.Resumable)
	}
	o.Template.Options = config.Options{Env: o.Template.Env}
	b.events = nil
	result, err := run.Resume(t.Context(), run.ResumeOptions{Options: o, Run: "r1"})
	var cancelled []string
	for _, one := range result.Builds {
		if _, ok := errors.AsType[*engine.FailFastError](one.Err); ok {
			cancelled = append(cancelled, one.Name)
		}
	}
	if err == nil || !result.Resumable || len(cancelled) != 1 {
		t.Fatalf("the second life: %v; resumable: %v; cancelled: %q", err, result.Resumable, cancelled)
	}
	if slices.ContainsFunc(b.events, func(e step.Event) bool { return e.Kind == step.BuildStarted && e.Build == cancelled[0] }) {
		t.Errorf("%s has begun", cancelled[0])
	}
}
