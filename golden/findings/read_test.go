package findings_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/golden/findings"
)

// lines are findings, one a line.
func lines(r findings.Report) (all []string) {
	for _, f := range r.Findings {
		said, _, _ := strings.Cut(f.Evidence, "\n")
		all = append(all, strings.TrimRight(fmt.Sprintf("%s %s: %s", f.Result, f.ID, said), ": "))
		if f.Severity != findings.Unknown {
			all[len(all)-1] = string(f.Severity) + " " + all[len(all)-1]
		}
	}
	return all
}

// The output of tools is read as intended. The files are from OpenSCAP 1.3.7, bats 1.8 and pytest
// 7; that of grype is similar to its output.
func TestReadTools(t *testing.T) {
	openscap := []string{
		"low pass xccdf_com.example_rule_issue", "high fail xccdf_com.example_rule_banner", "medium fail xccdf_com.example_rule_motd",
		"not checked xccdf_com.example_rule_asked: No candidate or applicable check found.", "medium not applicable xccdf_com.example_rule_zos",
	}
	for _, test := range []struct {
		file   string
		format findings.Format
		tool   string
		want   []string
	}{
		{"xccdf.xml", findings.XCCDF, "openscap 1.3.7", openscap},
		{"arf.xml", findings.XCCDF, "openscap 1.3.7", openscap},
		{"grype.sarif", findings.SARIF, "Grype 0.74.1", []string{
			"critical fail CVE-2023-45853-zlib1g: A critical vulnerability in deb package: zlib1g, version 1:1.2.13.dfsg-1 was found at: /var/lib/dpkg/status",
			"low fail CVE-2011-3374-apt: A negligible vulnerability in deb package: apt",
		}},
		{"bats.tap", findings.TAP, "tap", []string{"pass root may not log in", "fail the port is open: (in test file x.bats, line 2)", "not checked for later: no network here"}},
		{"bats.xml", findings.JUnit, "junit", []string{"pass x.bats.root may not log in", "fail x.bats.the port is open: (in test file x.bats, line 2)", "not checked x.bats.for later: no network here"}},
		{"pytest.xml", findings.JUnit, "junit", []string{
			"pass test_x.TestWeb.test_ok", "fail test_x.TestWeb.test_bad: AssertionError: port <80>", "not checked test_x.TestWeb.test_skip: later",
			`error test_x.test_err: failed on setup with "RuntimeError: no machine"`, "pass test_x.test_p[220]", "pass test_x.test_p[221]",
		}},
	} {
		src, err := os.ReadFile(filepath.Join("testdata/read", test.file))
		if err != nil {
			t.Fatal(err)
		}
		r, err := findings.Read(bytes.NewReader(src), test.format, "scan.it")
		if err != nil {
			t.Fatalf("%s: %v", test.file, err)
		}
		if diff := cmp.Diff(test.want, lines(r)); diff != "" || r.Tool != test.tool || r.Name != "scan.it" {
			t.Errorf("%s of %q (-want +got):\n%s", test.file, r.Tool, diff)
		}
		for n := range len(src) { // truncated anywhere, it is no success
			if n%1009 != 0 && n < len(src)-200 || strings.TrimSpace(string(src[n:])) == "" {
				continue
			}
			r, err := findings.Read(bytes.NewReader(src[:n]), test.format, "scan.it")
			if v := (findings.Gate{}).Judge([]findings.Report{r}, now); err == nil && (v.Open || r.Count(findings.Error) == 0 && test.format != findings.TAP) {
				t.Fatalf("%s cut at %d of %d: %q", test.file, n, len(src), lines(r))
			}
		}
	}
	src, err := os.ReadFile("testdata/read/xccdf.xml")
	if err != nil {
		t.Fatal(err)
	}
	r, err := findings.Read(bytes.NewReader(src), findings.XCCDF, "x")
	if err != nil {
		t.Fatal(err)
	}
	banner := r.Findings[1]
	if banner.Title != "SSH shows a banner" || !strings.HasPrefix(banner.Rationale, "Whoever logs in") || banner.Fix != "Write Banner /etc/issue.net to a file of sshd_config.d." || cmp.Diff(banner.Refs, []string{"EX-12"}) != "" || r.Started.IsZero() {
		t.Errorf("%+v", banner)
	}
}

func sarifOf(rules, results, more string) string {
	return `{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "t", "rules": [` + rules + `]}}` + more + `, "results": ` + results + `}]}`
}

