package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"bake/engine"
	"bake/step"
)

func withMeta(meta string) string {
	return `
source "machine" "web" {}
build {
  sources = ["source.machine.web"]
  provisioner "run" {
    script = "it"
    ` + meta + `
  }
}
`
}

// hang is a provisioner's work that ends only with its context.
func hang(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestMetaArguments(t *testing.T) {
	tests := []struct {
		name    string
		meta    string
		act     func(ctx context.Context, attempt int) error // of the provisioner; attempts count from 1
		want    string                                       // in the error; empty: success
		runs    int
		elapsed time.Duration
	}{
		{name: "none", act: succeed, runs: 1},
		{name: "pause", meta: `pause_before = "30s"`, act: succeed, runs: 1, elapsed: 30 * time.Second},
		{name: "timeout", meta: `timeout = "2m"`, act: func(ctx context.Context, _ int) error { return hang(ctx) },
			want: "not finished after its timeout of 2m0s", runs: 1, elapsed: 2 * time.Minute},
		{name: "timeout in time", meta: `timeout = "2m"`, act: succeed, runs: 1},
		{name: "pause and timeout", meta: `
			pause_before = "1m"
			timeout      = "30s"`, act: succeed, runs: 1, elapsed: time.Minute},
		{name: "retries", meta: `max_retries = 3`, act: failUntil(3), runs: 3},
		{name: "retries used up", meta: `max_retries = 2`, act: failUntil(9), want: "attempt 3 failed", runs: 3},
		{name: "retries with pause and timeout", meta: `
			max_retries  = 1
			pause_before = "10s"
			timeout      = "20s"`, act: func(ctx context.Context, n int) error {
			if n == 1 {
				return hang(ctx)
			}
			return nil
		}, runs: 2, elapsed: 40 * time.Second},
		{name: "no retries", act: failUntil(2), want: "attempt 1 failed", runs: 1},
		{name: "continue on error", meta: `continue_on_error = true`, act: failUntil(9), runs: 1},
		{name: "retries, then continue", meta: `
			continue_on_error = true
			max_retries       = 1`, act: failUntil(9), runs: 2},
		{name: "null", meta: `
			timeout     = null
			max_retries = null`, act: succeed, runs: 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t, withMeta(test.meta))
				runs := 0
				f.world.act = func(ctx context.Context, what string) error {
					if what != "run it" {
						return nil
					}
					runs++
					return test.act(ctx, runs)
				}
				begin := time.Now()
				r := f.one(t.Context())
				if got := time.Since(begin); got != test.elapsed {
					t.Errorf("took %s, want %s", got, test.elapsed)
				}
				if runs != test.runs {
					t.Errorf("ran %d times, want %d", runs, test.runs)
				}
				switch {
				case test.want == "" && r.Err != nil:
					t.Errorf("error: %v", r.Err)
				case test.want != "" && (r.Err == nil || !strings.Contains(r.Err.Error(), test.want)):
					t.Errorf("error %v, want %q", r.Err, test.want)
				}
			})
		})
	}
}

func succeed(context.Context, int) error { return nil }

// failUntil fails until the given attempt.
func failUntil(n int) func(context.Context, int) error {
	return func(_ context.Context, attempt int) error {
		if attempt < n {
			return fmt.Errorf("attempt %d failed", attempt)
		}
		return nil
	}
}

// TestCancelDuring checks that pauses, retries and continue_on_error do not delay a cancellation.
func TestCancelDuring(t *testing.T) {
	for _, meta := range []string{`pause_before = "1h"`, `timeout = "1h"`, `max_retries = 5`, `continue_on_error = true`} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, withMeta(meta))
			f.world.act = func(ctx context.Context, what string) error {
				if what == "run it" {
					return hang(ctx)
				}
				return nil
			}
			interrupted := errors.New("interrupted")
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, interrupted)
			defer cancel()
			begin := time.Now()
			if r := f.one(ctx); !errors.Is(r.Err, interrupted) {
				t.Errorf("%s: %v", meta, r.Err)
			}
			if got := time.Since(begin); got != time.Minute {
				t.Errorf("%s: ended after %s", meta, got)
			}
		})
	}
}

