// Package findings is the common model of the results of checks and scanners: all of them
// produce findings, and gates, reports and other tools read only findings.
package findings

import (
	"time"

	"github.com/hashicorp/hcl/v2"
)

// Severity is the severity of a rule's failure.
type Severity string

// The severities, worst first. Unknown is for tools that do not report any.
const (
	Critical Severity = "critical"
	High     Severity = "high"
	Medium   Severity = "medium"
	Low      Severity = "low"
	Unknown  Severity = "unknown"
)

// Result is the outcome of checking a rule.
type Result string

// The results. Error is a rule that could not be judged; it is never better than Fail.
const (
	Pass          Result = "pass"
	Fail          Result = "fail"
	Error         Result = "error"
	NotApplicable Result = "not applicable" // with the reason as evidence
	NotChecked    Result = "not checked"    // excluded by the author of the rule
	Waived        Result = "waived"         // failed, and covered by a waiver
	Fixed         Result = "fixed"          // failed, was fixed, and then passed
)

// Finding is the result of a rule or of a check on a machine.
type Finding struct {
	ID        string   `json:"id"` // such as ssh-root-login; unique in its report
	Title     string   `json:"title,omitempty"`
	Severity  Severity `json:"severity"`
	Result    Result   `json:"result"`
	Evidence  string   `json:"evidence,omitempty"` // what was seen on the machine, bounded, without secrets
	Rationale string   `json:"rationale,omitempty"`
	Fix       string   `json:"fix,omitempty"`  // what to do, for people
	Refs      []string `json:"refs,omitempty"` // numbers in other standards, such as "C 5.1.20"
	Waiver    string   `json:"waiver,omitempty"`

	Source *hcl.Range    `json:"source,omitempty"` // location of the rule, if in a user's file
	Took   time.Duration `json:"took,omitempty"`
}

// Report is the result of a profile, a suite or a scanner on one machine.
type Report struct {
	Name     string    `json:"name"` // of the block or of the file, such as baseline
	Tool     string    `json:"tool"` // such as bake:baseline, goss or openscap
	Started  time.Time `json:"started"`
	Findings []Finding `json:"findings"`
	Warnings []string  `json:"-"` // notes on the report for the verdict of a gate
}

// Count returns the number of findings with one of the results.
func (r Report) Count(results ...Result) (n int) {
	for _, f := range r.Findings {
		for _, want := range results {
			if f.Result == want {
				n++
			}
		}
	}
	return n
}

// score returns the percentage of judged rules that passed, from 0 to 100. Fixed rules
// count as passed, and waived rules do not count. If no rule was judged, the score is 0.
func (r Report) score() float64 {
	passed := r.Count(Pass, Fixed)
	judged := passed + r.Count(Fail, Error)
	if judged == 0 {
		return 0
	}
	return 100 * float64(passed) / float64(judged)
}
