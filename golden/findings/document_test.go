package findings_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/owenrumney/go-sarif/v3/pkg/report/v210/sarif"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"bake/golden/findings"
)

// every has a finding of each result.
func every() findings.Document {
	waiver := findings.Waiver{Rule: "grub-password", Reason: "no console", Owner: "ops", Expires: now.AddDate(0, 1, 0)}
	reports := []findings.Report{
		{Name: "baseline", Tool: "bake:baseline", Started: now, Findings: []findings.Finding{
			{ID: "ssh-root-login", Title: "Root cannot log in", Severity: findings.High, Result: findings.Fail, Evidence: "PermitRootLogin yes", Rationale: "Nobody knows who it was.", Fix: "Set PermitRootLogin no.", Refs: []string{"C 5.1.20"}, Took: 1234 * time.Millisecond},
			{ID: "tmp-mount", Severity: findings.Medium, Result: findings.NotApplicable, Evidence: "needs a kernel of its own"},
			{ID: "grub-password", Severity: findings.Medium, Result: findings.Fail},
			{ID: "aide", Severity: findings.Low, Result: findings.Fixed, Evidence: "aide is installed"},
			{ID: "auditd", Severity: findings.Critical, Result: findings.Error, Evidence: "auditctl: permission denied"},
		}},
		{Name: "web", Tool: "goss", Findings: []findings.Finding{
			{ID: "Port: tcp:80: listening", Severity: findings.Unknown, Result: findings.Pass, Evidence: "listening: true"},
			{ID: "Service: nginx: running", Severity: findings.Unknown, Result: findings.NotChecked},
			{ID: "File: /etc/nginx: mode", Severity: findings.Low, Result: findings.Fail, Evidence: "found \"0777\" [x](https://example.com) <b>&", Source: &hcl.Range{Filename: "goss/my web.yaml", Start: hcl.Pos{Line: 7, Column: 3}}},
		}},
	}
	v := findings.Gate{Waivers: []findings.Waiver{waiver, {Rule: "nosuch", Expires: now.AddDate(1, 0, 0)}}}.Judge(reports, now)
	return findings.Document{Verdict: &v, Machine: "ami-1", Version: "0.2.0", File: "web.bake.hcl"}
}

