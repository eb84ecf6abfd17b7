package temporal

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	common "go.temporal.io/api/common/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/proxy"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/encoding/protojson"

	"bake/cloud"
	"bake/config"
	"bake/fleet"
	"bake/run"
	"bake/run/localcloud"
	"bake/run/runtest"
	"bake/step"
)

// These tests need the development server of Temporal; scripts/temporal builds it.
const serverVar = "BAKE_TEMPORAL"

// The environment of a process that is a worker in these tests.
const (
	workerDir   = "BAKE_TEST_WORKER"       // the directory of the template
	workerState = "BAKE_TEST_WORKER_STATE" // the worker's own state directory

	workerFleets  = "BAKE_TEST_WORKER_FLEETS"  // the only fleet it works for; empty: all
	workerRegions = "BAKE_TEST_WORKER_REGIONS" // the only place it works in; empty: all
	workerSmall   = "BAKE_TEST_WORKER_SMALL"   // if it exists, limits are lowered, see lower
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(workerDir); dir != "" {
		if err := work(dir, os.Getenv(workerState)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() && os.Getenv("TMPDIR") == "" { // the service waits for its disk
		os.Setenv("TMPDIR", "/dev/shm")
	}
	os.Exit(m.Run())
}

// work is a worker for the fleets of the template in dir, until SIGTERM.
func work(dir, state string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	loaded, host, err := open(ctx, dir, state)
	if err != nil {
		return err
	}
	if os.Getenv(workerSmall) != "" {
		lower()
	}
	e := &Engine{Host: host, Ready: func() { fmt.Println("ready") }, Metrics: os.Getenv("BAKE_METRICS")}
	o := fleet.WorkerOptions{Fleets: loaded.Fleets}
	if only := os.Getenv(workerFleets); only != "" {
		o.Fleets = slices.DeleteFunc(o.Fleets, func(f *fleet.Fleet) bool { return f.Name != only })
	}
	if only := os.Getenv(workerRegions); only != "" {
		o.Regions = strings.Split(only, ",")
	}
	return e.Work(ctx, o)
}

// lower lowers limits so that a fleet of a few cells counts as large and a run soon counts
// as orphaned. It returns a function that restores the limits.
func lower() (restore func()) {
	cells, age := mostCells, orphanAge
	mostCells, orphanAge = 3, 2*time.Second
	return func() { mostCells, orphanAge = cells, age }
}

// open reads the template in dir, and provides what an engine needs.
func open(ctx context.Context, dir, state string) (*fleet.Template, fleet.Host, error) {
	options := config.Options{Path: ".", Cwd: dir, Env: os.Environ()}
	loaded, diags := fleet.Load(ctx, options)
	if diags.HasErrors() {
		return nil, fleet.Host{}, diags
	}
	h := fleet.Host{State: run.State(state), Env: os.Environ(), Now: time.Now, Clouds: &localcloud.Clouds{}, Copies: loaded.Copies, Reports: loaded.Reports}
	h.Emit = func(e step.Event) {
		if e.Kind == step.StepFailed || e.Kind == step.Warning {
			fmt.Fprintln(os.Stderr, e.Build, e.Step, e.Text, e.Error)
		}
	}
	if loaded.Reports != "" {
		h.Log = h.State.LogReader(localcloud.FromEnvironment(h.Env), nil, h.Env, loaded.Reports)
	}
	h.Options = func(_ context.Context, c fleet.Cell, parents []fleet.Outcome) (run.Options, error) {
		i, err := loaded.Instance(c, parents)
		o := run.Options{Template: run.Template{Options: options}, Version: "test"}
		o.Template.Instance = &i
		return o, err
	}
	return loaded, h, nil
}

const fleetSource = `
source "amazon-ebs" "NAME" {
  region        = "us-east-1"
  source_ami_filter {
    owners      = ["136693071363"]
    filters     = { name = "debian-12-*" }
    most_recent = true
  }
  instance_type = "t3.micro"
  ssh_username  = "admin"
  ami_name      = "NAME-image"
}
`

const fleetTemplate = `
build {
  sources = ["amazon-ebs.base", "amazon-ebs.web", "amazon-ebs.db"]
  provisioner "shell" { inline = ["echo one"] }
  provisioner "shell" { inline = ["echo x >> DIR/begun", "while ! test -e DIR/go; do sleep 0.1; done"] }
}
`

const fleetBakefile = `
image "base" { sources = ["amazon-ebs.base"] }
image "web"  { sources = ["amazon-ebs.web"] }
image "db"   { sources = ["amazon-ebs.db"] }
fleet "nightly" {
  images = [image.base, image.web, image.db]
  matrix {
    account = ["123456789012", "987654321098"]
    region  = ["eu-west-1", "us-west-2"]
  }
  role = "arn:aws:iam::${each.account}:role/bake-build"
}
engine "temporal" {
  address   = "ADDRESS"
  namespace = "default"
}
`

const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`

// without makes everything that is run as root on machines find and do nothing, because the
// machines are this host.
const without = `#!/bin/sh
case "$*" in
*"exec sh -s"*) cat >/dev/null; printf '\001bake done\n' ;;
*) exec /bin/sh "$@" ;;
esac
`

// real is a fleet on a real service and an embedded cloud.
type real struct {
	*runtest.World
	t       *testing.T
	dir     string
	address string
	server  *exec.Cmd
	engine  *Engine
	fleet   *fleet.Fleet
	workers int
}

func newReal(t *testing.T, template, bakefile string) *real {
	t.Helper()
	if os.Getenv(serverVar) == "" {
		t.Skipf("%s does not name the development server of Temporal; see scripts/temporal", serverVar)
	}
	w := &real{World: runtest.Start(t, cloud.Options{}), t: t, dir: t.TempDir()}
	for _, profile := range []string{"default", "other"} {
		if _, err := iam.NewFromConfig(w.Config(profile, "us-east-1")).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("bake-build"), AssumeRolePolicyDocument: aws.String(trust)}); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	l.Close()
	r := strings.NewReplacer("DIR", w.dir, "ADDRESS", w.address)
	bin := filepath.Join(w.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"x.pkr.hcl": r.Replace(template), "x.bake.hcl": r.Replace(bakefile), "bin/sh": without} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o700); err != nil { // sh is run
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv(run.KeyVar, "a key for the tests of fleets")
	loaded, host, err := open(t.Context(), w.dir, filepath.Join(w.dir, "client"))
	if err != nil {
		t.Fatal(err)
	}
	w.engine, w.fleet = &Engine{Host: host}, loaded.Fleets[0]
	return w
}

// serve starts the service, which ends with the test.
func (w *real) serve() {
	w.t.Helper()
	_, port, _ := net.SplitHostPort(w.address)
	w.server = exec.Command(os.Getenv(serverVar), "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", port, "--db-filename", filepath.Join(w.dir, "db"), "--log-level", "never")
	w.server.Env = append(os.Environ(), "TEMPORAL_VERSION_CHECK_DISABLED=1")
	w.start(w.server)
	w.wait("the service answers", func() bool {
		c, err := net.Dial("tcp", w.address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

// start starts a process, which ends with the test, and returns its output.
func (w *real) start(c *exec.Cmd) *bytes.Buffer {
	w.t.Helper()
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		if w.t.Failed() {
			w.t.Logf("%s: %s", filepath.Base(c.Path), out.String())
		}
	})
	return &out
}

// worker starts a worker on a separate host.
func (w *real) worker() *exec.Cmd {
	w.t.Helper()
	w.workers++
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), workerDir+"="+w.dir, workerState+"="+filepath.Join(w.dir, fmt.Sprint("worker", w.workers)))
	w.start(c)
	return c
}

func kill(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.Wait()
}

func (w *real) wait(what string, done func() bool) {
	w.t.Helper()
	for end := time.Now().Add(3 * time.Minute); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("it does not come to pass that %s", what)
		}
	}
}

func (w *real) begun() int {
	text, err := os.ReadFile(filepath.Join(w.dir, "begun"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	return strings.Count(string(text), "x")
}

// machines returns everything left in all accounts and regions, except images and their
// snapshots.
func (w *real) machines() (left []string, images int) {
	for _, profile := range []string{"default", "other"} {
		for _, region := range manyRegions {
			for _, h := range w.Holdings(profile, region) {
				switch {
				case strings.HasPrefix(h, "image "):
					images++
				case !strings.HasPrefix(h, "snapshot "):
					left = append(left, profile+" "+region+" "+h)
				}
			}
		}
	}
	return left, images
}

// TestDeaths: a worker and the service are killed while cells are provisioned. All cells end
// with an image each, and nothing else is left.
func TestDeaths(t *testing.T) {
	var sources strings.Builder
	for _, name := range []string{"base", "web", "db"} {
		sources.WriteString(strings.ReplaceAll(fleetSource, "NAME", name))
	}
	w := newReal(t, sources.String()+fleetTemplate, fleetBakefile)
	if _, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: w.fleet.Cells}); err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Errorf("without a service: %v", err)
	}
	w.serve()
	if said, err := w.engine.Apply(t.Context(), w.fleet, false); err != nil || !slices.ContainsFunc(said.Changes, func(s string) bool { return strings.Contains(s, "BakeResult") }) {
		t.Fatalf("%q, %v", said, err)
	}
	first := w.worker()
	type end struct {
		status fleet.Status
		err    error
	}
	run := func(ctx context.Context, force bool) chan end {
		ended := make(chan end, 1)
		go func() {
			s, err := w.engine.Run(ctx, w.fleet, fleet.RunOptions{Cells: w.fleet.Cells, Force: force})
			ended <- end{s, err}
		}()
		return ended
	}
	ended := run(t.Context(), false)
	w.wait("provisioners have begun", func() bool { return w.begun() >= 4 })
	kill(t, first)
	kill(t, w.server)
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.serve()
	w.worker()
	e := <-ended
	if e.err != nil || e.status.State != fleet.StateDone {
		t.Errorf("%s, %v", e.status.State, e.err)
	}
	for _, c := range e.status.Cells {
		if c.Outcome == nil || c.Outcome.Result != fleet.Built || c.Outcome.Image.ID == "" {
			t.Errorf("%s: %+v", c.Cell.Short(), c.Outcome)
		}
	}
	if left, images := w.machines(); len(left) > 0 || images != 12 {
		t.Errorf("%d images; left: %q", images, left)
	}

	saved := func(how string) {
		w.save(map[string]string{"fleet-" + how: fleetID(w.fleet.Name), "bake-" + how: w.fleet.Cells[0].ID()})
	}
	saved("done")

	// Cancelled midway, it is torn down within seconds.
	if err := errors.Join(os.Remove(filepath.Join(w.dir, "go")), os.Remove(filepath.Join(w.dir, "begun"))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended = run(ctx, true)
	w.wait("provisioners have begun again", func() bool { return w.begun() >= 4 })
	at := time.Now()
	cancel()
	e = <-ended
	t.Logf("torn down %s after it was cancelled", time.Since(at))
	if e.err != nil || e.status.State != fleet.StateCancelled {
		t.Errorf("%s, %v", e.status.State, e.err)
	}
	if left, images := w.machines(); len(left) > 0 || images != 12 {
		t.Errorf("%d images; left: %q", images, left)
	}
	saved("cancelled")
}

// TestApply: schedules are created, updated and deleted as the template says, and the service
// takes the queries of the janitor.
func TestApply(t *testing.T) {
	w := newReal(t, strings.ReplaceAll(fleetSource, "NAME", "base")+`build { sources = ["amazon-ebs.base"] }`,
		regexp.MustCompile(`(?m)^image "(web|db)".*\n`).ReplaceAllString(strings.Replace(fleetBakefile, "[image.base, image.web, image.db]", "[image.base]", 1), ""))
	w.serve()
	ctx := t.Context()
	apply := func(s *fleet.Schedule, want ...string) {
		t.Helper()
		w.fleet.Schedule = s
		done, err := w.engine.Apply(ctx, w.fleet, false)
		said := done.Changes
		if err != nil || !slices.Equal(said[max(0, len(said)-len(want)):], want) {
			t.Errorf("%q, %v, want %q", said, err, want)
		}
	}
	apply(nil, "Created the schedule janitor/nightly: every hour.")
	if text, err := os.ReadFile("../../docs/fleets.md"); err != nil || !strings.Contains(string(text), "Created the search attributes "+strings.Join(attributeNames, ", ")+".") {
		t.Errorf("docs/fleets.md names other search attributes: %v", err)
	}
	s := &fleet.Schedule{Cron: "30 2 * * *", Overlap: "skip"}
	apply(s, "Created the schedule fleet/nightly: 30 2 * * * in UTC.", "Updated the schedule janitor/nightly: every hour.")
	c, err := w.engine.dial(ctx, w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	schedule := func(at, paused string) {
		t.Helper()
		begins, why := next(ctx, c.ScheduleClient(), w.fleet)
		if text := begins.UTC().Format("15:04"); at != "" && text != at || begins.IsZero() != (at == "") || why != paused {
			t.Errorf("the next run begins at %s, %q, want %s, %q", begins, why, at, paused)
		}
	}
	schedule("02:30", "")
	// A pause affects the schedule, but not a user who runs the fleet: the run waits for its
	// workers.
	if err := w.engine.Pause(ctx, w.fleet); err != nil {
		t.Error(err)
	}
	schedule("", "bake fleet pause")
	asked, stop := context.WithCancel(ctx)
	begun := make(chan error, 1)
	go func() {
		_, err := w.engine.Run(asked, w.fleet, fleet.RunOptions{Cells: w.fleet.Cells})
		begun <- err
	}()
	w.wait("a paused fleet is run", func() bool {
		s, err := w.engine.Status(ctx, w.fleet)
		return err == nil && s.State == fleet.StateRunning && s.SchedulePaused == "bake fleet pause"
	})
	w.worker() // which cancels it
	stop()
	if err := <-begun; err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := w.engine.Unpause(ctx, w.fleet); err != nil {
		t.Error(err)
	}
	schedule("02:30", "")
	if found, err := (&activities{client: c}).findOrphans(ctx, orphansIn{"nightly", time.Now()}); err != nil || len(found) > 0 {
		t.Errorf("the orphans: %v, %v", found, err)
	}
	apply(nil, "Deleted the schedule fleet/nightly.", "Updated the schedule janitor/nightly: every hour.")
	schedule("", "")

	// The template has a different fleet: the resources of the old one are deleted only on
	// request.
	apply(s, "Created the schedule fleet/nightly: 30 2 * * * in UTC.", "Updated the schedule janitor/nightly: every hour.")
	other, elsewhere := *w.fleet, *w.fleet
	other.Name, other.Fleets = "weekly", []string{"weekly"}
	elsewhere.Name, elsewhere.Fleets, elsewhere.Dir = "daily", []string{"daily"}, "/elsewhere"
	if done, err := w.engine.Apply(ctx, &elsewhere, true); err != nil || len(done.Stale) > 0 {
		t.Errorf("another template: %+v, %v", done, err)
	}
	old := []string{"fleet/nightly", "janitor/nightly"}
	var done fleet.Applied
	w.wait("the old schedules are listed", func() bool {
		done, err = w.engine.Apply(ctx, &other, false)
		return err != nil || len(done.Stale) > 0
	})
	if err != nil || !slices.Equal(done.Stale, old) {
		t.Errorf("%+v, %v", done, err)
	}
	done, err = w.engine.Apply(ctx, &other, true)
	if want := "Deleted the schedule fleet/nightly. Deleted the schedule janitor/nightly."; err != nil || len(done.Stale) > 0 || !strings.HasSuffix(strings.Join(done.Changes, " "), want) {
		t.Errorf("%+v, %v", done, err)
	}
	w.wait("they are gone, and those of another template are not", func() bool {
		left, err := stale(ctx, c, &fleet.Fleet{Dir: w.fleet.Dir})
		others, oerr := stale(ctx, c, &fleet.Fleet{Dir: "/elsewhere"})
		return err == nil && oerr == nil && slices.Equal(left, []string{"fleet/weekly", "janitor/weekly"}) && slices.Equal(others, []string{"fleet/daily", "janitor/daily"})
	})
}

// TestNobodyWorks: commands report a missing namespace and queues that no worker polls. A
// worker gets no tasks of a fleet that it does not work for.
func TestNobodyWorks(t *testing.T) {
	template := strings.ReplaceAll(fleetSource, "NAME", "base") + `build { sources = ["amazon-ebs.base"] }`
	block := `
