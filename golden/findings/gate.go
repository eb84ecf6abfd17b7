package findings

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"

	"bake/internal/prose"
)

// Severities returns all severities, worst first.
func Severities() []Severity { return []Severity{Critical, High, Medium, Low, Unknown} }

// Waiver accepts the failure of a rule.
type Waiver struct {
	Rule    string // ID of the findings, in every report
	Reason  string
	Owner   string
	Expires time.Time // the rule fails again from then on

	Source *hcl.Range // location, if in a file
}

// Gate decides whether a build may continue with an image. The zero Gate accepts no
// failure.
type Gate struct {
	// MaxFailed is how many findings of each severity may fail. A severity without an entry
	// has no limit, unless a less severe one has an entry: then none may fail. Findings of
	// unknown severity may not fail either unless Unknown has an entry, since their
	// severity could be any. Nil: no finding may fail, or any number if MinScore is set.
	MaxFailed map[Severity]int

	MinScore      *float64 // of all reports together, from 0 to 100
	MinApplicable *int     // minimum number of rules in all reports that must apply to the machine

	Waivers []Waiver
}

// Verdict is the decision of a gate.
type Verdict struct {
	Open     bool
	Reasons  []string // why it is closed
	Warnings []string // remarks that do not close it
	Reports  []Report // with waivers applied
}

// Judge judges reports. The same g, reports and now always give the same Verdict; reports
// are not changed.
//
// Anything that could not be judged closes the gate, regardless of its limits: no report,
// a report without an applicable rule, or a rule that ended in an error. Waivers cover
// failures, but not errors. An expired waiver for a rule that does not pass closes the
// gate too.
func (g Gate) Judge(reports []Report, now time.Time) Verdict {
	j := judge{gate: g, now: now}
	for _, r := range reports {
		r.Findings = slices.Clone(r.Findings)
		for i := range r.Findings {
			r.Findings[i] = r.Findings[i].sound()
		}
		j.reports = append(j.reports, r)
		j.warnings = append(j.warnings, r.Warnings...)
	}
	j.waive()
	j.judged()
	j.limits()
	return Verdict{Open: len(j.reasons) == 0, Reasons: j.reasons, Warnings: j.warnings, Reports: j.reports}
}

// sound returns the finding with an invalid severity replaced by Unknown, and an invalid
// result by Error.
func (f Finding) sound() Finding {
	if !slices.Contains(Severities(), f.Severity) {
		f.Severity = Unknown
	}
	if !slices.Contains([]Result{Pass, Fail, Error, NotApplicable, NotChecked, Waived, Fixed}, f.Result) {
		f.Evidence = strings.TrimSpace(fmt.Sprintf("The result %q is not known. %s", f.Result, f.Evidence))
		f.Result = Error
	}
	return f
}

// judge is one judgement.
type judge struct {
	gate     Gate
	now      time.Time
	reports  []Report
	reasons  []string
	warnings []string
}

func (j *judge) close(format string, args ...any) {
	j.reasons = append(j.reasons, fmt.Sprintf(format, args...))
}

func (j *judge) warn(format string, args ...any) {
	j.warnings = append(j.warnings, fmt.Sprintf(format, args...))
}

// waive applies the waivers.
func (j *judge) waive() {
	ids := map[string][]*Finding{}
	for _, r := range j.reports {
		for i := range r.Findings {
			f := &r.Findings[i]
			ids[f.ID] = append(ids[f.ID], f)
		}
	}
	for _, w := range j.gate.Waivers {
		at := ""
		if w.Source != nil {
			at = w.Source.String() + ": "
		}
		found := ids[w.Rule]
		failed := slices.ContainsFunc(found, func(f *Finding) bool { return f.Result == Fail })
		wrong := slices.ContainsFunc(found, func(f *Finding) bool { return f.Result == Error })
		expired := !j.now.Before(w.Expires)
		day := w.Expires.UTC().Format("2006-01-02 15:04 MST")
		switch {
		case len(found) == 0:
			j.warn("%sthere is no rule %q to waive.%s", at, w.Rule, nearest(w.Rule, slices.Sorted(maps.Keys(ids))))
		case expired && (failed || wrong):
			j.close("%sthe waiver of %s expired on %s (owner: %s)", at, w.Rule, day, w.Owner)
		case failed:
			for _, f := range found {
				if f.Result == Fail {
					f.Result, f.Waiver = Waived, fmt.Sprintf("%s (owner: %s, until %s)", w.Reason, w.Owner, day)
				}
			}
		case wrong:
			j.warn("%sthe waiver does not help: %s did not fail, it could not be judged", at, w.Rule)
		case !slices.ContainsFunc(found, func(f *Finding) bool { return f.Result == Waived }):
			j.warn("%sthe waiver of %s is not needed: the rule does not fail", at, w.Rule)
		}
	}
}

