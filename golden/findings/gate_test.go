package findings_test

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/golden/findings"
)

func finding(id string, s findings.Severity, r findings.Result) findings.Finding {
	return findings.Finding{ID: id, Severity: s, Result: r}
}

func report(fs ...findings.Finding) findings.Report {
	return findings.Report{Name: "base", Tool: "goss", Findings: fs}
}

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func TestGate(t *testing.T) {
	const (
		pass, fail, wrong, na, skip, fixed = findings.Pass, findings.Fail, findings.Error, findings.NotApplicable, findings.NotChecked, findings.Fixed
		critical, high, medium, low, none  = findings.Critical, findings.High, findings.Medium, findings.Low, findings.Unknown
	)
	max := func(pairs ...any) map[findings.Severity]int {
		m := map[findings.Severity]int{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i].(findings.Severity)] = pairs[i+1].(int)
		}
		return m
	}
	score, number := func(f float64) *float64 { return &f }, func(n int) *int { return &n }
	waiver := func(rule string, days int) findings.Gate {
		return findings.Gate{Waivers: []findings.Waiver{{Rule: rule, Reason: "old clients", Owner: "ops", Expires: now.AddDate(0, 0, days)}}}
	}
	expired := waiver("a", 0)
	expired.MaxFailed = max(high, 5)
	for name, c := range map[string]struct {
		gate     findings.Gate
		reports  []findings.Report
		reasons  []string
		warnings []string
	}{
		"all pass":                     {reports: []findings.Report{report(finding("a", high, pass), finding("b", none, fixed))}},
		"no report":                    {reasons: []string{"nothing was checked"}},
		"empty report":                 {reports: []findings.Report{report()}, reasons: []string{"base: no rule was checked"}},
		"one of two reports is empty":  {reports: []findings.Report{report(finding("a", high, pass)), {Name: "web"}}, reasons: []string{"web: no rule was checked"}},
		"nothing applies":              {reports: []findings.Report{report(finding("a", high, na), finding("b", high, skip))}, reasons: []string{"base: none of 2 rules applies to the machine"}},
		"no failure without limits":    {reports: []findings.Report{report(finding("a", low, fail))}, reasons: []string{"1 rule of severity low failed (limit: 0): a"}},
		"an error, whatever the limit": {gate: findings.Gate{MaxFailed: max(critical, 9, low, 9)}, reports: []findings.Report{report(finding("a", low, wrong))}, reasons: []string{"base: 1 rule could not be judged: a"}},
		"an error, whatever the score": {gate: findings.Gate{MinScore: score(0)}, reports: []findings.Report{report(finding("a", low, wrong))}, reasons: []string{"base: 1 rule could not be judged: a"}},
		"a result that there is not":   {reports: []findings.Report{report(finding("a", low, ""), finding("b", low, "PASS"))}, reasons: []string{"base: 2 rules could not be judged: a, b"}},
		"within the limits":            {gate: findings.Gate{MaxFailed: max(critical, 0, high, 0, medium, 2)}, reports: []findings.Report{report(finding("a", medium, fail), finding("b", medium, fail), finding("c", low, fail))}},
		"over a limit":                 {gate: findings.Gate{MaxFailed: max(medium, 1)}, reports: []findings.Report{report(finding("a", medium, fail)), report(finding("b", medium, fail))}, reasons: []string{"2 rules of severity medium failed (limit: 1): a, b"}},
		"worse than what is named":     {gate: findings.Gate{MaxFailed: max(medium, 1)}, reports: []findings.Report{report(finding("a", critical, fail), finding("b", high, fail))}, reasons: []string{"1 rule of severity critical failed (limit: 0): a", "1 rule of severity high failed (limit: 0): b"}},
		"unknown, not named":           {gate: findings.Gate{MaxFailed: max(critical, 0)}, reports: []findings.Report{report(finding("a", none, fail))}, reasons: []string{"1 rule of severity unknown failed (limit: 0): a"}},
		"unknown, named":               {gate: findings.Gate{MaxFailed: max(none, 1)}, reports: []findings.Report{report(finding("a", none, fail), finding("b", high, fail))}},
		"a severity that there is not": {gate: findings.Gate{MaxFailed: max(critical, 0)}, reports: []findings.Report{report(finding("a", "CRITICAL", fail))}, reasons: []string{"1 rule of severity unknown failed (limit: 0): a"}},
		"enough score":                 {gate: findings.Gate{MinScore: score(50)}, reports: []findings.Report{report(finding("a", high, pass), finding("b", high, fail), finding("c", high, na))}},
		"too low a score":              {gate: findings.Gate{MinScore: score(66.67)}, reports: []findings.Report{report(finding("a", high, pass), finding("b", high, pass)), report(finding("c", high, fail))}, reasons: []string{"the score is 66.66, and must be at least 66.67"}},
		"a score that is no number":    {gate: findings.Gate{MinScore: score(math.NaN())}, reports: []findings.Report{report(finding("a", high, pass))}, reasons: []string{"the score is 100, and must be at least NaN"}},
		"a report that warns":          {reports: []findings.Report{{Name: "base", Findings: []findings.Finding{finding("a", high, pass)}, Warnings: []string{"14 rules wait"}}}, warnings: []string{"14 rules wait"}},
		"enough applies":               {gate: findings.Gate{MinApplicable: number(2)}, reports: []findings.Report{report(finding("a", high, pass)), report(finding("b", high, pass))}},
		"too little applies":           {gate: findings.Gate{MinApplicable: number(2)}, reports: []findings.Report{report(finding("a", high, pass), finding("b", high, na))}, reasons: []string{"1 rule applies to the machine, and at least 2 must"}},

		"waived":                    {gate: waiver("a", 1), reports: []findings.Report{report(finding("a", high, fail))}},
		"waived in every report":    {gate: waiver("a", 1), reports: []findings.Report{report(finding("a", high, fail)), report(finding("a", low, fail))}},
		"expired":                   {gate: waiver("a", 0), reports: []findings.Report{report(finding("a", high, fail))}, reasons: []string{"the waiver of a expired on 2026-11-28 12:00 UTC (owner: ops)", "1 rule of severity high failed (limit: 0): a"}},
		"expired, whatever limits":  {gate: expired, reports: []findings.Report{report(finding("a", high, fail))}, reasons: []string{"the waiver of a expired on 2026-11-28 12:00 UTC (owner: ops)"}},
		"expired, not needed":       {gate: waiver("a", -1), reports: []findings.Report{report(finding("a", high, pass))}, warnings: []string{"the waiver of a is not needed: the rule does not fail"}},
		"errors are not waived":     {gate: waiver("a", 1), reports: []findings.Report{report(finding("a", high, wrong))}, reasons: []string{"base: 1 rule could not be judged: a"}, warnings: []string{"the waiver does not help: a did not fail, it could not be judged"}},
		"a rule that there is not":  {gate: waiver("ssh-root-logon", 1), reports: []findings.Report{report(finding("ssh-root-login", high, pass))}, warnings: []string{`there is no rule "ssh-root-logon" to waive. Did you mean "ssh-root-login"?`}},
		"a waiver is no wildcard":   {gate: waiver("*", 1), reports: []findings.Report{report(finding("a", high, fail))}, reasons: []string{"1 rule of severity high failed (limit: 0): a"}, warnings: []string{`there is no rule "*" to waive.`}},
		"all is waived, with score": {gate: findings.Gate{MinScore: score(10), Waivers: waiver("a", 1).Waivers}, reports: []findings.Report{report(finding("a", high, fail))}, reasons: []string{"there is no score: no rule was judged"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := c.gate.Judge(c.reports, now)
			if diff := cmp.Diff(c.reasons, v.Reasons); diff != "" {
				t.Errorf("reasons (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.warnings, v.Warnings); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
			if v.Open != (len(c.reasons) == 0) {
				t.Errorf("open is %t", v.Open)
			}
			if diff := cmp.Diff(v, c.gate.Judge(c.reports, now)); diff != "" {
				t.Errorf("another verdict on the same:\n%s", diff)
			}
		})
	}
}

func TestGateKeepsReports(t *testing.T) {
	in := []findings.Report{report(finding("a", findings.High, findings.Fail))}
	g := findings.Gate{Waivers: []findings.Waiver{{Rule: "a", Reason: "old clients", Owner: "ops", Expires: now.AddDate(0, 0, 1)}}}
	v := g.Judge(in, now)
	if in[0].Findings[0].Result != findings.Fail {
		t.Error("the report that was judged has changed")
	}
	if f := v.Reports[0].Findings[0]; f.Result != findings.Waived || f.Waiver != "old clients (owner: ops, until 2026-11-29 12:00 UTC)" {
		t.Errorf("the rule is %q: %q", f.Result, f.Waiver)
	}
	if again := (findings.Gate{}).Judge(v.Reports, now); !again.Open {
		t.Errorf("what is waived closes another gate: %s", again.Reasons)
	}
}

func TestGateShortens(t *testing.T) {
	var all []findings.Finding
	for range 1000 {
		all = append(all, finding("x\x1b[2J"+strings.Repeat("y", 10000), findings.High, findings.Fail))
	}
	v := findings.Gate{}.Judge([]findings.Report{report(all...)}, now)
	if len(v.Reasons) != 1 || len(v.Reasons[0]) > 1000 || strings.Contains(v.Reasons[0], "\x1b") || !strings.HasSuffix(v.Reasons[0], "and 995 more") {
		t.Errorf("got %q", v.Reasons)
	}
}

func TestSeverities(t *testing.T) {
	all := findings.Severities()
	if all[0] != findings.Critical || all[len(all)-1] != findings.Unknown || len(slices.Compact(all)) != 5 {
		t.Errorf("got %q", all)
	}
}
