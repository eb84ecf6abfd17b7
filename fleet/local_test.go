package fleet_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/uuid"

	"bake/cloud"
	"bake/config"
	"bake/engine"
	"bake/fleet"
	"bake/run"
	"bake/run/runtest"
	"bake/step"
)

const template = `
variable "parent" { default = "" }
source "amazon-ebs" "base" {
  region        = "us-east-1"
  source_ami_filter {
    owners      = ["136693071363"]
    filters     = { name = "debian-12-*" }
    most_recent = true
  }
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "base"
}
source "amazon-ebs" "web" {
  region        = "us-east-1"
  source_ami    = var.parent
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"
}
build {
  sources = ["amazon-ebs.base", "amazon-ebs.web"]
}
`

const bakeFile = `
image "base" {
  sources = ["amazon-ebs.base"]
}
image "web" {
  sources = ["amazon-ebs.web"]
  vars    = { parent = image.base.id }
}
fleet "nightly" {
  images = [image.base, image.web]
  matrix {
    account = ["123456789012", "987654321098"]
    region  = ["eu-west-1", "us-west-2"]
  }
  role = "arn:aws:iam::${each.account}:role/bake-build"
}
`

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`

// world is a cloud with the template of a fleet, and an engine that runs the fleet.
type world struct {
	*runtest.World
	t        *testing.T
	dir      string
	template *fleet.Template
	host     fleet.Host

	mu     sync.Mutex
	events []step.Event
	runs   int // of cells
}

func newWorld(t *testing.T, template, bakeFile string) *world {
	t.Helper()
	return newWorldOn(t, cloud.Options{}, template, bakeFile)
}

func newWorldOn(t *testing.T, on cloud.Options, template, bakeFile string) *world {
	t.Helper()
	withoutRoot(t)
	w := &world{World: runtest.Start(t, on), t: t, dir: t.TempDir()}
	for _, profile := range []string{"default", "other"} {
		if _, err := iam.NewFromConfig(w.Config(profile, "us-east-1")).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("bake-build"), AssumeRolePolicyDocument: aws.String(trust)}); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"x.pkr.hcl": template, "x.bake.hcl": bakeFile} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	options := config.Options{Path: ".", Cwd: w.dir, Env: append(slices.Clone(w.Env), "PATH="+os.Getenv("PATH"), "HOME="+w.dir)}
	loaded, diags := fleet.Load(t.Context(), options)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	w.template = loaded
	w.host = fleet.Host{
		State: run.State(filepath.Join(w.dir, "state")), Now: time.Now,
		Emit: func(e step.Event) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, e)
		},
		Options: func(_ context.Context, c fleet.Cell, parents []fleet.Outcome) (run.Options, error) {
			w.mu.Lock()
			w.runs++
			w.mu.Unlock()
			i, err := loaded.Instance(c, parents)
			o := run.Options{Template: run.Template{Options: options}, State: w.host.State, Version: "test"}
			o.Template.Instance = &i
			return o, err
		},
	}
	return w
}

// withoutRoot makes everything that is run as root on machines find and do nothing, because the
// machines are this host.
func withoutRoot(t *testing.T) {
	t.Helper()
	const sh = `#!/bin/sh