func written(t *testing.T, d findings.Document, f findings.Format) string {
	t.Helper()
	var b bytes.Buffer
	if err := d.Write(&b, f); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestPlain(t *testing.T) {
	want := `RESULT  SEVERITY  RULE                    FOUND
error   critical  auditd                  auditctl: permission denied
fail    high      ssh-root-login          PermitRootLogin yes
fail    low       File: /etc/nginx: mode  found "0777" [x](https://example.com) <b>&
waived  medium    grub-password           no console (owner: ops, until 2026-12-28 12:00 UTC)
fixed   low       aide                    aide is installed

baseline: 1 fixed, 1 failed, 1 could not be judged, 1 waived, 1 not applicable, score 33.33
web: 1 passed, 1 failed, 1 not checked, score 50
warning: there is no rule "nosuch" to waive.
The gate is closed:
  - baseline: 1 rule could not be judged: auditd
  - 1 rule of severity high failed (limit: 0): ssh-root-login
  - 1 rule of severity low failed (limit: 0): File: /etc/nginx: mode
`
	if diff := cmp.Diff(want, written(t, every(), findings.Plain)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	v := findings.Gate{}.Judge([]findings.Report{report(finding("a", findings.Low, findings.Pass))}, now)
	if got := written(t, findings.Document{Verdict: &v}, findings.Plain); got != "base: 1 passed, score 100\nThe gate is open.\n" {
		t.Errorf("got %q", got)
	}
	if got := written(t, findings.Document{Reports: []findings.Report{report()}}, findings.Plain); got != "base: nothing was checked\n" {
		t.Errorf("got %q", got)
	}
}

func TestJUnit(t *testing.T) {
	got := written(t, every(), findings.JUnit)
	validJUnit(t, got)
	for _, want := range []string{
		`<testsuites name="ami-1" tests="9" failures="3" errors="1" time="1.234">`,
		`<testsuite name="baseline" tests="5" failures="1" errors="1" skipped="2" time="1.234" timestamp="2026-11-28T12:00:00" hostname="ami-1">`,
		`<property name="score" value="33.33"></property>`,
		`<testcase name="ssh-root-login: Root cannot log in" classname="baseline" time="1.234">`,
		`<failure message="PermitRootLogin yes" type="high">Root cannot log in&#xA;PermitRootLogin yes&#xA;Rationale: Nobody knows who it was.&#xA;Fix: Set PermitRootLogin no.&#xA;References: C 5.1.20&#xA;Severity: high</failure>`,
		`<error message="auditctl: permission denied" type="critical">`,
		`<skipped message="needs a kernel of its own" type="not applicable">`,
		`<skipped message="no console (owner: ops, until 2026-12-28 12:00 UTC)" type="waived">`,
		`<skipped message="not checked" type="not checked">`,
		`<system-out>This failed, and was fixed. aide is installed</system-out>`,
		`<system-out>listening: true</system-out>`,
		`Rule: goss/my web.yaml:7</failure>`,
		`<testcase name="gate" classname="gate" time="0.000">`,
		`<failure message="The gate is closed." type="gate">baseline: 1 rule could not be judged: auditd&#xA;`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("it lacks %s\n%s", want, got)
		}
	}
	// CI servers must not show a success if there were no rules: the gate is a separate
	// test.
	v := findings.Gate{}.Judge(nil, now)
	got = written(t, findings.Document{Verdict: &v}, findings.JUnit)
	validJUnit(t, got)
	if !strings.Contains(got, `tests="1" failures="1"`) {
		t.Errorf("nothing was checked, and nothing fails:\n%s", got)
	}
}

// node is an element of XML.
type node struct {
	XMLName xml.Name
	Attrs   []xml.Attr `xml:",any,attr"`
	Nodes   []node     `xml:",any"`
	Text    string     `xml:",chardata"`
}

func (n node) attr(name string) string {
	for _, a := range n.Attrs {
		if a.Name.Local == name {
			return a.Value
		}
	}
	return ""
}

// declared is what a schema says of an element.
type declared struct {
	text     bool
	children []string
	attrs    map[string]*regexp.Regexp // nil: any text
	required []string
}

// validJUnit checks JUnit's XML against the schema of Jenkins' xUnit plugin. All content models
// there are any number of some elements in any order.
func validJUnit(t *testing.T, document string) {
	t.Helper()
	src, err := os.ReadFile("testdata/junit-10.xsd")
	if err != nil {
		t.Fatal(err)
	}
	var schema, root node
	if err := xml.Unmarshal(src, &schema); err != nil {
		t.Fatal(err)
	}
	patterns := map[string]*regexp.Regexp{"xs:string": nil}
	elements := map[string]declared{}
	for _, n := range schema.Nodes {
		if n.XMLName.Local == "simpleType" {
			patterns[n.attr("name")] = regexp.MustCompile("^(?:" + n.Nodes[0].Nodes[0].attr("value") + ")$")
		}
	}
	for _, n := range schema.Nodes {
		if n.XMLName.Local != "element" {
			continue
		}
		d := declared{text: n.attr("type") == "xs:string", attrs: map[string]*regexp.Regexp{}}
		var walk func(node)
		walk = func(n node) {
			switch n.XMLName.Local {
			case "complexType":
				d.text = d.text || n.attr("mixed") == "true"
			case "attribute":
				pattern, ok := patterns[n.attr("type")]
				if !ok {
					t.Fatalf("the schema has the type %s", n.attr("type"))
				}
				d.attrs[n.attr("name")] = pattern
				if n.attr("use") == "required" {
					d.required = append(d.required, n.attr("name"))
				}
			case "element":
				d.children = append(d.children, n.attr("ref"))
			}
			for _, c := range n.Nodes {
				walk(c)
			}
		}
		for _, c := range n.Nodes {
			walk(c)
		}
		elements[n.attr("name")] = d
	}
	if err := xml.Unmarshal([]byte(document), &root); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	if root.XMLName.Local != "testsuites" {
		t.Errorf("the root is %s", root.XMLName.Local)
	}
	var check func(node)
	check = func(n node) {
		d, ok := elements[n.XMLName.Local]
		if !ok {
			t.Errorf("the schema has no element %s", n.XMLName.Local)
		}
		if !d.text && strings.TrimSpace(n.Text) != "" {
			t.Errorf("%s has text: %q", n.XMLName.Local, n.Text)
		}
		seen := map[string]bool{}
		for _, a := range n.Attrs {
			pattern, ok := d.attrs[a.Name.Local]
			if !ok || pattern != nil && !pattern.MatchString(a.Value) || seen[a.Name.Local] {
				t.Errorf("%s has %s=%q", n.XMLName.Local, a.Name.Local, a.Value)
			}
			seen[a.Name.Local] = true
		}
		for _, name := range d.required {
			if !seen[name] {
				t.Errorf("%s has no %s", n.XMLName.Local, name)
			}
		}
		for _, c := range n.Nodes {
			if !slices.Contains(d.children, c.XMLName.Local) {
				t.Errorf("%s is in %s", c.XMLName.Local, n.XMLName.Local)
			}
			check(c)
		}
	}
	check(root)
}

var sarifSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/owenrumney/go-sarif/v3").Output()
	if err != nil {
		return nil, err
	}
	src, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "pkg/report/v210/sarif/schema.go"))
	if err != nil {
		return nil, err
	}
	_, text, _ := strings.Cut(string(src), "`")
	text, _, _ = strings.Cut(text, "`")
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
	if err != nil {
		return nil, err
	}
	const url = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(url, v); err != nil {
		return nil, err
	}
	return c.Compile(url)
})

