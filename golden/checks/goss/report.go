package goss

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteJSON writes results in goss's JSON format, for scripts that run goss. All facts are
// learned together, so each result has the total duration instead of its own.
func WriteJSON(w io.Writer, results []Result, started, ended time.Time) error {
	out := make([]map[string]any, len(results))
	failed, skipped := 0, 0
	for i, r := range results {
		switch r.Outcome {
		case Failed:
			failed++
		case Skipped:
			skipped++
		}
		out[i] = r.report(started, ended)
	}
	took := ended.Sub(started)
	text, err := json.Marshal(map[string]any{
		"results": out,
		"summary": map[string]any{
			"test-count": len(results), "failed-count": failed, "skipped-count": skipped, "total-duration": took,
			"summary-line": fmt.Sprintf("Count: %d, Failed: %d, Skipped: %d, Duration: %.3fs", len(results), failed, skipped, took.Seconds()),
		},
	})
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// report is a result in goss's format.
func (r Result) report(started, ended time.Time) map[string]any {
	var problem any
	if r.Err != "" {
		problem = r.Err
	}
	m := r.Match
	var chain any
	if len(m.Transform) > 0 {
		chain = m.Transform
	}
	var meta any
	if r.Meta != nil {
		meta = r.Meta
	}
	return map[string]any{
		"successful": r.Outcome != Failed, "skipped": r.Outcome == Skipped, "result": int(r.Outcome), "err": problem,
		"resource-id": r.Resource, "resource-type": r.Type, "property": r.Property, "title": r.Title, "meta": meta,
		"matcher-result": map[string]any{
			"actual": m.Actual, "message": m.Message, "expected": m.Expected, "missing-elements": m.Missing, "found-elements": m.Found,
			"extra-elements": m.Extra, "transform-chain": chain, "untransformed-value": m.Raw,
		},
		"summary-line": r.summary("\n", "    "), "summary-line-compact": r.summary(" ", ""),
		"start-time": started, "end-time": ended, "duration": 0,
	}
}

// summary describes the result of a check in several lines, or in one.
func (r Result) summary(sep, indent string) string {
	head := r.Type + ": " + r.Resource + ": " + r.Property + ":"
	m := r.Match
	switch r.Outcome {
	case Passed:
		return head + " " + m.Message + ": " + asJSON(m.Expected)
	case Skipped:
		return head + " skipped"
	}
	lines := []string{head, "Expected", indent + asJSON(m.Actual), m.Message, indent + asJSON(m.Expected)}
	if r.Err != "" {
		lines = []string{head, "Error", indent + strings.ReplaceAll(strings.TrimRight(r.Err, "\n"), "\n", sep+indent)}
	}
	more := func(title string, v any) {
		if v != nil {
			lines = append(lines, title, indent+asJSON(v))
		}
	}
	more("the missing elements were", m.Missing)
	more("the extra elements were", m.Extra)
	if len(m.Transform) > 0 {
		more("the transform chain was", m.Transform)
		lines = append(lines, "the raw value was", indent+asJSON(m.Raw))
	}
	return strings.Join(lines, sep)
}
