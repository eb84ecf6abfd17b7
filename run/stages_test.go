package run_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"

	"bake/cloud"
	"bake/config"
	"bake/run"
	"bake/run/localcloud"
	"bake/run/runtest"
	"bake/step"
)

// staged is a template whose build crosses boundaries of most kinds. Its provisioners write
// a line each to DIR/log.
const staged = `
source "amazon-ebs" "web" {
  region        = "us-east-1"
  source_ami_filter {
    owners      = ["136693071363"]
    filters     = { name = "debian-12-*" }
    most_recent = true
  }
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "web"
  ami_regions   = ["us-west-2"]
}
build {
  sources = ["amazon-ebs.web"]
  provisioner "shell" { inline = ["echo one >> DIR/log"] }
  provisioner "shell" { inline = ["echo two >> DIR/log"] }
  post-processor "shell-local" { inline = ["echo post >> DIR/log"] }
}
`

// stages are runs of staged on a cloud. Each stage has a separate state directory.
type stages struct {
	*runtest.World
	bench
	key  run.Key
	opts run.Options
	host int
}

func newStages(t *testing.T, template string) *stages {
	t.Helper()
	s := &stages{World: runtest.Start(t, cloud.Options{})}
	s.opts = s.options(t, template)
	s.opts.Template.Env = append(slices.Clone(s.Env), "PATH="+os.Getenv("PATH"), "HOME="+s.dir)
	s.opts.ID = uuid.NewString() // it is in the mark on the machine, which is this host
	var err error
	if s.key, err = run.NewKey("a key for the tests"); err != nil {
		t.Fatal(err)
	}
	return s
}

// stage runs the next stage on another host, with the export of the previous stage, and
// returns its own export.
func (s *stages) stage(t *testing.T, sealed []byte) ([]byte, run.Result, error) {
	t.Helper()
	s.host++
	o := s.opts
	o.State, o.Stages = run.State(filepath.Join(s.dir, fmt.Sprint("host", s.host))), true
	var result run.Result
	var err error
	if sealed == nil {
		result, err = run.Build(t.Context(), o)
	} else {
		id, ierr := o.State.Import(sealed, s.key)
		if ierr != nil {
			t.Fatal(ierr)
		}
		result, err = run.Resume(t.Context(), run.ResumeOptions{Options: o, Run: id})
	}
	if len(result.Next) == 0 {
		return nil, result, err
	}
	sealed, eerr := o.State.Export(result.Run, s.key)
	if eerr != nil {
		t.Fatal(eerr)
	}
	if bytesHold(sealed, "PRIVATE KEY") {
		t.Error("what is exported holds a private key in clear")
	}
	return sealed, result, err
}

