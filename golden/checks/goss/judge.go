package goss

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"bake/golden/checks/facts"
	"bake/golden/findings"
)

// Outcome is the outcome of a check, with goss's names and numbers.
type Outcome int

// The outcomes. goss has none for a resource that could not be judged: that is Failed,
// with an Err.
const (
	Passed Outcome = iota
	Failed
	Skipped
)

// Result is the result of one check.
type Result struct {
	ID       string // of its finding
	Type     string // as in goss's reports: File, Package, …
	Resource string // resource-id
	Property string
	Title    string
	Meta     map[string]any
	Outcome  Outcome
	Err      string // why the fact could not be judged
	Reason   string // why it was skipped
	Match    Failure
	At       hcl.Range

	text bool
}

// Results judges answers, which must be in the order of [Suite.Questions]. There is one
// result for each check, in the order of the files. Checks that have not been judged when
// ctx ends have an error.
func (s *Suite) Results(ctx context.Context, answers []facts.Answer) []Result {
	var out []Result
	for _, r := range s.resources {
		var answer facts.Answer
		if ctx.Err() == nil && r.question >= 0 && r.question < len(answers) {
			answer = answers[r.question]
		}
		out = append(out, r.judge(answer)...)
	}
	return out
}

func (r *resource) judge(answer facts.Answer) []Result {
	var out []Result
	reason := ""
	if r.skip {
		reason = "skip is true"
	}
	for i, c := range r.checks {
		result := Result{
			ID: c.id, Type: r.kind.name, Resource: r.id(), Property: c.attribute.shown(),
			Title: r.title, Meta: r.meta, At: c.at, text: c.attribute.text,
		}
		if reason != "" {
			result.Outcome, result.Reason = Skipped, reason
		} else {
			c.judge(r.fact(c, answer), &result)
		}
		if i == 0 && r.kind.gate && reason == "" {
			reason = unmet(c.attribute.name, result)
		}
		out = append(out, result)
	}
	return out
}

// unmet returns why the checks after the first are not judged, or "" if they are.
func unmet(name string, first Result) string {
	switch {
	case first.Err != "":
		return name + " could not be told"
	case first.Outcome != Passed:
		return name + " is not as it should be"
	case first.Match.Actual == false:
		return name + " is false"
	}
	return ""
}

// fact returns the fact that check c of the resource is about.
func (r *resource) fact(c *check, answer facts.Answer) facts.Fact {
	if r.kind.kind == "matching" {
		if r.options["as-reader"] == "true" {
			return facts.Fact{Value: fmt.Sprint(r.content)}
		}
		return facts.Fact{Value: r.content}
	}
	fact, ok := answer[c.attribute.question()]
	if !ok || fact.Value == nil && fact.Err == "" {
		return facts.Fact{Err: "it was not learned"}
	}
	return fact
}

func (c *check) judge(fact facts.Fact, result *Result) {
	if c.fault != "" {
		fact.Err = c.fault
	}
	if fact.Err != "" {
		result.Outcome, result.Err = Failed, fact.Err
		return
	}
	actual := fact.Value
	switch v := actual.(type) {
	case facts.Text:
		actual = string(v)
	case int64:
		actual = int(v)
	}
	ok, err := c.matcher.match(actual)
	switch {
	case err != nil:
		result.Outcome, result.Err, result.Match = Failed, err.Error(), c.matcher.failure(actual)
		if u, ok := errors.AsType[unfit](err); ok && result.contents() {
			result.Err = u.hidden()
		}
	case !ok:
		result.Outcome, result.Match = Failed, c.matcher.failure(actual)
	default:
		result.Match = Failure{Actual: actual, Message: "matches expectation", Expected: c.expected}
	}
}

// Judge returns [Suite.Results] as findings.
func (s *Suite) Judge(ctx context.Context, answers []facts.Answer) []findings.Finding {
	return Findings(s.Results(ctx, answers))
}

// Findings returns a finding for each result.
func Findings(results []Result) []findings.Finding {
	out := make([]findings.Finding, len(results))
	for i, r := range results {
		out[i] = r.finding()
	}
	return out
}

// name returns goss's name of the check.
func (r Result) name() string { return r.Type + ": " + r.Resource + ": " + r.Property }

func (r Result) finding() findings.Finding {
	at := r.At
	f := findings.Finding{
		ID: r.ID, Title: r.Title, Severity: severity(r.Meta["severity"]), Source: &at,
		Rationale: asOneLine(r.Meta["rationale"]), Fix: note(r.Meta["fix"]),
	}
	if f.Title == "" && f.ID != r.name() {
		f.Title = r.name()
	}
	for _, name := range []string{"CIS_ID", "refs"} {
		if list, ok := r.Meta[name].([]any); ok {
			for _, ref := range list {
				f.Refs = append(f.Refs, asOneLine(ref))
			}
		} else if ref := asOneLine(r.Meta[name]); ref != "" {
			f.Refs = append(f.Refs, ref)
		}
	}
	switch {
	case r.Outcome == Passed:
		f.Result = findings.Pass
	case r.Outcome == Skipped && r.Reason == "skip is true":
		f.Result, f.Evidence = findings.NotChecked, r.Reason
	case r.Outcome == Skipped:
		f.Result, f.Evidence = findings.NotApplicable, r.Reason
	case r.Err != "":
		f.Result, f.Evidence = findings.Error, clip(r.Err, maxEvidence)
	default:
		f.Result, f.Evidence = findings.Fail, r.evidence()
	}
	return f
}

// note returns a text of meta with its lines.
func note(v any) string {
	if v == nil {
		return ""
	}
	return strings.TrimSpace(asText(v))
}

func severity(v any) findings.Severity {
	switch s := findings.Severity(strings.ToLower(asOneLine(v))); s {
	case findings.Critical, findings.High, findings.Medium, findings.Low:
		return s
	}
	return findings.Unknown
}

// How much of a fact, and in total, a finding shows.
const (
	maxShown    = 300
	maxEvidence = 2000
)

// contents reports whether the result concerns the content of a file, which is not shown
// because it may be a secret.
func (r Result) contents() bool { return r.Type == "File" && r.text }

// evidence describes the failure in one line.
func (r Result) evidence() string {
	m := r.Match
	shown := clip(asJSON(m.Actual), maxShown)
	if r.contents() {
		shown = "the contents"
	}
	out := "expected " + shown + " " + m.Message + " " + clip(asJSON(m.Expected), maxShown)
	if m.Missing != nil {
		out += "; missing: " + clip(asJSON(m.Missing), maxShown)
	}
	if m.Extra != nil && !r.contents() {
		out += "; not expected: " + clip(asJSON(m.Extra), maxShown)
	}
	return clip(out, maxEvidence)
}

// asJSON formats a value for reports.
func asJSON(v any) string {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSpace(b.String())
}
