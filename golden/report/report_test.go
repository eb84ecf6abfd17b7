package report_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/findings"
	"bake/golden/manifest"
	"bake/golden/report"
	"bake/step"
)

// hostile are texts that would be dangerous if they were interpreted as markup, as a
// program or by a terminal.
func hostile() []string {
	return []string{
		`</script><script>alert(1)</script>`, `<img src=x onerror=alert(2)>`, `" onmouseover="alert(3)`, `'><svg/onload=alert(4)>`, `&lt;b&gt;`,
		"\x1b[31mred\x1b]0;title\x07", "abc\u202egnp.exe", "\xff\xfe bad", "\u2028\u2066x\u2069", "]]>--><!--", "%s %d 100%", "</style><style>*{display:none}</style>", "{{.}}",
	}
}

// run are the events of a run with text in every field.
func run(t *testing.T, text string) (*report.Report, string) {
	t.Helper()
	document := findings.Document{
		Machine: text, Verdict: &findings.Verdict{Reasons: []string{text}, Warnings: []string{text}, Reports: []findings.Report{{
			Name: text, Tool: text, Findings: []findings.Finding{
				{ID: text, Title: text + "!", Severity: findings.High, Result: findings.Fail, Evidence: text, Rationale: text, Fix: text, Refs: []string{text}},
				{ID: "ok", Severity: findings.Low, Result: findings.Pass},
				{ID: "waived", Severity: findings.Severity(text), Result: findings.Waived, Waiver: text},
			},
		}}},
	}
	for i := range 9 {
		all := &document.Verdict.Reports[0].Findings
		*all = append(*all, findings.Finding{ID: fmt.Sprint("more ", i), Severity: findings.Medium, Result: findings.Pass})
	}
	r := report.New(text, text, reader(t, text, document))
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	after := func(n int) time.Time { return at.Add(time.Duration(n) * time.Second) }
	for _, e := range []step.Event{
		{Time: at, Kind: step.RunStarted, Text: "amazon-ebs.web", Command: text},
		{Time: at, Kind: step.BuildStarted, Build: "amazon-ebs.web"},
		{Time: after(1), Kind: step.StepStarted, Build: "amazon-ebs.web", Step: text},
		{Time: after(2), Kind: step.StepStarted, Build: "amazon-ebs.web", Step: text + " > inner"},
		{Time: after(3), Kind: step.StepFailed, Build: "amazon-ebs.web", Step: text + " > inner"},
		{Time: after(4), Kind: step.StepStarted, Build: "amazon-ebs.web", Step: text + " > inner"},
		{Time: after(5), Kind: step.StepFinished, Build: "amazon-ebs.web", Step: text + " > inner"},
		{Time: after(9), Kind: step.StepFinished, Build: "amazon-ebs.web", Step: text},
		{Time: after(9), Kind: step.Warning, Build: "amazon-ebs.web", Text: text},
		{Time: after(9), Kind: step.Reported, Build: "amazon-ebs.web", Report: &step.Report{Name: text, Kind: step.FindingsReport, Path: text, SHA256: text}},
		{Time: after(9), Kind: step.Reported, Build: "amazon-ebs.web", Report: &step.Report{Name: "gone", Kind: step.FindingsReport, Path: "gone"}},
		{Time: after(9), Kind: step.Reported, Build: "amazon-ebs.web", Report: &step.Report{Name: text, Kind: "cyclonedx", Path: "sbom"}},
		{Time: after(9), Kind: step.Reported, Build: "amazon-ebs.web", Report: &step.Report{Name: "spdx", Kind: "spdx", Path: "gone"}},
		{Time: after(9), Kind: step.Reported, Build: "amazon-ebs.web", Report: &step.Report{Name: text, Kind: ".changes.json", Path: "changes"}},
		{Time: after(9), Kind: step.ImagePlaced, Build: "amazon-ebs.web", Placed: &step.Placement{Account: text, Region: text, ID: text}},
		{Time: after(9), Kind: step.ImagePlaced, Build: "amazon-ebs.web", Placed: &step.Placement{Account: "987654321098", Region: "eu-west-1", ID: "ami-2", Shared: true}},
		{Time: after(9), Kind: step.ImagePlaced, Build: "amazon-ebs.web", Placed: &step.Placement{Account: "987654321098", Region: "eu-west-1", ID: "ami-2", Shared: true}},
		{Time: after(9), Kind: step.ChannelAsked, Build: "amazon-ebs.web", Channel: &step.Channel{Name: text, Parameter: text, Reasons: []string{text}}},
		{Time: after(9), Kind: step.ChannelAsked, Build: "amazon-ebs.web", Channel: &step.Channel{Name: "stable", Parameter: "/bake/web/stable", Reasons: []string{"not yet"}}},
		{Time: after(9), Kind: step.ChannelAsked, Build: "amazon-ebs.web", Channel: &step.Channel{Name: "stable", Parameter: "/bake/web/stable", Names: true}},
		{Time: after(9), Kind: step.ArtifactMade, Build: "amazon-ebs.web", Artifact: map[string]any{"images": map[string]string{"eu-west-1": "ami-1", "us-east-1": text}, "files": []string{text}}},
		{Time: after(10), Kind: step.BuildFailed, Build: "amazon-ebs.web", Elapsed: 10 * time.Second, Error: errors.New(text), Place: text},
		{Time: after(10), Kind: step.ResourceLeft, Build: "amazon-ebs.web", Resource: &step.Resource{Kind: text, Key: text}},
		{Time: after(10), Kind: step.RunFinished, Elapsed: 10 * time.Second},
	} {
		r.Handle(e)
	}
	var page bytes.Buffer
	if err := r.Report().HTML(&page); err != nil {
		t.Fatal(err)
	}
	return r.Report(), page.String()
}