// validSARIF checks a document against SARIF's schema, and reads it with another library.
func validSARIF(t *testing.T, document string) *sarif.Report {
	t.Helper()
	schema, err := sarifSchema()
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, document)
	}
	r, err := sarif.FromString(document)
	if err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	return r
}

func TestSARIF(t *testing.T) {
	got := written(t, every(), findings.SARIF)
	r := validSARIF(t, got)
	if len(r.Runs) != 2 {
		t.Fatalf("%d runs", len(r.Runs))
	}
	var lines []string
	for _, run := range r.Runs {
		lines = append(lines, fmt.Sprintf("%s %s rules=%d ok=%t", *run.Tool.Driver.Name, *run.AutomationDetails.ID, len(run.Tool.Driver.Rules), *run.Invocations[0].ExecutionSuccessful))
		for _, x := range run.Results {
			place := x.Locations[0].PhysicalLocation
			lines = append(lines, fmt.Sprintf("  %s %s %s %s:%d suppressed=%d %q", *run.Tool.Driver.Rules[x.RuleIndex].ID, x.Kind, x.Level, *place.ArtifactLocation.URI, *place.Region.StartLine, len(x.Suppressions), *x.Message.Text))
			if len(x.PartialFingerprints) != 1 || *x.RuleID != *run.Tool.Driver.Rules[x.RuleIndex].ID {
				t.Errorf("%s: %v", *x.RuleID, x.PartialFingerprints)
			}
		}
	}
	want := []string{
		"bake:baseline baseline/ rules=5 ok=false",
		`  ssh-root-login fail error web.bake.hcl:1 suppressed=0 "Root cannot log in\nPermitRootLogin yes"`,
		`  grub-password fail warning web.bake.hcl:1 suppressed=1 "grub-password"`,
		`  auditd fail error web.bake.hcl:1 suppressed=0 "auditd: could not be judged\nauditctl: permission denied"`,
		"goss web/ rules=3 ok=true",
		`  File: /etc/nginx: mode fail note goss/my%20web.yaml:7 suppressed=0 "File: /etc/nginx: mode\nfound \"0777\" [x] (https://example.com) <b>&"`,
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	rule := r.Runs[0].Tool.Driver.Rules[0]
	if p := rule.Properties.Properties; p["security-severity"] != "8.0" || *rule.Help.Text != "Set PermitRootLogin no." {
		t.Errorf("%v %s", p, *rule.Help.Text)
	}
	for i, level := range []string{"error", "error", "warning", "note", "warning"} {
		d := findings.Document{Reports: []findings.Report{report(finding("a", findings.Severities()[i], findings.Fail))}}
		if got := validSARIF(t, written(t, d, findings.SARIF)).Runs[0].Results[0].Level; got != level {
			t.Errorf("%s is of level %s", findings.Severities()[i], got)
		}
	}
	if ok := *validSARIF(t, written(t, findings.Document{Reports: []findings.Report{report()}}, findings.SARIF)).Runs[0].Invocations[0].ExecutionSuccessful; ok {
		t.Error("a run without a rule is successful")
	}
	validSARIF(t, written(t, findings.Document{}, findings.SARIF))
}

var ownSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	return c.Compile("../../docs/findings.schema.json")
})