// TestStagesAreNotSwept: between two stages, the host of the last stage does not know
// whether another host continues the run. So a sweep leaves the run alone, and forgets it
// after some time.
func TestStagesAreNotSwept(t *testing.T) {
	s := newStages(t, staged)
	sealed, _, err := s.stage(t, nil)
	if err != nil || sealed == nil {
		t.Fatal(err)
	}
	before := s.all()
	state := run.State(filepath.Join(s.dir, "host1"))
	var spared []run.Spared
	o := run.SweepOptions{State: state, Spared: func(one run.Spared) { spared = append(spared, one) }}
	if swept, err := run.Sweep(t.Context(), o); err != nil || len(swept) > 0 || len(spared) != 1 || spared[0].Run != s.opts.ID || !strings.Contains(spared[0].String(), "a cell of a fleet") {
		t.Errorf("swept %v, spared %v, %v", swept, spared, err)
	}
	if after := s.all(); !slices.Equal(before, after) {
		t.Errorf("there were %q, and are %q", before, after)
	}

	// Resources without an entry in the journal are not forgotten by an import.
	ledger := filepath.Join(state.Ledgers(), s.opts.ID+".jsonl")
	text, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(ledger, append(text, []byte("{}\n")...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := state.Import(sealed, s.key); err != nil {
		t.Fatal(err)
	}
	if now, err := os.ReadFile(ledger); err != nil || len(now) != len(text)+3 {
		t.Errorf("the ledger has %d bytes after an import, and had %d: %v", len(now), len(text)+3, err)
	}

	if err := state.ForgetStages(time.Now().Add(-time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(state.Journal(s.opts.ID)); err != nil {
		t.Errorf("it is forgotten at once: %v", err)
	}
	if err := state.ForgetStages(time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(state.Journal(s.opts.ID)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is not forgotten: %v", err)
	}
}

func bytesHold(data []byte, text string) bool { return strings.Contains(string(data), text) }

func (s *stages) lines(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(text)), " ")
}

// all lists the resources of the account, without ids.
func (s *stages) all() (out []string) {
	id := regexp.MustCompile(`-[0-9a-f]{17}`)
	for _, region := range []string{"us-east-1", "us-west-2"} {
		for _, h := range s.Holdings("default", region) {
			out = append(out, region+" "+id.ReplaceAllString(h, ""))
		}
	}
	return out
}

func next(r run.Result) string {
	var out []string
	for _, b := range r.Next {
		text := string(b.Next)
		switch {
		case b.Image != "":
			text += " " + b.Region
		case b.Next == step.StageProvision:
			text += fmt.Sprintf(" %d of %d", b.Done, b.Of)
		}
		out = append(out, text)
	}
	return strings.Join(out, ", ")
}

// did returns the finished steps and the created resources, sorted. It omits the steps that
// exist only because another process continues the run.
func (b *bench) did() []string {
	id := regexp.MustCompile(`\b(i|ami|snap|key|sg)-[0-9a-f]{17}|packer_\S+|[0-9a-f]{8}-[0-9a-f-]{27}`)
	again := map[string]bool{"connect to AWS": true, "find the machine of the run": true, "find the image of the run": true, "provision": true}
	var out []string
	for _, e := range b.events {
		text := ""
		switch e.Kind {
		case step.ResourceCreated, step.ResourceKept, step.ResourceDestroyed:
			text = fmt.Sprintf("%s %s", e.Kind, id.ReplaceAllString(e.Resource.String(), "ID"))
		case step.StepFinished:
			if last := e.Step[strings.LastIndex(e.Step, "> ")+1:]; !again[strings.TrimSpace(last)] {
				text = id.ReplaceAllString(e.Step, "ID")
			}
		}
		if text != "" {
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// TestStages: a run that is cut at each boundary, and continued on another host each time,
// creates the same resources in the same steps as an uncut run.
func TestStages(t *testing.T) {
	whole := newStages(t, staged)
	o := whole.opts
	if _, err := run.Build(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	s := newStages(t, staged)
	var ends []string
	sealed, result, err := s.stage(t, nil)
	for len(result.Next) > 0 && err == nil {
		if len(result.Left) > 0 || result.Builds[0].Err != nil {
			t.Errorf("at %s: left %v, %v", next(result), result.Left, result.Builds[0].Err)
		}
		ends = append(ends, next(result))
		sealed, result, err = s.stage(t, sealed)
	}
	if err != nil || len(result.Builds) != 1 || len(result.Builds[0].Artifacts) != 1 {
		t.Fatalf("the last stage, after %q: %+v, %v", ends, result, err)
	}
	want := []string{"provision 0 of 2", "provision 1 of 2", "image", "wait us-east-1", "wait us-west-2", "publish"}
	if !slices.Equal(ends, want) {
		t.Errorf("the stages end at %q, want %q", ends, want)
	}
	if got, want := s.lines(t), "one two post"; got != want || whole.lines(t) != want {
		t.Errorf("by stages: %q; in one go: %q; want %q", got, whole.lines(t), want)
	}
	if got, want := s.all(), whole.all(); !slices.Equal(got, want) || len(got) != 4 {
		t.Errorf("by stages there is %q; in one go %q", got, want)
	}
	if got, want := s.did(), whole.did(); !slices.Equal(got, want) {
		t.Errorf("by stages:\n%s\nin one go:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestStagesFail: a failure in any stage tears down everything that the run owns, from all
// stages.
func TestStagesFail(t *testing.T) {
	s := newStages(t, strings.Replace(staged, `["echo two >> DIR/log"]`, `["exit 3"]`, 1))
	sealed, _, err := s.stage(t, nil)
	for sealed != nil && err == nil {
		sealed, _, err = s.stage(t, sealed)
	}
	if run.OutcomeOf(err) != run.OutcomeProvisioning || len(s.all()) > 0 {
		t.Errorf("the error is %v; there is %q", err, s.all())
	}
}

// TestStageEndsEarly: a stage that is cancelled before its builder has a session, or before
// its turn, tears down the resources of the earlier stages.
func TestStageEndsEarly(t *testing.T) {
	for name, at := range map[string]func(step.Event) bool{
		"at once": func(e step.Event) bool { return e.Kind == step.RunStarted },
		"no session": func(e step.Event) bool {
			return e.Kind == step.StepStarted && strings.HasSuffix(e.Step, "connect to AWS")
		},
		"with session": func(e step.Event) bool {
			return e.Kind == step.StepFinished && strings.HasSuffix(e.Step, "connect to AWS")
		},
	} {
		s := newStages(t, staged)
		sealed, _, err := s.stage(t, nil)
		if err != nil || len(s.all()) == 0 {
			t.Fatalf("the first stage: %v; the account has %q, want something", err, s.all())
		}
		o := s.opts
		o.State, o.Stages = run.State(filepath.Join(s.dir, "another")), true
		id, err := o.State.Import(sealed, s.key)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		enough := errors.New("enough")
		var calls atomic.Int64
		o.Wait = func(context.Context, string, string) error { calls.Add(1); return nil }
		s.on = func(e step.Event) {
			if at(e) {
				cancel(enough)
			}
		}
		result, err := run.Resume(ctx, run.ResumeOptions{Options: o, Run: id})
		if !errors.Is(err, enough) || len(result.Left) > 0 || run.OutcomeOf(err) == run.OutcomeLeft || len(s.all()) > 0 {
			t.Errorf("%s: %v; left %v; there is %q", name, err, result.Left, s.all())
		}
		if calls.Load() == 0 { // deletions are subject to the rate limit, too
			t.Errorf("%s: no call has waited for its turn", name)
		}
	}
}

// TestStageInterrupted: provisioners that had started or finished in an interrupted stage
// are not run again on the machine.
func TestStageInterrupted(t *testing.T) {
	s := newStages(t, staged)
	launched, _, err := s.stage(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = s.stage(t, launched); err != nil { // and its result is lost
		t.Fatal(err)
	}
	sealed, result, err := s.stage(t, launched)
	if err != nil || next(result) != "image" || s.lines(t) != "one two" {
		t.Errorf("after a provisioner that had finished: %s, %q, %v", next(result), s.lines(t), err)
	}
	_ = sealed

	s = newStages(t, strings.Replace(staged, "echo two", "test -e DIR/log2; echo two", 1))
	_, _, err = s.stage(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join("/run", "bake-"+s.opts.ID+"-amazon-ebs.web")
	if _, err := os.Stat(mark); err != nil {
		mark = filepath.Join("/dev/shm", filepath.Base(mark))
	}
	t.Cleanup(func() { os.Remove(mark) })
	if err := os.WriteFile(mark, []byte("begun 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	sealed, err = run.State(filepath.Join(s.dir, "host1")).Export(s.opts.ID, s.key)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err = s.stage(t, sealed); !errors.Is(err, step.ErrInterrupted) || len(s.all()) > 0 || s.lines(t) != "" {
		t.Errorf("after a provisioner that had begun: %v; there is %q; it was run: %q", err, s.all(), s.lines(t))
	}
}

// TestStageWithoutMachine: a run whose machine disappears or stops between two stages must
// begin again, and leaves nothing. An uncut run would have failed.
func TestStageWithoutMachine(t *testing.T) {
	for name, end := range map[string]func(context.Context, *ec2.Client, string) error{
		"terminated": func(ctx context.Context, c *ec2.Client, id string) error {
			_, err := c.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
			return err
		},
		"stopped": func(ctx context.Context, c *ec2.Client, id string) error {
			_, err := c.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}})
			return err
		},
	} {
		for _, before := range []string{"provision 0 of 2", "image"} {
			if name == "stopped" && before == "image" { // the image is made of a stopped machine
				continue
			}
			s := newStages(t, staged)
			sealed, result, err := s.stage(t, nil)
			for err == nil && sealed != nil && next(result) != before {
				sealed, result, err = s.stage(t, sealed)
			}
			if err != nil || sealed == nil {
				t.Fatal(err)
			}
			client := ec2.NewFromConfig(s.Config("default", "us-east-1"))
			out, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{})
			if err != nil {
				t.Fatal(err)
			}
			if err := end(t.Context(), client, *out.Reservations[0].Instances[0].InstanceId); err != nil {
				t.Fatal(err)
			}
			if _, _, err = s.stage(t, sealed); !errors.Is(err, step.ErrInterrupted) || len(s.all()) > 0 {
				t.Errorf("%s before %s: %v; there is %q", name, before, err, s.all())
			}
		}
	}
}

// TestStageCopiesOnce: a copy that was requested in a stage whose result was lost is
// continued. It is neither made twice nor mistaken for an old image in its place.
func TestStageCopiesOnce(t *testing.T) {
	for _, force := range []bool{false, true} {
		s := newStages(t, staged)
		s.opts.Force = force
		sealed, result, err := s.stage(t, nil)
		for err == nil && sealed != nil && next(result) != "wait us-east-1" {
			sealed, result, err = s.stage(t, sealed)
		}
		if err != nil || sealed == nil {
			t.Fatal(err)
		}
		if _, result, err = s.stage(t, sealed); err != nil || next(result) != "wait us-west-2" {
			t.Fatalf("%s, %v", next(result), err)
		}
		first := s.Holdings("default", "us-west-2")
		if sealed, result, err = s.stage(t, sealed); err != nil || next(result) != "wait us-west-2" {
			t.Fatalf("again: %s, %v", next(result), err)
		}
		if again := s.Holdings("default", "us-west-2"); !slices.Equal(first, again) {
			t.Errorf("there were %q, and are %q", first, again)
		}
		for err == nil && sealed != nil {
			sealed, result, err = s.stage(t, sealed)
		}
		if err != nil || len(result.Builds[0].Artifacts) != 1 || len(s.all()) != 4 {
			t.Errorf("%v; there is %q", err, s.all())
		}
	}
}

// TestStagesOfWhatCannotBeCut: a builder that cannot be continued on another host runs in one
// stage.
func TestStagesOfWhatCannotBeCut(t *testing.T) {
	var b bench
	o := b.options(t, fileSource+"}")
	o.Stages = true
	result, err := run.Build(t.Context(), o)
	if err != nil || len(result.Next) > 0 || len(result.Builds[0].Artifacts) != 1 {
		t.Errorf("%+v, %v", result, err)
	}
}

// TestImport: an export can be read only with its key, and does not replace newer state of
// this host.
func TestImport(t *testing.T) {
	var b bench
	o := b.resumed(t)
	key, _ := run.NewKey("a key for the tests")
	other, _ := run.NewKey("another key for the tests")
	sealed, err := o.State.Export("r1", key)
	if err != nil {
		t.Fatal(err)
	}
	there := run.State(filepath.Join(b.dir, "there"))
	if _, err := there.Import(sealed, other); err == nil || !strings.Contains(err.Error(), "BAKE_FLEET_KEY must be the same") {
		t.Errorf("with another key: %v", err)
	}
	if _, err := run.NewKey("short"); err == nil {
		t.Error("a short key is accepted")
	}
	for range 2 {
		if id, err := there.Import(sealed, key); id != "r1" || err != nil {
			t.Errorf("%q, %v", id, err)
		}
	}
	b.ready(t)
	o.State = there
	o.Template.Options = config.Options{Env: o.Template.Env}
	if _, err := run.Resume(t.Context(), o); err != nil {
		t.Error(err)
	}
	if err := there.Forget("r1"); err != nil {
		t.Error(err)
	}
}

// TestLogsOfStages: each stage stores its log with the reports, where a host that ran none
// of the stages can read it. Without a place for reports, the log stays on the host of the
// stage.
func TestLogsOfStages(t *testing.T) {
	for _, place := range []string{"s3://acme-images/nightly", "/reports", ""} {
		s := newStages(t, strings.Replace(staged, `["echo two >> DIR/log"]`, `["exit 3"]`, 1))
		client := s3.NewFromConfig(s.Config("default", "us-east-1"), func(o *s3.Options) { o.UsePathStyle = true })
		if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("acme-images")}); err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(place, "/") {
			place = s.dir + place
		}
		if err := os.WriteFile(filepath.Join(s.dir, "t.bake.hcl"), []byte(fmt.Sprintf("bake {\n reports = %q\n}\n", place)), 0o600); err != nil {
			t.Fatal(err)
		}
		s.opts.Template.Path = s.dir
		var parts []*run.LogPart
		sealed, result, err := s.stage(t, nil)
		for parts = append(parts, result.Log); sealed != nil && err == nil; parts = append(parts, result.Log) {
			sealed, result, err = s.stage(t, sealed)
		}
		if run.OutcomeOf(err) != run.OutcomeProvisioning || len(parts) != 3 {
			t.Fatalf("%q: %d stages, %v", place, len(parts), err)
		}
		if place == "" {
			if !slices.Equal(parts, make([]*run.LogPart, 3)) {
				t.Errorf("without a place: %v", parts)
			}
			continue
		}
		reader := run.State(filepath.Join(s.dir, "reader"))
		of, err := reader.OpenReports(t.Context(), localcloud.FromEnvironment(s.opts.Template.Env), s.opts.Template.Env, place)
		if err != nil {
			t.Fatal(err)
		}
		for i, part := range parts {
			var here, there []string
			say := func(to *[]string) func(step.Event) {
				return func(e step.Event) { *to = append(*to, fmt.Sprint(e.Time, e.Kind, e.Step, e.Text, e.Error)) }
			}
			if part == nil || !strings.HasPrefix(part.Name, "logs/") || !strings.HasSuffix(part.Name, s.opts.ID+".jsonl.gz") {
				t.Fatalf("%q: stage %d: %+v", place, i+1, part)
			}
			err := run.ReadLog(t.Context(), of(s.opts.ID), *part, say(&here))
			herr := run.State(filepath.Join(s.dir, fmt.Sprint("host", i+1))).Events(s.opts.ID, say(&there))
			if err != nil || herr != nil || len(here) == 0 || !slices.Equal(here, there) {
				t.Errorf("%q: stage %d: %v, %v: %q, want %q", place, i+1, err, herr, here, there)
			}
		}
		swapped := run.LogPart{Name: parts[0].Name, SHA256: parts[1].SHA256}
		if err := run.ReadLog(t.Context(), of(s.opts.ID), swapped, func(step.Event) {}); err == nil || !strings.Contains(err.Error(), "was changed") {
			t.Errorf("%q: what was changed: %v", place, err)
		}
		for _, name := range []string{"../secret", "/etc/passwd", ""} {
			if err := run.ReadLog(t.Context(), of(s.opts.ID), run.LogPart{Name: name, SHA256: parts[0].SHA256}, func(step.Event) {}); err == nil {
				t.Errorf("%q: %q is read", place, name)
			}
		}
	}
}

// TestReportOfStages: the report of a run covers all its stages, on whichever hosts they
// ran, and includes their documents.
func TestReportOfStages(t *testing.T) {
	s := newStages(t, staged)
	// Commands that run as root on the machine find nothing and do nothing, because it is
	// this host.
	bin := filepath.Join(s.dir, "bin")
	const sh = "#!/bin/sh\ncase \"$*\" in\n*\"exec sh -s\"*) cat >/dev/null; printf '\\001bake done\\n' ;;\n*) exec /bin/sh \"$@\" ;;\nesac\n"
	if err := errors.Join(os.Mkdir(bin, 0o700), os.WriteFile(filepath.Join(bin, "sh"), []byte(sh), 0o700)); err != nil { // it is run
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	place := filepath.Join(s.dir, "reports")
	if err := os.WriteFile(filepath.Join(s.dir, "t.bake.hcl"), []byte(fmt.Sprintf("bake {\n reports = %q\n}\nimage \"web\" {\n sources = [\"amazon-ebs.web\"]\n}\n", place)), 0o600); err != nil {
		t.Fatal(err)
	}
	s.opts.Template.Path = s.dir
	s.opts.Template.Instance = &config.Instance{Image: "web"}
	sealed, result, err := s.stage(t, nil)
	for sealed != nil && err == nil {
		sealed, result, err = s.stage(t, sealed)
	}
	if err != nil || s.host < 5 {
		t.Fatalf("%d stages, %v", s.host, err)
	}
	text, err := os.ReadFile(filepath.Join(place, "web", "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"state":"succeeded"`, `"leftovers"`, `"leftovers-private-keys"`} {
		if !strings.Contains(strings.ReplaceAll(string(text), ": ", ":"), want) {
			t.Errorf("the report lacks %s:\n%s", want, text)
		}
	}
	if left, err := filepath.Glob(filepath.Join(s.dir, fmt.Sprint("host", s.host), "ledgers", "*.parts")); err != nil || len(left) > 0 || result.Log == nil {
		t.Errorf("left: %q, %v; %+v", left, err, result.Log)
	}
}