// TestAsk checks that the user can retry a failed step or decide what happens to the machine.
func TestAsk(t *testing.T) {
	tests := []struct {
		answers []engine.Answer
		runs    int
		left    int
		ok      bool
	}{
		{answers: []engine.Answer{engine.AnswerRetry, engine.AnswerRetry}, runs: 3, ok: true},
		{answers: []engine.Answer{engine.AnswerCleanUp}, runs: 1},
		{answers: []engine.Answer{engine.AnswerRetry, engine.AnswerAbort}, runs: 2, left: 2},
	}
	for _, test := range tests {
		f := newFixture(t, withMeta(""))
		f.options.OnError = engine.Ask
		runs := 0
		f.world.act = func(ctx context.Context, what string) error {
			if what != "run it" {
				return nil
			}
			runs++
			return failUntil(3)(ctx, runs)
		}
		asked := 0
		f.options.Ask = func(_ context.Context, build, name string, err error) engine.Answer {
			if build != "machine.web" || name != "provision with run" || !strings.Contains(err.Error(), "failed") {
				t.Errorf("asked about %q, %q, %v", build, name, err)
			}
			asked++
			return test.answers[asked-1]
		}
		r := f.one(t.Context())
		if (r.Err == nil) != test.ok || runs != test.runs || len(r.Left) != test.left || asked != len(test.answers) {
			t.Errorf("%v: error %v, %d runs, %d left, asked %d times", test.answers, r.Err, runs, len(r.Left), asked)
		}
	}
}

// TestPause: with -debug every step waits for the user.
func TestPause(t *testing.T) {
	f := newFixture(t, simple)
	f.options.Run.Debug = true
	var steps []string
	f.options.Pause = func(_ context.Context, _, name string) error {
		steps = append(steps, name)
		return nil
	}
	f.one(t.Context())
	want := []string{"create key", "create instance", "provision with run", "create image", "wait for the image",
		"destroy instance id-instance", "destroy key id-key"}
	if !slices.Equal(steps, want) {
		t.Errorf("paused before %q, want %q", steps, want)
	}
}

