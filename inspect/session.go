package inspect

import (
	"context"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config"
)

// Session evaluates expressions with the values and functions of a template, line by line.
type Session struct {
	Outline *config.Outline

	pending string // the lines of an expression that goes on
}

// Answer is what a line has led to; the zero Answer of one that is empty or a comment, or that
// goes on in the next.
type Answer struct {
	Command    Command // that the line is, if it is no expression
	Expression string  // the whole of it, without what is sensitive
	Value      *Value  // nil if it cannot be evaluated
	Diags      hcl.Diagnostics
}

// Command is a line that is no expression.
type Command string

// The commands of a session.
const (
	Exit      Command = "exit"
	Help      Command = "help"
	Variables Command = "variables"
)

// Line takes one line of input. With last set, no other line can complete the expression. An
// error is the cause of ctx's end: an expression may take long, and is given up then.
func (s *Session) Line(ctx context.Context, text string, last bool) (Answer, error) {
	word := strings.TrimSpace(text)
	if s.pending == "" {
		switch command := Command(word); {
		case word == "" || strings.HasPrefix(word, "#") || strings.HasPrefix(word, "//"):
			return Answer{}, nil
		case command == Exit || command == Help || command == Variables:
			return Answer{Command: command}, nil
		}
	}
	text = s.pending + text
	if !last && config.Incomplete(text) {
		s.pending = text + "\n"
		return Answer{}, nil
	}
	s.Discard()
	val, diags, err := s.evaluate(ctx, text)
	if err != nil {
		return Answer{}, err
	}
	a := Answer{Expression: s.Outline.Secrets().Redact(text), Diags: diags}
	if !diags.HasErrors() {
		shown := valueOf(s.Outline, val)
		a.Value = &shown
	}
	return a, nil
}

// Pending reports whether the next line goes on with an expression.
func (s *Session) Pending() bool { return s.pending != "" }

// Discard forgets the lines of an expression that goes on.
func (s *Session) Discard() { s.pending = "" }

// evaluate computes an expression, or gives up when ctx ends.
func (s *Session) evaluate(ctx context.Context, text string) (cty.Value, hcl.Diagnostics, error) {
	type result struct {
		val   cty.Value
		diags hcl.Diagnostics
		err   error
	}
	ended := make(chan result, 1)
	go func() {
		val, diags, err := s.Outline.Evaluate(ctx, text)
		ended <- result{val, diags, err}
	}()
	select {
	case r := <-ended:
		return r.val, r.diags, r.err
	case <-ctx.Done():
		return cty.DynamicVal, nil, context.Cause(ctx)
	}
}