image "base" { sources = ["amazon-ebs.base"] }
fleet "FLEET" {
  images = [image.base]
  matrix {
    account = ["123456789012"]
    region  = ["eu-west-1"]
  }
  role = "arn:aws:iam::123456789012:role/bake-build"
}
`
	_, engine, _ := strings.Cut(fleetBakefile, "engine")
	w := newReal(t, template, strings.ReplaceAll(block, "FLEET", "nightly")+strings.ReplaceAll(strings.Replace(block, `image "base" { sources = ["amazon-ebs.base"] }`, "", 1), "FLEET", "weekly")+"engine"+engine)
	ctx := t.Context()
	options := fleet.RunOptions{Cells: w.fleet.Cells}
	elsewhere, temporal := *w.fleet, *w.fleet.Engine
	elsewhere.Engine, temporal.Namespace = &temporal, "nowhere"
	cell := elsewhere.Cells[0]
	calls := map[string]func() error{
		"apply": func() error { _, err := w.engine.Apply(ctx, &elsewhere, false); return err },
		"run":   func() error { _, err := w.engine.Run(ctx, &elsewhere, options); return err },
		"resume": func() error {
			_, err := w.engine.Run(ctx, &elsewhere, fleet.RunOptions{Resume: "last"})
			return err
		},
		"status":  func() error { _, err := w.engine.Status(ctx, &elsewhere); return err },
		"logs":    func() error { return w.engine.Logs(ctx, &elsewhere, cell, func(step.Event) {}) },
		"cancel":  func() error { return w.engine.Cancel(ctx, &elsewhere) },
		"pause":   func() error { return w.engine.Pause(ctx, &elsewhere) },
		"unpause": func() error { return w.engine.Unpause(ctx, &elsewhere) },
		"approve": func() error { return w.engine.Approve(ctx, &elsewhere, fleet.Approval{Cell: cell}) },
		"worker":  func() error { return w.engine.Work(ctx, fleet.WorkerOptions{Fleets: []*fleet.Fleet{&elsewhere}}) },
	}
	var unreachable sync.WaitGroup
	for what, call := range calls {
		unreachable.Go(func() {
			if err := call(); err == nil || !strings.Contains(err.Error(), "the Temporal service at "+w.address+" cannot be reached") || !strings.Contains(err.Error(), "check address and tls of the engine block") {
				t.Errorf("%s without the service: %v", what, err)
			}
		})
	}
	unreachable.Wait()
	w.serve()
	for what, call := range calls {
		if err := call(); err == nil || !strings.Contains(err.Error(), "create it with: temporal operator namespace create --address "+w.address+" --namespace nowhere") {
			t.Errorf("%s without the namespace: %v", what, err)
		}
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := w.engine.Run(ctx, w.fleet, options)
		ended <- err
	}()
	status := func() fleet.Status {
		s, err := w.engine.Status(t.Context(), w.fleet)
		if err != nil && !errors.Is(err, fleet.ErrNoRun) {
			t.Fatal(err)
		}
		return s
	}
	var s fleet.Status
	w.wait("the run has begun", func() bool { s = status(); return s.Run != "" })
	if len(s.Cells) != 1 || s.State != fleet.StateRunning || !slices.Equal(s.Unpolled, []string{"bake/nightly"}) {
		t.Errorf("without a worker: %+v", s)
	}
	t.Setenv(workerFleets, "weekly")
	w.worker()
	time.Sleep(5 * time.Second) // a worker takes what there is at once
	if s := status(); s.Cells[0].State != fleet.StateWaiting || !slices.Equal(s.Unpolled, []string{"bake/nightly"}) {
		t.Errorf("with a worker for another fleet: %+v", s)
	}
	t.Setenv(workerFleets, "nightly")
	t.Setenv(workerRegions, "us-west-2,eu-west-1")
	w.worker()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if s := status(); s.State != fleet.StateDone || len(s.Unpolled) > 0 {
		t.Errorf("with a worker: %+v", s)
	}
}

// TestLogsOfAnotherHost: a host that has only the template can show what a worker elsewhere does
// and has done.
func TestLogsOfAnotherHost(t *testing.T) {
	template := strings.ReplaceAll(fleetSource, "NAME", "base") + strings.Replace(fleetTemplate, `, "amazon-ebs.web", "amazon-ebs.db"`, "", 1)
	bakefile := regexp.MustCompile(`(?m)^image "(web|db)".*\n`).ReplaceAllString(strings.Replace(fleetBakefile, "[image.base, image.web, image.db]", "[image.base]", 1), "")
	w := newReal(t, template, "bake { reports = \"s3://acme-images/nightly\" }\n"+bakefile)
	if _, err := s3.NewFromConfig(w.Config("default", "us-east-1"), func(o *s3.Options) { o.UsePathStyle = true }).CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("acme-images")}); err != nil {
		t.Fatal(err)
	}
	w.serve()
	cell := w.fleet.Cells[0]
	logs := func() string {
		var b strings.Builder
		err := w.engine.Logs(t.Context(), w.fleet, cell, func(e step.Event) { fmt.Fprintln(&b, e.Kind, e.Step, e.Text) })
		if err != nil {
			fmt.Fprintln(&b, err)
		}
		return b.String()
	}
	if text := logs(); !strings.Contains(text, fleet.ErrNoRun.Error()) {
		t.Errorf("before there is a run: %s", text)
	}
	w.worker()
	ended := make(chan error, 1)
	go func() {
		_, err := w.engine.Run(t.Context(), w.fleet, fleet.RunOptions{Cells: []fleet.Cell{cell}})
		ended <- err
	}()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	w.wait("the log tells what was done and what goes on", func() bool {
		text := logs()
		return strings.Contains(text, " one\n") && strings.Contains(text, "A stage is under way on "+host+": ")
	})
	// A concurrent run of the schedule, which is allowed, does not bake the cell again either.
	c, err := w.engine.dial(t.Context(), w.fleet)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	beside, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: fleetID("nightly") + "-2026-01-01T02:30:00Z", TaskQueue: workflowQueue("nightly")}, fleetWorkflow, input(w.fleet, []fleet.Cell{cell}))
	var other fleet.Status
	if err == nil {
		err = beside.Get(t.Context(), &other)
	}
	if err != nil || other.State != fleet.StateFailed || other.Cells[0].Outcome.Error != "the cell is being baked by another run of the fleet" {
		t.Errorf("a run beside it: %+v, %v", other, err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "go"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	text := logs()
	for _, want := range []string{" one\n", "build-finished", "artifact"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
}

// TestApproveByCommand: an image whose channel requires an approval waits for it, is approved
// with the program, once and only with a name, and enters the channel.
func TestApproveByCommand(t *testing.T) {
	_, engine, _ := strings.Cut(fleetBakefile, "engine")
	w := newReal(t, strings.ReplaceAll(fleetSource, "NAME", "base")+`build { sources = ["amazon-ebs.base"] }`, `