// TestKeep checks which artifacts are kept in chains of post-processors.
func TestKeep(t *testing.T) {
	const (
		discard = ""
		kept    = "keep = 1\n"
		must    = "keep = 2\n"
		yes     = "keep_input_artifact = true\n"
		no      = "keep_input_artifact = false\n"
		nothing = "nothing = true\n"
	)
	pp := func(lines ...string) string {
		return "post-processor \"turn\" {\n" + strings.Join(lines, "") + "}\n"
	}
	into := func(id string) string { return fmt.Sprintf("into = %q\n", id) }
	chain := func(pps ...string) string { return "post-processors {\n" + strings.Join(pps, "") + "}\n" }
	tests := []struct {
		name   string
		blocks string
		want   string // ids of the artifacts in order; all others are destroyed
		fail   string // action that fails
	}{
		{name: "none", want: "img-1"},
		{name: "discard", blocks: pp(discard, into("a")), want: "a"},
		{name: "discard, user keeps", blocks: pp(discard, yes, into("a")), want: "img-1 a"},
		{name: "kept", blocks: pp(kept, into("a")), want: "img-1 a"},
		{name: "kept, user discards", blocks: pp(kept, no, into("a")), want: "a"},
		{name: "must keep, user discards", blocks: pp(must, no, into("a")), want: "img-1 a"},
		{name: "passed on", blocks: pp(must), want: "img-1"},
		{name: "passed on, not kept", blocks: pp(discard), want: "img-1"},
		{name: "chain discards", blocks: chain(pp(into("a")), pp(into("b"))), want: "b"},
		{name: "chain keeps the middle", blocks: chain(pp(into("a")), pp(yes, into("b"))), want: "a b"},
		{name: "chain keeps all", blocks: chain(pp(yes, into("a")), pp(yes, into("b"))), want: "img-1 a b"},
		{name: "chain passes on", blocks: chain(pp(into("a")), pp(discard)), want: "a"},
		{name: "two chains, one keeps", blocks: pp(into("a")) + pp(kept, into("b")), want: "img-1 a b"},
		{name: "two chains, none keeps", blocks: pp(into("a")) + pp(into("b")), want: "a b"},
		{name: "nothing", blocks: pp(nothing), want: ""},
		{name: "nothing, kept", blocks: pp(nothing, kept), want: "img-1"},
		{name: "nothing ends the chain", blocks: chain(pp(nothing), pp(into("a"))), want: ""},
		{name: "failure keeps the input", blocks: pp(into("a")), fail: "turn img-1 into a", want: "img-1"},
		{name: "failure in the chain", blocks: chain(pp(into("a")), pp(into("b"))), fail: "turn a into b", want: "img-1 a"},
		{name: "failure spares other chains", blocks: pp(into("a")) + pp(into("b")), fail: "turn img-1 into a", want: "img-1 b"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, "source \"machine\" \"web\" {}\nbuild {\nsources = [\"machine.web\"]\n"+test.blocks+"}\n")
			f.world.act = func(_ context.Context, what string) error {
				if what == test.fail {
					return errInjected
				}
				return nil
			}
			r := f.one(t.Context())
			if (r.Err != nil) != (test.fail != "") {
				t.Errorf("error: %v", r.Err)
			}
			var ids, keys []string
			for _, a := range r.Artifacts {
				ids = append(ids, a.ID)
				for _, res := range a.Resources {
					keys = append(keys, res.Key)
				}
			}
			if got := strings.Join(ids, " "); got != test.want {
				t.Errorf("artifacts %q, want %q", got, test.want)
			}
			if got := f.world.existing(); !sameSet(got, keys) {
				t.Errorf("%v exists, want %v", got, keys)
			}
		})
	}
}

// TestSecrets checks that no secret is displayed, wherever it occurs.
func TestSecrets(t *testing.T) {
	f := newFixture(t, `
variable "token" {
  type      = string
  sensitive = true
}
local "derived" {
  sensitive  = true
  expression = "derived-of-data-${data.look.x.id}"
}
data "look" "x" {
  name = "thing"
}
source "machine" "web" {
  image    = var.token
  password = "hunter22"
  say      = "token ${var.token}, derived ${local.derived}, password hunter22"
}
build {
  sources = ["source.machine.web"]
  provisioner "run" {
    script = "echo ${var.token}"
  }
  post-processor "turn" {}
}
`, "token=s3cr3t-line\nsecond-line")
	f.world.act = func(_ context.Context, what string) error {
		if strings.HasPrefix(what, "turn") {
			return errors.New("cannot use second-line or hunter22")
		}
		return nil
	}
	r := f.one(t.Context())
	all := f.transcript() + r.Err.Error() + fmt.Sprint(r.Artifacts[0])
	for _, secret := range []string{"s3cr3t-line", "second-line", "hunter22", "derived-of-data"} {
		if strings.Contains(all, secret) {
			t.Errorf("%q comes out in\n%s", secret, all)
		}
	}
	if !strings.Contains(all, "token <sensitive>, derived <sensitive>, password <sensitive>") {
		t.Errorf("no mask in\n%s", all)
	}
}

// TestParallel checks that the limit on concurrent builds is respected and that results are in
// template order.
func TestParallel(t *testing.T) {
	for limit, want := range map[int]int{0: 5, 1: 1, 2: 2} {
		synctest.Test(t, func(t *testing.T) {
			f := newFixture(t, `
locals { names = ["a", "b", "c", "d", "e"] }
source "machine" "web" {}
build {
  dynamic "source" {
    for_each = local.names
    labels   = ["machine.web"]
    content { name = source.value }
  }
}
`)
			f.options.Parallel = limit
			now, most := 0, 0
			f.world.act = func(_ context.Context, what string) error {
				if what == "create key" {
					f.world.mu.Lock()
					now++
					most = max(most, now)
					f.world.mu.Unlock()
					time.Sleep(time.Minute)
					f.world.mu.Lock()
					now--
					f.world.mu.Unlock()
				}
				return nil
			}
			result, diags := f.run(t.Context())
			if diags.HasErrors() {
				t.Fatal(diags)
			}
			var names []string
			for _, b := range result.Builds {
				names = append(names, b.Name)
			}
			if got := strings.Join(names, " "); got != "machine.a machine.b machine.c machine.d machine.e" {
				t.Errorf("results of %s", got)
			}
			if most != want {
				t.Errorf("limit %d: %d builds at a time, want %d", limit, most, want)
			}
		})
	}
}

