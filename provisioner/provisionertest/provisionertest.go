// Package provisionertest is the conformance suite of provisioners, and a
// machine to run them on.
package provisionertest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/schema"
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

// Input is the body of a block as components get it. vars are the values of
// var.* in it; an unknown one stands for what only a build knows.
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

// Invalid checks that a body is refused, at a line that holds at and with a
// message that holds want.
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

// Run checks what holds for every provisioner: it documents its options; when
// any call to the machine fails, with or without effect, it fails with that error;
// when it is cancelled at any call it ends with the cause; after either it can be
// called again; and however it ends, once the machine's leftovers are removed dir
// holds what it did before. body makes a provisioner that succeeds on a machine as
// NewMachine makes them.
func Run(t *testing.T, f component.Factory[provisioner.Provisioner], body, dir string) {
	t.Helper()
	if _, err := f.Docs(); err != nil {
		t.Error(err)
	}
	before := list(t, dir)
	unchanged := func(what string) {
		t.Helper()
		if diff := cmp.Diff(before, list(t, dir)); diff != "" {
			t.Errorf("%s: what is left behind (-before +after):\n%s", what, diff)
		}
	}
	p := New(t, f, body)
	s, _ := Scope(t)
	m := NewMachine(t)
	if err := p.Provision(t.Context(), s, m.Builder()); err != nil {
		t.Fatal(err)
	}
	unchanged("after a success")
	why := errors.New("cancelled")
	for n := range m.Calls() {
		for _, late := range []bool{false, true} {
			for _, cancelled := range []bool{false, true} {
				what := fmt.Sprintf("call %d: late %t, cancelled %t", n, late, cancelled)
				ctx, cancel := context.WithCancelCause(t.Context())
				m := NewMachine(t)
				fault, want := func(i int, _ string) error {
					switch {
					case i != n:
						return nil
					case cancelled:
						cancel(why)
						return nil
					}
					return errFault
				}, errFault
				if cancelled {
					want = why
				}
				if late {
					m.After = fault
				} else {
					m.Fault = fault
				}
				if err := p.Provision(ctx, s, m.Builder()); !errors.Is(err, want) {
					t.Errorf("%s: got %v", what, err)
				}
				cancel(nil)
				m.Fault, m.After = nil, nil
				if err := m.Tidy(t.Context()); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				unchanged(what)
				if err := p.Provision(t.Context(), s, m.Builder()); err != nil {
					t.Errorf("%s: again: %v", what, err)
				}
			}
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