image "base" {
  sources = ["amazon-ebs.base"]
  channel "candidate" {}
  channel "stable" {
    from     = "candidate"
    soak     = "5s"
    approval = true
  }
  channel "partners" {
    approval = true
  }
}
fleet "nightly" {
  images = [image.base]
  matrix {
    account = ["123456789012"]
    region  = ["eu-west-1"]
  }
  role = "arn:aws:iam::${each.account}:role/bake-build"
}
engine`+engine)
	w.serve()
	t.Setenv("BAKE_CLOUD_INIT_TIMEOUT", "0")
	program := filepath.Join(w.dir, "bake-worker")
	if out, err := exec.Command("go", "build", "-tags", "temporal", "-ldflags=-w", "-o", program, "bake/cmd/bake").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	command := func(state string, args ...string) *exec.Cmd {
		c := exec.Command(program, args...)
		c.Dir, c.Env = w.dir, append(os.Environ(), "BAKE_STATE_DIR="+filepath.Join(w.dir, state))
		return c
	}
	bake := func(want string, fails bool, args ...string) {
		t.Helper()
		out, err := command("client", append([]string{"fleet"}, args...)...).CombinedOutput()
		if (err != nil) != fails || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v, want %q:\n%s", args, err, want, out)
		}
	}
	channel := func(name string) string {
		out, err := ssm.NewFromConfig(w.Config("default", "eu-west-1")).GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/bake/base/" + name)})
		if err != nil {
			return ""
		}
		return aws.ToString(out.Parameter.Value)
	}
	bake("Created the search attributes", false, "apply")
	w.start(command("worker", "worker"))
	const cell = "base/123456789012/eu-west-1"
	bake("bake fleet approve nightly/"+cell+" stable -by NAME", false, "run", "nightly")
	if channel("candidate") == "" || channel("stable") != "" {
		t.Fatalf("candidate names %q, and stable %q", channel("candidate"), channel("stable"))
	}
	bake("waits for approval for stable", false, "status", "nightly")
	first := channel("candidate")
	bake("reused", false, "run", "nightly") // which makes the image wait again
	if channel("candidate") != first || channel("stable") != "" {
		t.Errorf("after a run that has reused the image, candidate names %q, and stable %q", channel("candidate"), channel("stable"))
	}
	bake("waits for approval for stable", false, "status", "nightly")
	bake("no fleet has a cell", true, "approve", "web/123456789012/eu-west-1", "stable", "-by", "ann")
	bake(`has no channel "beta"`, true, "approve", cell, "beta", "-by", "ann")
	bake("does not use approval", true, "approve", cell, "candidate", "-by", "ann")
	bake("name the approver", true, "approve", cell, "stable")
	if channel("stable") != "" {
		t.Error("it was not approved, and is in the channel")
	}
	bake("is approved for channel stable", false, "approve", cell, "stable", "-by", "ann")
	bake("wait", true, "approve", cell, "stable", "-by", "bob")
	w.wait("the channel names the image", func() bool { return channel("stable") == channel("candidate") })
	if channel("partners") != "" {
		t.Error("it was approved for another channel, and is in partners")
	}
	bake("is approved for channel partners", false, "approve", cell, "partners", "-by", "ann")
	w.wait("the channel that comes after none names the image", func() bool { return channel("partners") == channel("candidate") })
	w.wait("nothing is waited for any more", func() bool {
		out, err := command("client", "fleet", "status", "nightly").CombinedOutput()
		return err == nil && !strings.Contains(string(out), "soaking") && !strings.Contains(string(out), "wait")
	})
	bake("is not being run, and no image of it waits", true, "cancel", "nightly")
	w.save(map[string]string{"approval-again": "approval/nightly/" + cell + "/" + first})
}

// save stores histories of workflows for the replay test under file names, if requested, without
// the sealed states of runs, which workflows do not read. If a workflow continued as another one,
// that is stored too.
func (w *real) save(workflows map[string]string) {
	dir := os.Getenv("BAKE_SAVE_HISTORIES")
	if dir == "" {
		return
	}
	for file, id := range workflows {
		if before := w.saveRun(filepath.Join(dir, file+".json.gz"), "--workflow-id", id); before != "" {
			w.saveRun(filepath.Join(dir, file+"-before.json.gz"), "--workflow-id", id, "--run-id", before)
		}
	}
}

// saveRun stores the history of a run of a workflow, and returns the run that continued it, if
// any.
func (w *real) saveRun(path string, of ...string) (before string) {
	c := exec.Command(os.Getenv(serverVar), append([]string{"workflow", "show", "--address", w.address, "--output", "json"}, of...)...)
	text, err := c.Output()
	if err != nil {
		w.t.Fatal(err)
	}
	text = regexp.MustCompile(`"identity": *"[^"]*"`).ReplaceAll(text, []byte(`"identity": "worker"`))
	h, err := client.HistoryFromJSON(bytes.NewReader(text), client.HistoryJSONOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := slim(w.t.Context(), h); err != nil {
		w.t.Fatal(err)
	}
	if text, err = protojson.Marshal(h); err != nil {
		w.t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(text); err != nil {
		w.t.Fatal(err)
	}
	if err := errors.Join(z.Close(), os.WriteFile(path, packed.Bytes(), 0o600)); err != nil {
		w.t.Fatal(err)
	}
	return h.GetEvents()[0].GetWorkflowExecutionStartedEventAttributes().GetContinuedExecutionRunId()
}

// slim removes the sealed states of runs from a history.
func slim(ctx context.Context, h *history.History) error {
	state := regexp.MustCompile(`"state":"[A-Za-z0-9+/=]{40,}"`)
	return proxy.VisitPayloads(ctx, h, proxy.VisitPayloadsOptions{Visitor: func(_ *proxy.VisitPayloadsContext, all []*common.Payload) ([]*common.Payload, error) {
		clear, err := packer{}.Decode(all)
		for _, p := range clear {
			p.Data = state.ReplaceAll(p.Data, []byte(`"state":"c2VhbGVk"`))
		}
		return clear, err
	}})
}