// TestCancelBeforeTurn: waiting builds do not start after a cancellation.
func TestCancelBeforeTurn(t *testing.T) {
	f := newFixture(t, `
source "machine" "a" {}
source "machine" "b" {}
build { sources = ["machine.a", "machine.b"] }
`)
	f.options.Parallel = 1
	ctx, cancel := context.WithCancelCause(t.Context())
	f.world.act = func(context.Context, string) error { cancel(errInjected); return errInjected }
	result, _ := f.run(ctx)
	if len(f.world.log) != 1 || !errors.Is(result.Builds[1].Err, errInjected) {
		t.Errorf("%v; %v", f.world.log, result.Builds[1].Err)
	}
}

// TestFailFast checks that the first failure cancels running and waiting builds, and is not
// reported as a cancellation of the run.
func TestFailFast(t *testing.T) {
	for _, fast := range []bool{true, false} {
		f := newFixture(t, `
source "machine" "a" {}
source "machine" "b" {}
source "machine" "c" {}
build {
  sources = ["machine.a", "machine.b", "machine.c"]
  provisioner "run" { script = source.name }
}
`)
		f.options.Parallel, f.options.FailFast = 2, fast
		running := make(chan struct{})
		f.world.act = func(ctx context.Context, what string) error {
			switch {
			case what == "run a" && fast:
				close(running)
				return hang(ctx)
			case what == "run b":
				if fast {
					<-running
				}
				return errInjected
			}
			return nil
		}
		var end error
		f.options.Emit = func(e step.Event) {
			if e.Kind == step.RunFinished {
				end = e.Error
			}
		}
		result, _ := f.run(t.Context())
		if err := result.Builds[1].Err; !errors.Is(err, errInjected) {
			t.Errorf("fast %v: the build that fails: %v", fast, err)
		}
		for _, i := range []int{0, 2} {
			cause, ok := errors.AsType[*engine.FailFastError](result.Builds[i].Err)
			if ok != fast || ok && (cause.Build != "machine.b" || !errors.Is(cause.Err, errInjected)) {
				t.Errorf("fast %v: build %d: %v", fast, i, result.Builds[i].Err)
			}
		}
		if end != nil {
			t.Errorf("fast %v: the run ended with %v", fast, end)
		}
	}
}

// TestInvalidBuildsAreLeftOut checks that a build that cannot be prepared is reported, and that the
// others run.
func TestInvalidBuildsAreLeftOut(t *testing.T) {
	f := newFixture(t, `
source "machine" "good" {}
source "machine" "bad" { imgae = "x" }
build { sources = ["machine.good", "machine.bad"] }
`)
	result, diags := f.run(t.Context())
	if !diags.HasErrors() || diags[0].Summary != "Unsupported argument" {
		t.Errorf("diagnostics: %v", diags)
	}
	if len(result.Builds) != 1 || result.Builds[0].Name != "machine.good" || result.Builds[0].Err != nil {
		t.Errorf("builds: %+v", result.Builds)
	}
}