// nearest returns the name that was probably meant.
func nearest(name string, names []string) string {
	best, distance := "", 4
	for _, n := range names {
		if d := levenshtein.Distance(name, n, nil); d < distance && 3*d < 2*len(name) {
			best, distance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// applicable counts the rules that apply to the machine, whatever their result.
func (r Report) applicable() int { return r.Count(Pass, Fixed, Fail, Error, Waived) }

// judged closes the gate if anything could not be judged.
func (j *judge) judged() {
	if len(j.reports) == 0 {
		j.close("nothing was checked")
	}
	for _, r := range j.reports {
		switch n := len(r.Findings); {
		case n == 0:
			j.close("%s: no rule was checked", r.Name)
		case r.applicable() == 0:
			j.close("%s: none of %s applies to the machine", r.Name, prose.Count(n, "rule"))
		}
		if n := r.Count(Error); n > 0 {
			j.close("%s: %s could not be judged: %s", r.Name, prose.Count(n, "rule"), names(r.Findings, func(f Finding) bool { return f.Result == Error }))
		}
	}
}

// limits closes the gate if its limits are exceeded.
func (j *judge) limits() {
	all := Report{}
	for _, r := range j.reports {
		all.Findings = append(all.Findings, r.Findings...)
	}
	for _, s := range Severities() {
		failed := func(f Finding) bool { return f.Result == Fail && f.Severity == s }
		n := 0
		for _, f := range all.Findings {
			if failed(f) {
				n++
			}
		}
		if limit := j.gate.limit(s); n > limit {
			j.close("%s of severity %s failed (limit: %d): %s", prose.Count(n, "rule"), s, limit, names(all.Findings, failed))
		}
	}
	if low := j.gate.MinScore; low != nil {
		switch score := all.score(); {
		case all.Count(Pass, Fixed, Fail, Error) == 0:
			j.close("there is no score: no rule was judged")
		case !(score >= *low): // also for NaN
			j.close("the score is %s, and must be at least %s", decimals(score), decimals(*low))
		}
	}
	if low, n := j.gate.MinApplicable, all.applicable(); low != nil && n < *low {
		verb := "apply"
		if n == 1 {
			verb = "applies"
		}
		j.close("%s %s to the machine, and at least %d must", prose.Count(n, "rule"), verb, *low)
	}
}

// limit returns how many findings of the severity may fail.
func (g Gate) limit(s Severity) int {
	if limit, ok := g.MaxFailed[s]; ok {
		return limit
	}
	if g.MaxFailed == nil {
		if g.MinScore != nil {
			return math.MaxInt
		}
		return 0
	}
	if s == Unknown {
		return 0
	}
	all := Severities()
	for _, lesser := range all[slices.Index(all, s)+1 : len(all)-1] {
		if _, ok := g.MaxFailed[lesser]; ok {
			return 0
		}
	}
	return math.MaxInt
}

// decimals rounds a score down, so that an insufficient score never looks sufficient.
func decimals(score float64) string {
	return strconv.FormatFloat(math.Floor(score*100)/100, 'f', -1, 64)
}

// names lists the IDs of the first findings that are selected.
func names(all []Finding, want func(Finding) bool) string {
	const most = 5
	var ids []string
	more := 0
	for _, f := range all {
		switch {
		case !want(f):
		case len(ids) == most:
			more++
		default:
			ids = append(ids, line(f.ID, 100))
		}
	}
	if more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(ids, ", "), more)
	}
	return strings.Join(ids, ", ")
}
