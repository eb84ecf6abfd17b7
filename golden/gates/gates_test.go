package gates_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config/schema"
	"bake/docs"
	"bake/golden/findings"
	"bake/golden/gates"
)

func texts(diags hcl.Diagnostics) string {
	var all []string
	for _, d := range diags {
		at := ""
		if d.Subject != nil {
			at = d.Subject.String() + ": "
		}
		all = append(all, at+d.Summary+": "+d.Detail)
	}
	return strings.Join(all, "\n")
}

func TestWaivers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "waivers.hcl")
	if err := os.WriteFile(path, []byte(`
waiver "ssh-root-login" {
  reason  = "The break-glass account."
  owner   = "ops@example.com"
  expires = "2027-03-31"
}
waiver "a b" {
  reason  = "x"
  owner   = "y"
  expires = "2027-03-31T12:00:00+02:00"
}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	got, diags := gates.ReadWaivers(path)
	if diags.HasErrors() {
		t.Fatal(texts(diags))
	}
	var lines []string
	for _, w := range got {
		lines = append(lines, fmt.Sprintf("%s|%s|%s|%s|%d", w.Rule, w.Reason, w.Owner, w.Expires.UTC().Format(time.RFC3339), w.Source.Start.Line))
	}
	want := []string{
		"ssh-root-login|The break-glass account.|ops@example.com|2027-03-31T23:59:59Z|2",
		"a b|x|y|2027-03-31T10:00:00Z|7",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, diags := gates.ReadWaivers(filepath.Dir(path)); !strings.Contains(texts(diags), "is not a regular file") {
		t.Errorf("a folder: %s", texts(diags))
	}
	if _, diags := gates.ReadWaivers(path + "x"); !strings.Contains(texts(diags), "waivers.hclx") {
		t.Errorf("a file that is not there: %s", texts(diags))
	}
}

func TestInvalidWaivers(t *testing.T) {
	const good = "reason = \"r\"\n  owner = \"o\"\n  expires = \"2027-03-31\""
	for src, want := range map[string]string{
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n}":                              `w.hcl:1,12-12: Missing required argument: The argument "expires" is required`,
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n  expires = null\n}":            `w.hcl:4,13-17: Missing required argument`,
		"waiver \"a\" {\n  reason = \" \"\n  owner = \"o\"\n  expires = \"2027-03-31\"\n}":  `w.hcl:2,12-15: Missing reason: A waiver needs a reason`,
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"\"\n  expires = \"2027-03-31\"\n}":   `w.hcl:3,11-13: Missing owner`,
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n  expires = \"31.3.2027\"\n}":   `w.hcl:4,13-24: Invalid date: "31.3.2027" is not a date such as "2027-03-31"`,
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n  expires = \"2027-02-30\"\n}":  `w.hcl:4,13-25: Invalid date`,
		"waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n  expires = \"\"\n}":            `w.hcl:4,13-15: Invalid date`,
		"waiver \"a\" {\n  reasons = \"r\"\n  owner = \"o\"\n  expires = \"2027-03-31\"\n}": `w.hcl:2,3-10: Unsupported argument: An argument named "reasons" is not expected here. Did you mean "reason"?`,
		"waiver \"a\" {\n  " + good + "\n}\nwaiver \"a\" {\n  " + good + "\n}":              `w.hcl:6,8-11: Duplicate waiver: There is a waiver for "a" already, at w.hcl:1,1-11.`,
		"waiver \"\" {\n  " + good + "\n}":                                                  `w.hcl:1,8-10: Missing rule`,
		"waiver {\n  " + good + "\n}":                                                       `w.hcl:1,8-9: Missing rule for waiver`,
		"waivers \"a\" {\n  " + good + "\n}":                                                `w.hcl:1,1-8: Unsupported block type: Blocks of type "waivers" are not expected here. Did you mean "waiver"?`,
		"waiver \"a\" \"b\" {\n  " + good + "\n}":                                           `w.hcl:1,12-15: Extraneous label for waiver`,
		"waiver \"a\" {\n  reason = var.x\n  owner = \"o\"\n  expires = \"2027-03-31\"\n}":  `w.hcl:2,12-15: Variables not allowed`,
		"waiver \"a\" {\n  reason = \"r\n  owner = \"o\"\n}":                                `w.hcl:2,14-3,1: Invalid multi-line string`,
		"x = 1":                   `w.hcl:1,1-2: Unsupported argument`,
		strings.Repeat("[", 2000): "nested more than 1000 levels deep",
	} {
		got, diags := gates.Waivers("w.hcl", []byte(src))
		if !strings.Contains(texts(diags), want) || !diags.HasErrors() || got != nil {
			t.Errorf("%s\ngot  %s\nwant %s", src, texts(diags), want)
		}
	}
	if got, diags := gates.Waivers("w.hcl", nil); got != nil || diags.HasErrors() {
		t.Errorf("an empty file: %v %s", got, texts(diags))
	}
}

func decode(t *testing.T, src string) (*gates.Options, hcl.Diagnostics) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(src), "g.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	o := new(gates.Options)
	_, diags = schema.Decode(schema.Input{Body: f.Body}, o)
	return o, diags
}

func TestOptions(t *testing.T) {
	o, diags := decode(t, "max_failed = { critical = 0, medium = 5 }\nmin_score = 0\nmin_applicable = 100\nwaivers = \"w.hcl\"")
	if diags.HasErrors() {
		t.Fatal(texts(diags))
	}
	zero, hundred := 0.0, 100
	waivers := []findings.Waiver{{Rule: "a"}}
	want := findings.Gate{MaxFailed: map[findings.Severity]int{findings.Critical: 0, findings.Medium: 5}, MinScore: &zero, MinApplicable: &hundred, Waivers: waivers}
	if diff := cmp.Diff(want, o.Gate(waivers)); diff != "" || o.Waivers != "w.hcl" {
		t.Errorf("%q (-want +got):\n%s", o.Waivers, diff)
	}
	if o, _ := decode(t, "max_failed = {}"); o.Gate(nil).MaxFailed != nil {
		t.Error("without a severity there are limits")
	}
	for src, want := range map[string]string{
		"max_failed = { hihg = 0 }":    `g.hcl:1,14-26: Unknown severity: There is no severity "hihg". Did you mean "high"? There are critical, high, medium, low, unknown.`,
		"max_failed = { high = -1 }":   `g.hcl:1,14-27: Negative number`,
		"max_failed = { high = 1.5 }":  `g.hcl:1,14-28: Invalid value: Argument "max_failed": `,
		"max_failed = { high = null }": `Null value`,
		"min_score = 101":              `g.hcl:1,13-16: Invalid score`,
		"min_score = -1":               `Invalid score`,
		"min_score = \"most\"":         `g.hcl:1,13-19: Invalid value`,
		"min_applicable = -1":          `g.hcl:1,18-20: Negative number`,
		"min_aplicable = 1":            `g.hcl:1,1-14: Unsupported argument: An argument named "min_aplicable" is not expected here. Did you mean "min_applicable"?`,
	} {
		if _, diags := decode(t, src); !strings.Contains(texts(diags), want) || !diags.HasErrors() {
			t.Errorf("%s\ngot  %s\nwant %s", src, texts(diags), want)
		}
	}
	documented, err := docs.Options(gates.Options{})
	if err != nil || len(documented) != 4 {
		t.Errorf("%v %v", documented, err)
	}
}

// TestGuide: the examples of the guide are read.
func TestGuide(t *testing.T) {
	guide, err := os.ReadFile("../../docs/findings.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, part := range strings.Split(string(guide), "```hcl\n")[1:] {
		block, _, _ := strings.Cut(part, "```")
		blocks = append(blocks, block)
	}
	if len(blocks) != 2 {
		t.Fatalf("the guide has %d examples", len(blocks))
	}
	body := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(blocks[0]), "gate {"), "}")
	if o, diags := decode(t, body); diags.HasErrors() || o.MinApplicable == nil || len(o.MaxFailed) != 3 {
		t.Errorf("gate = %+v, want min_applicable and 3 limits; diagnostics: %s", o, texts(diags))
	}
	if all, diags := gates.Waivers("guide", []byte(blocks[1])); diags.HasErrors() || len(all) != 1 {
		t.Errorf("waivers = %+v, want one; diagnostics: %s", all, texts(diags))
	}
}

func TestParseMaxFailed(t *testing.T) {
	got, err := gates.ParseMaxFailed([]string{"high=1", "low=20", "high=2"})
	if diff := cmp.Diff(map[string]int{"high": 2, "low": 20}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"", "high", "high=", "high=-1", "high=1.5", "high=9999999999", "hihg=1", "=1"} {
		if _, err := gates.ParseMaxFailed([]string{"low=1", text}); err == nil || !strings.Contains(err.Error(), "is not SEVERITY=N with one of critical, high, medium, low, unknown") {
			t.Errorf("%q: %v", text, err)
		}
	}
}