// sarifRuns has a run for each pair of a driver and its results.
func sarifRuns(pairs ...string) string {
	var runs []string
	for i := 0; i < len(pairs); i += 2 {
		runs = append(runs, `{"tool": {"driver": {`+pairs[i]+`}}, "results": `+pairs[i+1]+`}`)
	}
	return `{"version": "2.1.0", "runs": [` + strings.Join(runs, ", ") + `]}`
}

func xccdfOf(results string) string {
	return `<TestResult xmlns="http://checklists.nist.gov/xccdf/1.2">` + results + `</TestResult>`
}

func ruleResult(id, result string) string {
	return `<rule-result idref="` + id + `" severity="high"><result>` + result + `</result></rule-result>`
}

// Every result of every format has an equivalent, and an unknown one is never a success.
func TestRead(t *testing.T) {
	for _, test := range []struct {
		format findings.Format
		src    string
		want   string // findings, or with ! the error
	}{
		{findings.SARIF, sarifOf(``, `[]`, ``), "pass t"},
		{findings.SARIF, sarifOf(``, `null`, ``), "error t: The run has no array of results: nothing was scanned."},
		{findings.SARIF, sarifOf(`{"id": "a"}`, `[]`, ``), "pass t"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"toolConfigurationNotifications": [{"level": "error", "message": {"text": "no rules"}}]}]`), "error t: The run was not successful. no rules"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"executionSuccessful": false, "toolExecutionNotifications": [{"level": "error", "message": {"text": "no database"}}]}]`), "error t: The run was not successful. no database"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a"}, {"ruleId": "b", "level": "error"}, {"ruleId": "c", "level": "note"}, {"ruleId": "d", "level": "none"}]`, ``), "medium fail a|high fail b|low fail c|fail d"},
		{findings.SARIF, sarifOf(`{"id": "a", "defaultConfiguration": {"level": "error"}, "properties": {"security-severity": 4.0}}`, `[{"ruleIndex": 0}, {"ruleId": "a/1"}]`, ``), "medium fail a|medium fail a/1"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a", "properties": {"security-severity": "7.0"}}, {"ruleId": "b", "properties": {"security-severity": "12"}}, {"ruleId": "c", "properties": {"security-severity": ["9"]}}]`, ``), "high fail a|medium fail b|medium fail c"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a", "kind": "pass"}, {"ruleId": "b", "kind": "notApplicable"}, {"ruleId": "c", "kind": "informational"}, {"ruleId": "d", "kind": "open"}, {"ruleId": "e", "kind": "review"}, {"ruleId": "f", "kind": "?"}]`, ``), "medium pass a|medium not applicable b|medium not checked c|medium error d|medium error e|medium error f"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a", "suppressions": [{"kind": "external", "status": "accepted"}, {"kind": "inSource"}]}, {"ruleId": "b", "suppressions": [{"status": "accepted"}, {"status": "rejected"}]}, {"ruleId": "c", "suppressions": []}]`, ``), "medium waived a|medium fail b|medium fail c"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a", "suppressions": [{}]}, {"ruleId": "a"}, {"ruleId": "a", "kind": "pass"}]`, ``), "medium fail a"},
		{findings.SARIF, sarifOf(``, `[{"ruleId": "a", "baselineState": "absent"}]`, ``), "pass t"},
		{findings.SARIF, sarifRuns(`"name": "a"`, `[{"ruleId": "X"}]`, `"name": "b"`, `[{"ruleId": "X"}]`), "medium fail X"},
		{findings.SARIF, sarifRuns(`"name": "a"`, `[{"ruleId": "X"}]`, `"name": "b"`, `[]`), "medium fail X|pass b"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"exitCode": 2, "exitCodeDescription": "no database"}]`), "error t: The run was not successful. Its exit code is 2. no database"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"exitSignalName": "SIGKILL"}]`), "error t: The run was not successful. It was ended by the signal SIGKILL."},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"exitSignalNumber": 9}]`), "error t: The run was not successful. It was ended by the signal 9."},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"processStartFailureMessage": "not found"}]`), "error t: The run was not successful. not found"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"executionSuccessful": true, "exitCode": 1}]`), "pass t"},
		{findings.SARIF, sarifOf(``, `[]`, `, "invocations": [{"toolExecutionNotifications": [`+strings.Repeat(`{"level": "note"},`, 30)+`{"level": "error", "message": {"text": "late"}}]}]`), "error t: The run was not successful. late"},
		{findings.SARIF, `{"version": "2.1.0", "runs": [{"tool": {"driver": {"name": "t"}, "extensions": [` + strings.Repeat(`{},`, 30) + `{"rules": [{"id": "a", "defaultConfiguration": {"level": "error"}}]}]}, "results": [{"ruleId": "a"}, {"rule": {"index": 0, "toolComponent": {"index": 30}}}]}]}`, "high fail a"},
		{findings.SARIF, `{"version": "2.0.0", "runs": []}`, `! its version is "2.0.0"`},
		{findings.SARIF, `{"version": "2.1.0", "runs": []}`, "! it has no run"},
		{findings.SARIF, `[]`, "! cannot unmarshal"},
		{findings.SARIF, ``, "! it is empty"},
		{findings.SARIF, sarifOf(``, `{}`, ``), "! where an array has to be"},
		{findings.SARIF, strings.Repeat("[", 100_000), "! "},
		{findings.SARIF, sarifOf(``, "["+strings.Repeat("{},", 500_000)+"{}]", ``), "! more than 500000 objects"},

		{findings.XCCDF, xccdfOf(ruleResult("a", "pass") + ruleResult("b", "fixed") + ruleResult("c", "error") + ruleResult("d", "unknown") + ruleResult("e", "informational") + ruleResult("f", "notselected") + ruleResult("g", "ok")), `high pass a|high fixed b|high error c|high error d: The result is unknown.|high not checked e: The result is informational.|high error g: The result is "ok".`},
		{findings.XCCDF, xccdfOf(ruleResult("a", "pass") + ruleResult("a", "fail") + ruleResult("a", "notapplicable")), "high fail a"},
		{findings.XCCDF, xccdfOf(ruleResult("", "pass") + `<rule-result idref="x"/>`), `high pass (without an ID)|error x: The result is "".`},
		{findings.XCCDF, xccdfOf(""), ""},
		{findings.XCCDF, `<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2"/>`, "! it has no TestResult"},
		{findings.XCCDF, `<TestResult/>`, "! its root element is <TestResult>"},
		{findings.XCCDF, `<!DOCTYPE x [<!ENTITY a "b">]>` + xccdfOf(ruleResult("a", "&a;")), "! line 1 has a document type declaration"},
		{findings.XCCDF, xccdfOf(ruleResult("a", "&a;")), "! invalid character entity"},
		{findings.XCCDF, xccdfOf(strings.Repeat("<a>", 300) + strings.Repeat("</a>", 300)), "! nested more than 200 deep"},
		{findings.XCCDF, xccdfOf(strings.Repeat(ruleResult("a", "pass"), 50_001)), "! more than 50000 results"},
		{findings.XCCDF, xccdfOf(ruleResult("a", "pass")) + xccdfOf(ruleResult("a", "fail")), "! a second root element"},
		{findings.XCCDF, `<?xml version="1.0" encoding="UTF-7"?>` + xccdfOf(""), "! encoding"},

		{findings.JUnit, `<testsuite name="s"><testcase name="a"/><testcase name="b" classname="c"><failure type="critical" message="m">more</failure></testcase></testsuite>`, "pass s.a|critical fail c.b: m"},
		{findings.JUnit, `<testsuites><testsuite><testsuite name="s" failures="2" errors="x"><testcase name="a"><failure/></testcase></testsuite></testsuite></testsuites>`, "fail s.a|error s: The suite says that 2 of its tests did not pass, and holds 1 such."},
		{findings.JUnit, `<testsuites errors="1"/>`, "error suite: The suite says that 1 of its tests did not pass, and holds 0 such."},
		{findings.JUnit, `<testsuite name="s"><error message="no machine"/></testsuite>`, "error s: no machine"},
		{findings.JUnit, `<testsuite><testcase name="a"><skipped/><failure message="m"/><system-out>x</system-out></testcase><testcase/></testsuite>`, "fail a: m|pass (without an ID)"},
		{findings.JUnit, `<testsuite><testcase name="a" status="notrun" result="suppressed"/><testcase name="b" status="disabled"/><testcase name="c" status="run" result="completed"/></testsuite>`, "not checked a: Its status is notrun.|not checked b: Its status is disabled.|pass c"},
		{findings.JUnit, `<testsuite><testcase name="a" status="failed"/><testcase name="b" result="ERROR"/><testcase name="c" status="failed"><failure message="m"/></testcase><testcase name="d" status="notrun"><skipped message="later"/></testcase></testsuite>`, "fail a: Its status is failed.|error b: Its result is ERROR.|fail c: m|not checked d: later"},
		{findings.JUnit, `<testsuites/>`, ""},
		{findings.JUnit, `<html/>`, "! its root element is <html>"},

		{findings.TAP, "TAP version 14\n1..3\nok 1 - a\nnot ok 2 - b\n  ---\n  severity: high\n  message: no\n  ...\n    ok 1 - inner\n    1..1\nok 3 - c \\# d # SKIP e\n", "pass a|high fail b: severity: high|not checked c # d: e"},
		{findings.TAP, "ok\nnot ok # TODO later\nok # TODO done\n1..3\n", "pass test 1|not checked test 2: To do: later|pass test 3"},
		{findings.TAP, "1..1\nnot ok 1 a # SKIP no\n", "fail a"},
		{findings.TAP, "1..2\nok 1 - a\nnot ok 2 - GET https://host/#todo/list\n", "pass a|fail GET https://host/#todo/list"},
		{findings.TAP, "1..4\nnot ok - GET https://host/#todo\nnot ok - see issue #todolist-12\nnot ok - see # todos\nnot ok - a \\# TODO b\n", "fail GET https://host/#todo|fail see issue #todolist-12|fail see # todos|fail a # TODO b"},
		{findings.TAP, "1..4\nnot ok - a #todo: b\nnot ok - c\t# Todo\nok - d #skipped e\nnot ok - #TODO f\n", "not checked a: To do: b|not checked c: To do|not checked d: e|not checked test 4: To do: f"},
		{findings.TAP, "1..2\nok 1 a\n", "pass a|error plan: There were 1 tests, and 2 were planned."},
		{findings.TAP, "ok 1 a\n", "pass a|error plan: There is no plan such as 1..1: it may have ended early."},
		{findings.TAP, "1..2\nok 1 a\nok 1 b\n", "pass a|error plan: There are two tests with the number 1."},
		{findings.TAP, "1..2\nok 1 a\nBail out! no database\n", "pass a|error Bail out!: The tests were given up.  no database|error plan: There were 1 tests, and 2 were planned."},
		{findings.TAP, "1..2\nok 1 a\nnot ok 2 a\n", "fail a"},
		{findings.TAP, "1..0 # SKIP no network\n", "not checked plan: no network"},
		{findings.TAP, "1..1\n1..1\nok\n", "! it has two plans"},
		{findings.TAP, "hello\n", "! it has no test and no plan"},
		{"yaml", "", "! is not a format that findings are read from"},
	} {
		r, err := findings.Read(strings.NewReader(test.src), test.format, "x")
		got := strings.Join(lines(r), "|")
		if err != nil {
			got = "! " + err.Error()
		}
		text, wrong := strings.CutPrefix(test.want, "! ")
		if !wrong && got != test.want || wrong && (err == nil || !strings.Contains(got, text)) {
			t.Errorf("%s %.300s\nwant %s\ngot  %.500s", test.format, test.src, test.want, got)
		}
		if v := (findings.Gate{}).Judge([]findings.Report{r}, now); err == nil && v.Open != (strings.Contains(got, "pass ") && !strings.Contains(got, "fail ") && !strings.Contains(got, "error ")) {
			t.Errorf("%s %.300s: the gate is open: %t", test.format, test.src, v.Open)
		}
	}
}