func validJSON(t *testing.T, document string) {
	t.Helper()
	schema, err := ownSchema()
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%v\n%s", err, document)
	}
}

func TestJSON(t *testing.T) {
	got := written(t, every(), findings.JSON)
	validJSON(t, got)
	var d struct {
		Gate    struct{ Open bool }
		Reports []struct {
			Score    *float64
			Counts   map[string]int
			Findings []map[string]any
		}
	}
	if err := json.Unmarshal([]byte(got), &d); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"id": "ssh-root-login", "title": "Root cannot log in", "severity": "high", "result": "fail", "evidence": "PermitRootLogin yes",
		"rationale": "Nobody knows who it was.", "fix": "Set PermitRootLogin no.", "references": []any{"C 5.1.20"}, "seconds": 1.234,
	}
	if diff := cmp.Diff(want, d.Reports[0].Findings[0]); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	counts := map[string]int{"pass": 0, "fixed": 1, "fail": 1, "error": 1, "waived": 1, "not applicable": 1, "not checked": 0}
	if diff := cmp.Diff(counts, d.Reports[0].Counts); diff != "" || d.Gate.Open || *d.Reports[1].Score != 50 {
		t.Errorf("%v %v (-want +got):\n%s", d.Gate, *d.Reports[1].Score, diff)
	}
	if got := written(t, findings.Document{Reports: []findings.Report{report(finding("a", findings.Low, findings.NotChecked))}}, findings.JSON); !strings.Contains(got, `"score": null`) {
		t.Errorf("a score of nothing:\n%s", got)
	}
	validJSON(t, written(t, findings.Document{}, findings.JSON))
}

func TestFormats(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range findings.Formats() {
		if a, b := written(t, every(), f), written(t, every(), f); a != b {
			t.Errorf("%s: the same findings are written differently", f)
		}
		seen[f.Extension()] = true
	}
	if len(seen) != len(findings.Formats()) {
		t.Errorf("two formats have the same extension: %v", seen)
	}
	if err := every().Write(new(bytes.Buffer), "yaml"); err == nil || !strings.Contains(err.Error(), `"yaml" is not a format of findings; use one of ["plain" "json" "junit" "sarif" "tap"]`) {
		t.Error(err)
	}
}

// validTAP reads a document of [FuzzWrite]: its tests are as many as planned, and the gate
// is one of those that fail.
func validTAP(t *testing.T, got string) {
	t.Helper()
	r, err := findings.Read(strings.NewReader(got), findings.TAP, "x")
	if err != nil {
		t.Fatalf("%v in\n%s", err, got)
	}
	for _, f := range r.Findings {
		if f.ID == "plan" && f.Result == findings.Error {
			t.Errorf("%s in\n%s", f.Evidence, got)
		}
	}
	if !strings.Contains(got, "\nnot ok 5 - gate\n") {
		t.Errorf("no gate in\n%s", got)
	}
}

