package inspect_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bake/config"
	"bake/inspect"
)

// newSession is a session with a template.
func newSession(t *testing.T, template string) *inspect.Session {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "t.pkr.hcl")
	if err := os.WriteFile(path, []byte(template), 0o600); err != nil {
		t.Fatal(err)
	}
	outline, diags := config.ReadOutline(t.Context(), config.Options{Path: path, Cwd: dir})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return &inspect.Session{Outline: outline}
}

// TestSession: lines are commands, expressions, parts of them, or empty; no secret is shown.
func TestSession(t *testing.T) {
	s := newSession(t, "variable \"secret\" {\n  default   = \"hunter2\"\n  sensitive = true\n}\nlocals { name = \"web\" }\n")
	for _, c := range []struct {
		line, text, expression string
		last                   bool
		command                inspect.Command
		pending, wrong         bool
	}{
		{line: "  "}, {line: "# a comment"}, {line: "// another"},
		{line: " variables ", command: inspect.Variables}, {line: "help", command: inspect.Help},
		{line: "upper(local.name)", text: "WEB", expression: "upper(local.name)"},
		{line: "var.secret", text: "<sensitive>", expression: "var.secret"},
		{line: `length("hunter2")`, text: "7", expression: `length("<sensitive>")`},
		{line: "[for x in", pending: true}, {line: "exit", pending: true}, {line: "", pending: true}, // a name in the expression, and an empty line of it
		{line: "] ", wrong: true},
		{line: "{", pending: true}, {line: "a = 1", pending: true}, {line: "}.a", text: "1", expression: "{\na = 1\n}.a"},
		{line: "[1,", last: true, wrong: true}, // nothing can follow
		{line: "local.nmae", wrong: true, expression: "local.nmae"},
		{line: "exit", command: inspect.Exit},
	} {
		a, err := s.Line(t.Context(), c.line, c.last)
		if err != nil {
			t.Fatalf("%q: %v", c.line, err)
		}
		text := ""
		if a.Value != nil {
			text = a.Value.Text
		}
		if a.Command != c.command || text != c.text || s.Pending() != c.pending || a.Diags.HasErrors() != c.wrong || !c.wrong && a.Expression != c.expression {
			t.Errorf("%q: %+v with the value %q, pending %t", c.line, a, text, s.Pending())
		}
	}
	if _, err := s.Line(t.Context(), "[", false); err != nil || !s.Pending() {
		t.Error("an open bracket is not gone on with:", err)
	}
	s.Discard()
	if a, err := s.Line(t.Context(), "1 + 1", false); err != nil || a.Value == nil || a.Value.Text != "2" {
		t.Errorf("after what was discarded: %+v, %v", a, err)
	}
}

// TestSessionEnds: the end of the context ends an expression.
func TestSessionEnds(t *testing.T) {
	s := newSession(t, "")
	enough := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(enough)
	if _, err := s.Line(ctx, "[for a in range(1000) : [for b in range(1000) : a]]", false); !errors.Is(err, enough) {
		t.Error(err)
	}
}