// Failures that bake has written are read as failures.
func TestReadOwn(t *testing.T) {
	for _, format := range []findings.Format{findings.SARIF, findings.JUnit} {
		r, err := findings.Read(strings.NewReader(written(t, every(), format)), format, "x")
		if err != nil {
			t.Fatal(err)
		}
		if n := r.Count(findings.Fail, findings.Error); n < 3 || r.Count(findings.Error) == 0 {
			t.Errorf("%s: %q", format, lines(r))
		}
	}
}

// FuzzRead reads what a hostile machine or scanner could write.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/read/*")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src, 0)
		f.Add(src, len(src)/2)
	}
	f.Fuzz(func(t *testing.T, src []byte, cut int) {
		if cut > 0 && cut < len(src) {
			src = src[:cut]
		}
		for _, format := range findings.Readable() {
			r, err := findings.Read(bytes.NewReader(src), format, "x")
			if err != nil {
				continue
			}
			seen := map[string]bool{}
			for _, one := range r.Findings {
				if one.ID == "" || seen[one.ID] || len(one.Evidence) > 5000 {
					t.Errorf("%s: %+v", format, one)
				}
				seen[one.ID] = true
			}
			v := findings.Gate{}.Judge([]findings.Report{r}, now)
			if v.Open && r.Count(findings.Pass, findings.Fixed, findings.Waived) == 0 {
				t.Errorf("%s: the gate is open for %q", format, lines(r))
			}
			if err := (findings.Document{Verdict: &v}).Write(new(bytes.Buffer), findings.JSON); err != nil {
				t.Error(err)
			}
		}
	})
}