case "$*" in
*"exec sh -s"*) cat >/dev/null; printf '\001bake done\n' ;;
*) exec /bin/sh "$@" ;;
esac
`
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "sh"), []byte(sh), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// run runs the fleet, and returns how the cells ended.
func (w *world) run(o fleet.RunOptions) (fleet.Status, string) {
	w.t.Helper()
	f := w.template.Fleets[0]
	if o.Cells == nil {
		o.Cells = f.Cells
	}
	s, err := fleet.NewLocal(w.host).Run(w.t.Context(), f, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s, ended(s)
}

func ended(s fleet.Status) string {
	var all []string
	for _, c := range s.Cells {
		all = append(all, c.Cell.Short()+" "+string(c.State))
	}
	return strings.Join(all, "\n")
}

// Each image is baked once in each account and region, children from the parent there.
func TestLocal(t *testing.T) {
	w := newWorld(t, template, bakeFile)
	s, text := w.run(fleet.RunOptions{})
	if s.State != fleet.StateDone || strings.Count(text, " built") != 8 {
		w.dump()
		t.Fatalf("%s:\n%s", s.State, text)
	}
	for _, c := range s.Cells {
		profile := map[string]string{"123456789012": "default", "987654321098": "other"}[c.Cell.Account]
		has := strings.Join(w.Holdings(profile, c.Cell.Region), "\n")
		if id := c.Outcome.Image.ID; id == "" || !strings.Contains(has, "image "+id+" ("+c.Cell.Image+")") {
			t.Errorf("%s made %q, and there is:\n%s", c.Cell.Short(), id, has)
		}
		if strings.Contains(has, "instance") || strings.Contains(has, "key pair") || strings.Contains(has, "security group") {
			t.Errorf("something is left in %s of %s:\n%s", c.Cell.Region, c.Cell.Account, has)
		}
	}
	if has := w.Holdings("default", "us-east-1"); len(has) > 0 {
		t.Errorf("the region of the template has %q", has)
	}
	s, text = w.run(fleet.RunOptions{})
	if s.State != fleet.StateDone || strings.Count(text, " reused") != 8 {
		w.dump()
		t.Errorf("again:\n%s", text)
	}
	if fleet.Worst(nil) != run.OutcomeDone {
		t.Error("nothing has failed")
	}
	w.goesOn(s)
}

// goesOn truncates the journal of a run, as if its process had been killed, and resumes the run.
// Ended cells are not started again.
func (w *world) goesOn(s fleet.Status) {
	path, data := w.journal(s.Run)
	var kept []string
	lost := 0
	for line := range strings.Lines(data) {
		switch {
		case strings.HasPrefix(line, `{"header":{`): // a cell whose image exists is still not baked again
			kept = append(kept, strings.Replace(line, `{"header":{`, `{"header":{"force":true,`, 1))
		case strings.HasPrefix(line, `{"over"`):
		case strings.HasPrefix(line, `{"ended"`) && strings.Contains(line, `"account":"987654321098"`) && strings.Contains(line, `"image":"web"`):
			lost++
		default:
			kept = append(kept, line)
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(kept, "")+`{"ended":{"ce`), 0o600); err != nil {
		w.t.Fatal(err)
	}
	f := w.template.Fleets[0]
	dead, err := fleet.NewLocal(w.host).Status(w.t.Context(), f)
	if err != nil || dead.State != fleet.StateCrashed || strings.Count(ended(dead), " crashed") != 2 {
		w.t.Errorf("%v, %s:\n%s", err, dead.State, ended(dead))
	}
	before := w.runs
	again, text := w.run(fleet.RunOptions{Resume: "last"})
	if again.Run != s.Run || again.State != fleet.StateDone || w.runs-before != 2 || lost != 2 {
		w.dump()
		w.t.Errorf("%d cells were baked again, of %d lost: %s\n%s", w.runs-before, lost, again.State, text)
	}
	for i, c := range again.Cells {
		was := s.Cells[i].Outcome
		if c.Outcome == nil || c.Outcome.Image.ID != was.Image.ID || c.Outcome.Image.Inputs != was.Image.Inputs {
			w.t.Errorf("%s was made again: %+v, after %+v", c.Cell.Short(), c.Outcome, was)
		}
	}
	if _, err := fleet.NewLocal(w.host).Run(w.t.Context(), f, fleet.RunOptions{Resume: "last"}); err == nil || !strings.Contains(err.Error(), "nothing to resume") {
		w.t.Errorf("of a run that is over: %v", err)
	}
}

// journal is the journal of a run.
func (w *world) journal(run string) (path, text string) {
	w.t.Helper()
	found, err := filepath.Glob(filepath.Join(string(w.host.State), "fleets", "nightly-*", run+".jsonl"))
	if err != nil || len(found) != 1 {
		w.t.Fatalf("journals = %q, %v, want one", found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return found[0], string(data)
}

// dies leaves a machine behind, like the run of a cell whose process is killed, and returns the
// run's id.
func (w *world) dies(whole string, c fleet.Cell) string {
	w.t.Helper()
	o, err := w.host.Options(w.t.Context(), c, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	o.ID, o.Parent, o.OnError, o.Force = uuid.NewString(), whole, engine.Keep, true
	o.Within, o.Template.Vars = fleet.Within(c, o.ID), []string{"fails=yes"}
	if _, err := run.Build(w.t.Context(), o); err == nil || w.machines() == 0 {
		w.dump()
		w.t.Fatalf("%d machines, %v", w.machines(), err)
	}
	return o.ID
}

// machines returns the number of machines.
func (w *world) machines() (n int) {
	for _, profile := range []string{"default", "other"} {
		for _, region := range []string{"eu-west-1", "us-west-2"} {
			for _, has := range w.Holdings(profile, region) {
				if strings.HasPrefix(has, "instance") {
					n++
				}
			}
		}
	}
	return n
}

// The resources of a cell are deleted, however often the process has died since, and
// whether or not the cell was started again. Until then, other runs warn about the owner.
func TestLocalDiesTwice(t *testing.T) {
	w := newWorld(t, strings.Replace(template, "build {", `variable "fails" { default = "no" }
build {
  provisioner "shell-local" { inline = ["test ${var.fails} = no"] }`, 1), bakeFile)
	f := w.template.Fleets[0]
	cells := f.Cells[:2]
	s, _ := w.run(fleet.RunOptions{Cells: cells})
	path, text := w.journal(s.Run)
	var lines []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `{"over"`) && !strings.HasPrefix(line, `{"ended"`) {
			lines = append(lines, line)
		}
	}
	at := time.Now().Format(time.RFC3339Nano)
	for i, c := range cells {
		id, again := w.dies(s.Run, c), uuid.NewString()
		for _, run := range []string{id, again} {
			lines = append(lines, fmt.Sprintf(`{"began":{"cell":%q,"run":%q,"at":%q}}`+"\n", c.ID(), run, at))
		}
		if i == 1 { // cancelled before its turn came
			cell, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, fmt.Sprintf(`{"ended":{"cell":%s,"result":"cancelled","image":{},"ended":%q}}`+"\n", cell, at))
		}
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := w.machines(); n != 2 {
		t.Fatalf("%d machines", n)
	}
	if other, _ := w.run(fleet.RunOptions{Cells: cells}); other.Run == s.Run || !w.warned("bake fleet run nightly -resume="+s.Run+"'") {
		t.Error("a new run says nothing of what the old one has left")
	}
	again, text := w.run(fleet.RunOptions{Resume: s.Run[:8]})
	if n := w.machines(); n != 0 || again.Run != s.Run || again.State != fleet.StateDone {
		w.dump()
		t.Errorf("%d machines are left by %s: %s\n%s", n, again.Run, again.State, text)
	}
	if now, err := fleet.NewLocal(w.host).Status(t.Context(), f); err != nil || now.Run != s.Run {
		t.Errorf("the last run is %s, %v", now.Run, err)
	}
	w.events = nil
	if w.run(fleet.RunOptions{Cells: cells}); w.warned("was killed") {
		t.Error("nothing is left, and that is warned of")
	}
}

// warned reports whether there was such a warning.
func (w *world) warned(text string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.events, func(e step.Event) bool { return e.Kind == step.Warning && strings.Contains(e.Text, text) })
}

// dump returns the events.
func (w *world) dump() {
	for _, e := range w.events {
		if e.Error != nil || e.Kind == step.Warning {
			w.t.Logf("%s %s %s: %s %v", e.Kind, e.Build, e.Step, e.Text, e.Error)
		}
	}
}

// Requests of other processes are carried out: a paused fleet starts no cell, and a cancelled one
// leaves nothing.
func TestLocalIsAsked(t *testing.T) {
	w := newWorld(t, template, bakeFile)
	f, engine := w.template.Fleets[0], fleet.NewLocal(w.host)
	if err := engine.Pause(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if _, err := engine.Run(t.Context(), f, fleet.RunOptions{Cells: f.Cells}); err == nil || !strings.Contains(err.Error(), "is paused") {
		t.Errorf("a fleet that is paused: %v", err)
	}
	if err := engine.Unpause(t.Context(), f); err != nil {
		t.Fatal(err)
	}
	if err := engine.Cancel(t.Context(), f); err == nil {
		t.Error("a fleet is cancelled that was never run")
	}
	began := make(chan struct{})
	emit := w.host.Emit
	var once sync.Once
	w.host.Emit = func(e step.Event) {
		emit(e)
		if e.Kind == step.ResourceCreated && strings.HasSuffix(e.Resource.Kind, ":instance") {
			once.Do(func() { close(began) })
		}
	}
	over := make(chan fleet.Status)
	go func() {
		s, err := fleet.NewLocal(w.host).Run(t.Context(), f, fleet.RunOptions{Cells: f.Cells})
		if err != nil {
			t.Error(err)
		}
		over <- s
	}()
	<-began
	if _, err := engine.Run(t.Context(), f, fleet.RunOptions{Cells: f.Cells}); err == nil || !strings.Contains(err.Error(), "is being run already") {
		t.Errorf("a fleet that is being run: %v", err)
	}
	if err := engine.Cancel(t.Context(), f); err != nil {
		t.Error(err)
	}
	s := <-over
	if s.State != fleet.StateCancelled {
		w.dump()
		t.Errorf("%s:\n%s", s.State, ended(s))
	}
	for _, profile := range []string{"default", "other"} {
		for _, region := range []string{"eu-west-1", "us-west-2"} {
			for _, has := range w.Holdings(profile, region) {
				if strings.HasPrefix(has, "instance") || strings.HasPrefix(has, "key pair") {
					t.Errorf("%s of %s has %s", region, profile, has)
				}
			}
		}
	}
	n := 0
	if err := engine.Logs(t.Context(), f, f.Cells[0], func(step.Event) { n++ }); err != nil || n == 0 {
		t.Errorf("the log of a cell has %d events, %v", n, err)
	}
	fmt.Fprintln(t.Output(), ended(s))
}