// Results that TAP cannot express become tests that do not count, or are skipped.
func TestTAP(t *testing.T) {
	r := report(
		findings.Finding{ID: "a #todo", Title: "T\\x", Severity: findings.High, Result: findings.Fail, Evidence: "is \"7\"\n...", Fix: "chmod"},
		findings.Finding{ID: "b", Severity: findings.Low, Result: findings.Waived, Waiver: "for now"},
		findings.Finding{ID: "c", Severity: findings.Low, Result: findings.NotApplicable, Evidence: "no cron"},
		findings.Finding{ID: "d", Severity: findings.Low, Result: findings.Fixed},
		findings.Finding{ID: "e", Severity: findings.Low, Result: findings.Error, Evidence: "cut off"},
	)
	v := findings.Verdict{Reports: []findings.Report{r}, Reasons: []string{"1 rule\nfailed"}, Warnings: []string{"w"}}
	want := `TAP version 13
1..6
not ok 1 - a \#todo: T\\x
  ---
  message: "is \"7\" ..."
  severity: "high"
  data:
    result: fail
    fix: "chmod"
  ...
not ok 2 - b # TODO waived: for now
ok 3 - c # SKIP not applicable: no cron
ok 4 - d
not ok 5 - e
  ---
  message: "cut off"
  severity: "low"
  data:
    result: error
  ...
not ok 6 - gate
# 1 rule failed
# warning: w
`
	if got := written(t, findings.Document{Verdict: &v}, findings.TAP); got != want {
		t.Errorf("got\n%s", got)
	}
}

// FuzzWrite writes what a hostile machine, check or scanner could say.
func FuzzWrite(f *testing.F) {
	for _, s := range []string{
		"\x1b]0;title\x07\x1b[2J", "\x00\x01\x7f", "\xff\xfe\xc3(", "\ufffe\uffff\U0001ffff", "\u009b31m", "\u202egnp.exe", "\u2028\u2029", "]]>", "<!ENTITY x>", "&amp;<&\"'",
		"a\r\nb\rc\nd\te", "{0} [x](y) {", "../../etc/passwd", "::error::x", "ünï€😀", strings.Repeat("x", 1<<20), strings.Repeat("\x00", 1<<16), "",
	} {
		f.Add(s, "fail")
	}
	f.Add("x", "what\x1b is it")
	f.Fuzz(func(t *testing.T, s, result string) {
		all := findings.Report{Name: s, Tool: s, Started: now, Findings: []findings.Finding{
			{ID: s, Title: s, Severity: findings.Severity(s), Result: findings.Result(result), Evidence: s, Rationale: s, Fix: s, Refs: []string{s}, Waiver: s, Took: -1, Source: &hcl.Range{Filename: s}},
			{ID: s, Title: s, Severity: findings.Low, Result: findings.Error, Evidence: s},
			{ID: s, Severity: findings.Low, Result: findings.NotApplicable, Evidence: s, Waiver: s},
			{ID: s + "2", Severity: findings.Low, Result: findings.Pass, Evidence: s},
		}}
		g := findings.Gate{Waivers: []findings.Waiver{{Rule: s, Reason: s, Owner: s, Expires: now.AddDate(1, 0, 0)}}}
		v := g.Judge([]findings.Report{all}, now)
		if v.Open {
			t.Error("the gate is open")
		}
		d := findings.Document{Verdict: &v, Machine: s, Version: "0.2.0", File: s}
		for _, format := range findings.Formats() {
			got := written(t, d, format)
			if i := strings.IndexFunc(got, func(r rune) bool {
				return r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e
			}); i >= 0 {
				t.Errorf("%s: control character: %q", format, got[max(0, i-20):i+2])
			}
			if !utf8.ValidString(got) {
				t.Errorf("%s: not UTF-8", format)
			}
			if len(got) > 2<<20 {
				t.Errorf("%s: %d bytes", format, len(got))
			}
			switch format {
			case findings.JSON:
				validJSON(t, got)
			case findings.JUnit:
				validJUnit(t, got)
			case findings.SARIF:
				validSARIF(t, got)
			case findings.TAP:
				validTAP(t, got)
			}
		}
	})
}