// TestBuildValues checks the values of build.* in provisioners and post-processors.
func TestBuildValues(t *testing.T) {
	f := newFixture(t, `
source "machine" "web" {}
build {
  name    = "grp"
  sources = ["machine.web"]
  provisioner "run" {
    script = "${build.name} ${source.type}.${source.name} ${build.ID} ${build.Port + 1} ${build.Extra} ${build.PackerHTTPIP} ${build.PackerRunUUID} {{build_name}} {{build_type}} {{timestamp}}"
  }
  post-processors {
    post-processor "turn" { into = "a" }
    post-processor "turn" { into = "${build.ID}-${build.Host}" }
  }
}
`)
	if r := f.one(t.Context()); r.Err != nil {
		t.Fatal(r.Err)
	}
	want := []string{
		"run grp machine.web i-1 23 <unknown> ERR_HTTP_IP_NOT_IMPLEMENTED_BY_BUILDER run-1 web machine 1767323045",
		"turn img-1 into a",
		"turn a into i-1-<unknown>",
	}
	for _, w := range want {
		if !slices.Contains(f.world.log, w) {
			t.Errorf("no %q in %q", w, f.world.log)
		}
	}
}

// TestDataOnDemand: a data source runs once, and only for the builds that are run.
func TestDataOnDemand(t *testing.T) {
	const text = `
data "look" "a" { name = "a" }
data "look" "b" { name = "b-${data.look.a.id}" }
data "look" "unused" { name = "unused" }
locals {
  image = data.look.b.id
  other = data.look.unused.id
}
source "machine" "one" { image = local.image }
source "machine" "two" { image = "${local.image}-2" }
source "machine" "three" {}
build { sources = ["machine.one", "machine.two", "machine.three"] }
`
	for only, want := range map[string][]string{
		"machine.three": nil,
		"machine.t*":    {"look up a", "look up b-found-a"},
		"*":             {"look up a", "look up b-found-a"},
	} {
		f := newFixture(t, text)
		f.options.Only = []string{only}
		result, diags := f.run(t.Context())
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		for _, b := range result.Builds {
			if b.Err != nil {
				t.Error(b.Err)
			}
		}
		var got []string
		for _, what := range f.world.log {
			if strings.HasPrefix(what, "look") {
				got = append(got, what)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("-only=%s: %q, want %q", only, got, want)
		}
	}
}

// TestDataFails checks that the failure of a data source is reported once, at its block, and stops
// the builds that need it.
func TestDataFails(t *testing.T) {
	f := newFixture(t, `
data "look" "a" { name = "a" }
source "machine" "one" { image = data.look.a.id }
source "machine" "two" { image = data.look.a.id }
source "machine" "three" {}
build { sources = ["machine.one", "machine.two", "machine.three"] }
`)
	f.world.act = func(_ context.Context, what string) error {
		if strings.HasPrefix(what, "look") {
			return errInjected
		}
		return nil
	}
	result, diags := f.run(t.Context())
	if len(diags) != 1 || diags[0].Summary != "Data source failed" || diags[0].Subject.Start.Line != 2 {
		t.Errorf("diagnostics: %v", diags)
	}
	if len(result.Builds) != 1 || result.Builds[0].Name != "machine.three" {
		t.Errorf("builds: %v", result.Builds)
	}
}

func TestChoose(t *testing.T) {
	const text = `
source "machine" "one" {}
source "machine" "two" {}
build {
  name    = "grp"
  sources = ["machine.one", "machine.two"]
  post-processors {
    post-processor "turn" { into = "a" }
    post-processor "turn" {
      name = "named"
      into = "b"
    }
    post-processor "turn" { into = "c" }
  }
}
build { sources = ["machine.one"] }
`
	tests := []struct {
		only, except []string
		want         string
		warn, err    string
		last         string // the last artifact of the first build
	}{
		{want: "grp.machine.one grp.machine.two machine.one", last: "c"},
		{only: []string{"machine.one"}, want: "machine.one"},
		{only: []string{"*.one"}, want: "grp.machine.one machine.one", last: "c"},
		{only: []string{"grp.*"}, want: "grp.machine.one grp.machine.two", last: "c"},
		{only: []string{"grp.machine.t?o"}, want: "grp.machine.two", last: "c"},
		{only: []string{"grp.machine.[!t]*", "x"}, want: "grp.machine.one", warn: `"x" matches none`, last: "c"},
		{only: []string{"x"}, warn: `"x" matches none`, err: "No builds to run"},
		{except: []string{"grp.*"}, want: "machine.one"},
		{only: []string{"*.one"}, except: []string{"machine.*"}, want: "grp.machine.one", last: "c"},
		{except: []string{"named"}, want: "grp.machine.one grp.machine.two machine.one", last: "a"},
		{except: []string{"turn"}, want: "grp.machine.one grp.machine.two machine.one", last: ""},
		{except: []string{"nope"}, want: "grp.machine.one grp.machine.two machine.one", warn: `"nope" matches none`, last: "c"},
		{only: []string{"[a"}, err: "Invalid pattern in -only"},
	}
	for _, test := range tests {
		f := newFixture(t, text)
		f.options.Only, f.options.Except = test.only, test.except
		result, diags := f.run(t.Context())
		var names []string
		for _, b := range result.Builds {
			names = append(names, b.Name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%q without %q: %q, want %q", test.only, test.except, got, test.want)
		}
		text := ""
		for _, d := range diags {
			text += d.Summary + ": " + d.Detail + "\n"
		}
		for _, want := range []string{test.warn, test.err} {
			if !strings.Contains(text, want) {
				t.Errorf("%q without %q: diagnostics %q, want %q", test.only, test.except, text, want)
			}
		}
		if test.warn == "" && test.err == "" && text != "" {
			t.Errorf("%q without %q: diagnostics %q", test.only, test.except, text)
		}
		if len(result.Builds) > 0 && strings.HasPrefix(result.Builds[0].Name, "grp") {
			want := test.last
			if want == "" {
				want = "img-1"
			}
			artifacts := result.Builds[0].Artifacts
			if got := artifacts[len(artifacts)-1].ID; got != want {
				t.Errorf("%q without %q: last artifact %q, want %q", test.only, test.except, got, want)
			}
		}
	}
}

// TestSameName checks that builds with the same name own their resources separately.
func TestSameName(t *testing.T) {
	f := newFixture(t, `
source "machine" "web" {}
build { sources = ["machine.web", "machine.web"] }
build { sources = ["machine.web"] }
`)
	f.options.Parallel = 1
	f.options.Only = []string{"machine.web"}
	result, diags := f.run(t.Context())
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	var names, keys []string
	for _, b := range result.Builds {
		if b.Err != nil {
			t.Error(b.Err)
		}
		names = append(names, b.Name)
		keys = append(keys, b.Name+"/image")
	}
	if want := []string{"machine.web", "machine.web (2)", "machine.web (3)"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
	if got := f.world.existing(); !sameSet(got, keys) {
		t.Errorf("%q exists, want %q", got, keys)
	}
}

// TestPluginName checks that the name of a required plugin is the prefix of its components.
func TestPluginName(t *testing.T) {
	f := newFixture(t, `
packer {
  required_plugins {
    my-cloud = { source = "example.com/someone/machine", version = ">= 1" }
  }
}
source "my-cloud" "web" {}
build {
  sources = ["my-cloud.web"]
  provisioner "run" { script = "${source.type} ${build.Extra}" }
}
`)
	if r := f.one(t.Context()); r.Err != nil || r.Name != "my-cloud.web" {
		t.Errorf("build %s: %v, want my-cloud.web to succeed", r.Name, r.Err)
	}
	if !slices.Contains(f.world.log, "run my-cloud <unknown>") {
		t.Errorf("log = %q, want run my-cloud <unknown>", f.world.log)
	}
}

// TestMachineSecrets checks that a password that only the builder knows is not displayed.
func TestMachineSecrets(t *testing.T) {
	f := newFixture(t, `
source "machine" "web" { generated = "pass-of-the-machine" }
build {
  sources = ["machine.web"]
  provisioner "run" { script = "login ${build.Password}" }
}
`)
	if r := f.one(t.Context()); r.Err != nil {
		t.Fatal(r.Err)
	}
	if !slices.Contains(f.world.log, "run login pass-of-the-machine") {
		t.Errorf("log = %q, want run login pass-of-the-machine", f.world.log)
	}
	if text := f.transcript(); !strings.Contains(text, "login <sensitive>") || strings.Contains(text, "pass-of") {
		t.Errorf("transcript = %q, want the password masked", text)
	}
}

// TestDiagnosticsHoldNoSecrets checks that neither diagnostics nor their source lines contain
// secrets.
func TestDiagnosticsHoldNoSecrets(t *testing.T) {
	f := newFixture(t, `
variable "pw" {
  sensitive = true
  default   = "hunter22"
}
source "machine" "web" {
  image = "x-${var.pw}" + 1
  say   = "hunter22" + 1
}
build { sources = ["machine.web"] }
`)
	diags := engine.Check(t.Context(), f.template, f.world.components(), f.options)
	if len(diags) != 2 {
		t.Fatal(diags)
	}
	var b strings.Builder
	if err := hcl.NewDiagnosticTextWriter(&b, f.template.Files(), 80, false).WriteDiagnostics(diags); err != nil {
		t.Fatal(err)
	}
	if text := b.String(); strings.Contains(text, "hunter22") || !strings.Contains(text, "********") {
		t.Errorf("output = %q, want the secret masked", text)
	}
}

// TestLeftovers checks that files that a provisioner could not remove from the machine are removed
// before it becomes an image, or that it does not become one.
func TestLeftovers(t *testing.T) {
	const text = `
source "machine" "web" {}
build {
  sources = ["machine.web"]
  provisioner "run" {
    script            = "leave /tmp/varfile"
    continue_on_error = true
  }
  provisioner "run" { script = "last" }
}
`
	for failing, want := range map[string]struct {
		fails bool
		log   []string
	}{
		"run leave /tmp/varfile": {false, []string{"run leave /tmp/varfile", "run last", "remove /tmp/varfile", "create image"}},
		"run last":               {true, []string{"run leave /tmp/varfile", "run last", "remove /tmp/varfile"}},
		"remove /tmp/varfile":    {true, []string{"run leave /tmp/varfile", "run last", "remove /tmp/varfile"}},
	} {
		f := newFixture(t, text)
		f.world.act = func(_ context.Context, what string) error {
			if what == failing {
				return errors.New("it failed")
			}
			return nil
		}
		if r := f.one(t.Context()); (r.Err != nil) != want.fails {
			t.Errorf("%s fails: got %v", failing, r.Err)
		}
		var log []string
		for _, what := range f.world.log {
			if strings.HasPrefix(what, "run ") || strings.HasPrefix(what, "remove ") || what == "create image" {
				log = append(log, what)
			}
		}
		if diff := cmp.Diff(want.log, log); diff != "" {
			t.Errorf("%s fails (-want +got):\n%s", failing, diff)
		}
	}
}

// TestWeakSecrets checks that a short or common secret is masked only where it stands alone, with a
// warning; that a weak literal password is not treated as a secret; and that bake's own messages
// are not masked.
func TestWeakSecrets(t *testing.T) {
	f := newFixture(t, `
variable "answer" {
  default   = "y"
  sensitive = true
}
local "step" {
  expression = "provision"
  sensitive  = true
}
source "machine" "web" { password = "packer" }
build {
  sources = ["machine.web"]
  provisioner "run" { script = "type ${var.answer} to ${local.step}: packer, /tmp/packer-files" }
}
`)
	result, diags := f.run(t.Context())
	var warned []string
	for _, d := range diags {
		warned = append(warned, fmt.Sprintf("%s line %d", d.Summary, d.Subject.Start.Line))
	}
	if diff := cmp.Diff([]string{"Sensitive value is short or common line 2", "Sensitive value is short or common line 6"}, warned); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if len(result.Builds) != 1 || result.Builds[0].Err != nil {
		t.Errorf("%+v", result)
	}
	text := f.transcript()
	for _, want := range []string{"type <sensitive> to <sensitive>: packer, /tmp/packer-files", "provision with run", "create key"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}