// reader returns documents with text in every field.
func reader(t *testing.T, text string, of findings.Document) func(step.Report) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	if err := of.Write(&b, findings.JSON); err != nil {
		t.Fatal(err)
	}
	var sbom bytes.Buffer
	installed := contents.Contents{OS: contents.OS{ID: "debian"}, Packages: []contents.Package{{Kind: contents.Deb, Name: text, Version: text, Arch: text}}}
	for i := range 9 {
		installed.Packages = append(installed.Packages, contents.Package{Kind: contents.RPM, Name: fmt.Sprint("more-", i), Version: "1", Epoch: "2"})
	}
	if err := installed.Write(&sbom, contents.CycloneDX, contents.Document{Name: text}); err != nil {
		t.Fatal(err)
	}
	differs, err := json.Marshal(map[string]any{"before": text, "after": "ami-1", "changes": changes.Set{
		Packages: []contents.Change{{Kind: contents.Kind(text), Name: text, Arch: text, After: text}, {Kind: "deb", Name: "gone", Before: "1"}, {Kind: "deb", Name: "new", Before: "1", After: "2"}},
		Files:    []manifest.Change{{Path: text, What: text}},
		Checks:   []changes.CheckChange{{Check: text, Before: text}},
		Unknown:  []string{text},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return func(d step.Report) ([]byte, error) {
		switch d.Path {
		case "gone":
			return nil, errors.New(text)
		case "sbom":
			return sbom.Bytes(), nil
		case "changes":
			return differs, nil
		}
		return b.Bytes(), nil
	}
}

// tags returns the tags of a page, without variable parts.
func tags(page string) []string {
	page = regexp.MustCompile(`(?s)<style>.*?</style>`).ReplaceAllString(page, "<style>")
	return regexp.MustCompile(`<[^>]*>`).FindAllString(page, -1)
}

// Whatever a text holds, the page has the same tags, and shows the text.
func TestHostile(t *testing.T) {
	_, plain := run(t, "plain text")
	want := tags(plain)
	for _, text := range hostile() {
		_, page := run(t, text)
		got := tags(page)
		for i := range want {
			if i < len(got) && strings.Contains(want[i], "plain text") { // as the value of an attribute
				got[i] = want[i]
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("%q changes the tags of the page:\n%s", text, page)
		}
		if i := strings.IndexFunc(page, func(r rune) bool {
			return r == 0x1b || r == 7 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
		}); i >= 0 {
			t.Errorf("%q is in the page as it is: %q", text, page[i:i+30])
		}
	}
	_, page := run(t, hostile()[0])
	if n := strings.Count(page, "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;"); n < 15 {
		t.Errorf("the text is shown %d times", n)
	}
}

// The report and the page both contain what happened.
func TestReport(t *testing.T) {
	r, page := run(t, "x")
	b := r.Builds[0]
	if r.State != "failed" || r.Seconds != 10 || len(b.Steps) != 3 || len(b.Images) != 2 || b.Images[0].Launch != "aws ec2 run-instances --region eu-west-1 --image-id ami-1 --instance-type t3.micro" {
		t.Errorf("%+v", b)
	}
	if s := b.Steps[1]; !s.Failed || s.Begin != 2 || s.End != 3 || b.Steps[2].Failed || b.Steps[2].End != 5 || b.Steps[0].End != 9 {
		t.Errorf("%+v %+v %+v", b.Steps[0], s, b.Steps[2])
	}
	if len(b.Findings) != 2 || b.Findings[0].Gate.Open || b.Findings[1].Missing == "" {
		t.Errorf("%+v", b.Findings)
	}
	for _, text := range []string{
		"<h1>Run <code>x</code></h1>", `<i style="margin-left:20.00%;width:10.00%"></i>`, "the gate is closed", "the document cannot be shown: x", "ami-1",
		`<tr role="row" data-result="fail" data-severity="high">`, `data-rows="findings-0">`, "2026-11-28 12:00:00 UTC", `<span class="state bad">failed</span>`,
	} {
		if !strings.Contains(page, text) {
			t.Errorf("it lacks %s\n%s", text, page)
		}
	}
	for _, text := range []string{
		"2 places in 2 accounts", `<td role="cell">987654321098</td><td role="cell">eu-west-1</td><td role="cell"><code>ami-2</code></td><td role="cell">shared with it</td>`,
		`<td role="cell">stable</td><td role="cell"><code>/bake/web/stable</code></td><td role="cell"><span class="state good">names the image</span></td>`,
		"<summary>10 packages: 1 deb, 9 rpm</summary>", `<tr role="row" data-kind="rpm"><td role="cell">more-0</td><td role="cell">2:1</td>`, `data-rows="packages-0"`,
		"<details open><summary>Packages: 1 added, 1 removed, 1 changed (3)</summary>", `<td role="cell">changed</td><td role="cell">new (deb)</td><td role="cell">1</td><td role="cell">2</td>`,
		`<td role="cell">removed</td>`, "Files that differ", `<td role="cell">x</td><td role="cell">x</td><td role="cell">not checked</td>`, "Not known of both, and not compared: x",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("it lacks %s\n%s", text, page)
		}
	}
	if len(b.Places) != 2 || len(b.Channels) != 2 || b.Contents.Count != 10 || b.Contents.Missing != "" || len(b.Changes.Packages) != 3 {
		t.Errorf("%+v", b)
	}
	if i := strings.Index(page, `data-result="fail"`); i > strings.Index(page, `data-result="pass"`) || i < 0 {
		t.Error("what failed is not first")
	}
	var out bytes.Buffer
	if err := r.JSON(&out); err != nil {
		t.Fatal(err)
	}
	var back report.Report
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Version != 1 || len(back.Builds) != 1 {
		t.Errorf("%v: %s", err, out.String())
	}
}

// A run that was killed has a report too.
func TestUnfinished(t *testing.T) {
	b := report.New("r", "v", nil)
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	b.Handle(step.Event{Time: at, Kind: step.RunStarted, Text: "null.a\nnull.b"})
	b.Handle(step.Event{Time: at, Kind: step.StepStarted, Build: "null.a", Step: "wait"})
	b.Handle(step.Event{Time: at.Add(-time.Hour), Kind: step.StepFinished, Build: "null.a", Step: "nothing"}) // the clock was set back
	b.Handle(step.Event{Time: at.Add(3 * time.Second), Kind: step.Say, Build: "null.a"})
	r := b.Report()
	if r.State != "unfinished" || r.Seconds != 3 || len(r.Builds) != 2 || r.Builds[0].Steps[0].End != 3 {
		t.Errorf("%+v %+v", r, r.Builds[0].Steps[0])
	}
	var page bytes.Buffer
	if err := (&report.Report{}).HTML(&page); err != nil || !strings.Contains(page.String(), "The run had no builds.") {
		t.Errorf("%v: %s", err, page.String())
	}
}

// Lists from a machine are limited, and so are the texts in them; the report says how
// much was omitted.
func TestBounded(t *testing.T) {
	long := strings.Repeat("ä", 100_000)
	set := changes.Set{}
	for i := range 10_003 {
		set.Files = append(set.Files, manifest.Change{Path: fmt.Sprint("/f/", i), What: "is new"})
	}
	set.Checks = []changes.CheckChange{{Check: long}}
	installed := contents.Contents{OS: contents.OS{ID: "debian"}}
	for i := range 10_002 {
		installed.Packages = append(installed.Packages, contents.Package{Kind: contents.Deb, Name: fmt.Sprint("p", i), Version: "1"})
	}
	r := report.New("r", "v", func(d step.Report) ([]byte, error) {
		var b bytes.Buffer
		var err error
		if d.Kind == changes.Extension {
			err = json.NewEncoder(&b).Encode(map[string]any{"before": "ami-1", "changes": set})
		} else {
			err = installed.Write(&b, contents.SPDX, contents.Document{})
		}
		return b.Bytes(), err
	})
	for _, e := range []step.Event{
		{Kind: step.RunStarted, Text: "null.a"},
		{Kind: step.Reported, Build: "null.a", Report: &step.Report{Name: "sbom", Kind: "spdx"}},
		{Kind: step.Reported, Build: "null.a", Report: &step.Report{Name: "changes", Kind: changes.Extension}},
	} {
		r.Handle(e)
	}
	for range 600 {
		r.Handle(step.Event{Kind: step.Warning, Build: "null.a", Text: "again"})
	}
	b := r.Report().Builds[0]
	if b.Contents.Count != 10_002 || len(b.Contents.Packages) != 10_000 || len(b.Changes.Files) != 10_000 || b.Changes.Omitted != 3 || len(b.Changes.Checks[0].Check) > 600 {
		t.Errorf("%d %d %d %d %d", b.Contents.Count, len(b.Contents.Packages), len(b.Changes.Files), b.Changes.Omitted, len(b.Changes.Checks[0].Check))
	}
	var page bytes.Buffer
	if err := r.Report().HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"Installed packages (10000 of 10002; the rest is in its document)", "<p>3 more are only in the document.</p>", "<li>and 100 more</li>"} {
		if !strings.Contains(page.String(), text) {
			t.Errorf("it lacks %s", text)
		}
	}
}

// A modified or invalid document is named, and the rest of the report is there.
func TestMissing(t *testing.T) {
	r := report.New("r", "v", func(d step.Report) ([]byte, error) { return []byte("{"), nil })
	for _, kind := range []string{step.FindingsReport, "spdx", changes.Extension} {
		r.Handle(step.Event{Kind: step.Reported, Build: "null.a", Report: &step.Report{Name: "doc", Kind: kind}})
	}
	b := r.Report().Builds[0]
	if b.Findings[0].Missing == "" || b.Contents.Missing == "" || b.Changes.Missing == "" {
		t.Errorf("%+v", b)
	}
	var page bytes.Buffer
	if err := r.Report().HTML(&page); err != nil || strings.Count(page.String(), "cannot be shown") != 3 {
		t.Errorf("%v: %s", err, page.String())
	}
}

// A build that had nothing to do says so.
func TestReused(t *testing.T) {
	r := report.New("r", "v", nil)
	r.Handle(step.Event{Kind: step.RunStarted, Text: "null.a\nnull.b"})
	r.Handle(step.Event{Kind: step.BuildFinished, Build: "null.a", Reused: true})
	r.Handle(step.Event{Kind: step.ArtifactMade, Build: "null.a", Artifact: map[string]any{"images": map[string]string{"eu-west-1": "ami-1"}, "resources": []step.Resource{{With: map[string]string{"cloud": "local"}}}}})
	var page bytes.Buffer
	if err := r.Report().HTML(&page); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`<nav aria-label="Builds">`, `<a href="#build-0">null.a</a> <span class="state good">reused</span>`, "Nothing had to be built.", "<pre>bake cloud run -region eu-west-1 ami-1</pre>"} {
		if !strings.Contains(page.String(), text) {
			t.Errorf("it lacks %s\n%s", text, page.String())
		}
	}
}
