package report_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"bake/golden/report"
	"bake/step"
)

// valid returns the errors of a document according to the published schema.
func valid(t *testing.T, document string) error {
	t.Helper()
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	schema, err := c.Compile("../../docs/report.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(v)
}

func written(t *testing.T, r *report.Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.JSON(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Reports conform to the schema, and the schema rejects other documents.
func TestSchema(t *testing.T) {
	whole, _ := run(t, "x")
	text := strings.ReplaceAll(written(t, whole), `"severity": "x"`, `"severity": "low"`) // no document has this one
	lost := report.New("r", "v", func(step.Report) ([]byte, error) { return nil, errors.New("gone") })
	lost.Handle(step.Event{Kind: step.RunStarted, Text: "null.a"})
	for _, kind := range []string{step.FindingsReport, "cyclonedx", ".changes.json"} {
		lost.Handle(step.Event{Kind: step.Reported, Build: "null.a", Report: &step.Report{Name: "doc", Kind: kind}})
	}
	lost.Handle(step.Event{Kind: step.BuildFinished, Build: "null.a", Reused: true})
	for _, document := range []string{text, written(t, lost.Report()), written(t, report.New("r", "v", nil).Report())} {
		if err := valid(t, document); err != nil {
			t.Errorf("%v\n%s", err, document)
		}
	}
	for _, broken := range [][2]string{
		{`"version": 1`, `"version": 2`},
		{`"state": "failed"`, `"state": "done"`},
		{`"left_behind"`, `"left_over"`},
		{`"result": "fail"`, `"result": "failed"`},
		{`"begin": 1`, `"begin": "1 s"`},
		{`"shared": true`, `"shared": "yes"`},
		{`"parameter": "/bake/web/stable"`, `"path": "/bake/web/stable"`},
		{`"count": 10`, `"count": -1`},
		{`"kind": "rpm"`, `"type": "rpm"`},
		{`"before": "1"`, `"was": "1"`},
	} {
		document := strings.Replace(text, broken[0], broken[1], 1)
		if document == text {
			t.Errorf("there is no %s in the report", broken[0])
		}
		if valid(t, document) == nil {
			t.Errorf("the schema allows %s", broken[1])
		}
	}
}
