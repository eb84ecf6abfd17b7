// Package provisionertest has the conformance suite of provisioners, and a machine to
// run them on.
package provisionertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/conformance"
	"bake/internal/gotemplate"
	"bake/provisioner"
	"bake/step"
)

// Log is the events of a scope.
type Log struct {
	mu     sync.Mutex
	events []step.Event
}

// Texts returns the texts of the events of one kind.
func (l *Log) Texts(kind step.Kind) (texts []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.events {
		if e.Kind == kind {
			texts = append(texts, e.Text)
		}
	}
	return texts
}

// Scope returns a scope of a build of source block "test" of type "fake", and
// its events.
func Scope(t testing.TB) (*step.Scope, *Log) {
	l := &Log{}
	return step.NewScope(step.Scope{
		Run:   step.Invocation{ID: "run", Env: os.Environ(), Start: time.Unix(1700000000, 0), Version: "1.16.0"},
		Build: "fake.test", SourceType: "fake", SourceName: "test",
		Emit: func(e step.Event) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.events = append(l.events, e)
		},
	}), l
}

// Input returns the body of a block in the form that components get. vars are the values of
// var.* in it; unknown values stand for those that are known only during a build.
func Input(t testing.TB, body string, vars map[string]cty.Value) schema.Input {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "test.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	c := gotemplate.Context{BuildName: "test", BuildType: "fake", Version: "1.16.0"}
	return schema.Input{
		Body:    f.Body,
		Context: &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(vars)}},
		Render: func(text string, deferred bool) (string, error) {
			if deferred {
				return text, c.Check(text)
			}
			return c.Render(text, nil)
		},
	}
}

// New makes a provisioner from the body of its block.
func New(t testing.TB, f component.Factory[provisioner.Provisioner], body string) provisioner.Provisioner {
	t.Helper()
	p, diags := f.New(Input(t, body, nil))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return p
}

// Invalid checks that a body is rejected with a message that contains want, at a line that
// contains at.
func Invalid(t testing.TB, f component.Factory[provisioner.Provisioner], body, at, want string) {
	t.Helper()
	diags := f.Check(Input(t, body, nil))
	if !diags.HasErrors() {
		t.Errorf("accepted:\n%s", body)
		return
	}
	d, _ := errors.AsType[*hcl.Diagnostic](diags.Errs()[0])
	line := ""
	if lines := strings.Split(body, "\n"); d.Subject != nil && d.Subject.Start.Line <= len(lines) {
		line = lines[d.Subject.Start.Line-1]
	}
	if !strings.Contains(line, at) || !strings.Contains(d.Summary+": "+d.Detail, want) {
		t.Errorf("got %q at %q, want %q at %q", d.Summary+": "+d.Detail, line, want, at)
	}
}

var errFault = errors.New("injected fault")

// Suite checks the requirements on every provisioner.
type Suite struct {
	Factory component.Factory[provisioner.Provisioner]
	Body    string // of a valid block
	Dir     string // must be unchanged afterwards

	// Machine returns the machine. nil: one as NewMachine makes them.
	Machine func(t *testing.T) builder.Machine

	// Lenient reports whether the failure of a call to the machine is only a warning. n
	// counts from 0.
	Lenient func(n int, call string) bool
}

// Run runs a [Suite] with defaults for the missing parts.
func Run(t *testing.T, f component.Factory[provisioner.Provisioner], body, dir string) {
	t.Helper()
	Suite{Factory: f, Body: body, Dir: dir}.Run(t)
}

// Run checks that a provisioner documents its options; that it does nothing if it is
// cancelled before it begins; that it returns the error of any call to the machine that
// fails, with or without effect; that it returns the cause if it is cancelled at any call;
// that it can be called again after each of these; and that it always leaves no goroutine
// behind and, once the machine's leftovers are removed, Dir unchanged.
func (suite Suite) Run(t *testing.T) {
	t.Helper()
	if _, err := suite.Factory.Docs(); err != nil {
		t.Error(err)
	}
	before := list(t, suite.Dir)
	unchanged := func(what string) {
		t.Helper()
		if diff := cmp.Diff(before, list(t, suite.Dir)); diff != "" {
			t.Errorf("%s: what is left behind (-before +after):\n%s", what, diff)
		}
		if left := conformance.Goroutines("bake/provisioner/"); left != "" {
			t.Errorf("%s: goroutines are left:\n%s", what, left)
		}
	}
	p := New(t, suite.Factory, suite.Body)
	s, _ := Scope(t)
	run := func(ctx context.Context, f *faulty) (*builder.Leftovers, error) {
		m := NewMachine(t).Builder()
		if suite.Machine != nil {
			m = suite.Machine(t)
		}
		f.Communicator, m.Communicator, m.Leftovers = m.Communicator, f, new(builder.Leftovers)
		return m.Leftovers, p.Provision(ctx, s, m)
	}
	all := &faulty{}
	if _, err := run(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	unchanged("after a success")
	why := errors.New("cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	left, err := run(ctx, &faulty{})
	if !errors.Is(err, why) || len(left.Take()) > 0 {
		t.Errorf("cancelled before it begins: got %v", err)
	}
	unchanged("cancelled before it begins")
	for n, call := range all.Calls() {
		for _, late := range []bool{false, true} {
			for _, cancelled := range []bool{false, true} {
				what := fmt.Sprintf("call %d (%s): late %t, cancelled %t", n, call, late, cancelled)
				ctx, cancel := context.WithCancelCause(t.Context())
				fail, want := func() error { return errFault }, errFault
				if cancelled {
					fail, want = func() error { cancel(why); return nil }, why
				} else if suite.Lenient != nil && suite.Lenient(n, call) {
					want = nil
				}
				f := failingAt(n, late, fail)
				left, err := run(ctx, f)
				if !errors.Is(err, want) {
					t.Errorf("%s: got %v", what, err)
				}
				cancel(nil)
				f.Fault, f.After = nil, nil
				if err := tidy(t.Context(), left); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				unchanged(what)
				if _, err := run(t.Context(), &faulty{}); err != nil {
					t.Errorf("%s: again: %v", what, err)
				}
			}
		}
	}
}

// failingAt returns a communicator that calls fail at call n, before it or, if late, after it.
func failingAt(n int, late bool, fail func() error) *faulty {
	fault := func(i int, _ string) error {
		if i != n {
			return nil
		}
		return fail()
	}
	if late {
		return &faulty{Faults: Faults{After: fault}}
	}
	return &faulty{Faults: Faults{Fault: fault}}
}

// Cancelled checks that a provisioner that waits for something other than the machine
// returns the cause when it is cancelled, and can be called again. It must be called in
// a bubble of synctest.
func Cancelled(t *testing.T, p provisioner.Provisioner) {
	t.Helper()
	why := errors.New("cancelled")
	for range 2 {
		ctx, cancel := context.WithCancelCause(t.Context())
		s, _ := Scope(t)
		ended := make(chan error, 1)
		go func() { ended <- p.Provision(ctx, s, NewMachine(t).Builder()) }()
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("it has not waited: %v", err)
		default:
		}
		cancel(why)
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, why) {
				t.Errorf("got %v, want the cause", err)
			}
		default:
			t.Fatal("it does not end when it is cancelled")
		}
	}
}

func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}
