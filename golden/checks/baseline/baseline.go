// Package baseline is bake:baseline, the built-in security profile: rules for the
// operating system of an image, with their checks and fixes.
//
// It supports Debian 12 and 13, Ubuntu 22.04 and 24.04, RHEL 9 and its rebuilds, and
// Amazon Linux 2023.
package baseline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"bake/golden/findings"
)

// Name is the name of the profile in lists of check files.
const Name = "bake:baseline"

// rule is a requirement on a secure machine. Its check and its fix are the shell
// functions check_ID and fix_ID in scripts/.
type rule struct {
	ID        string
	Severity  findings.Severity
	Level     int    // 1: for every server; 2: may be disruptive, and is only checked on request
	Title     string // what the rule requires
	Rationale string
	Fix       string // what to do, for people
	Refs      string // its numbers in other standards, such as "C 5.1.20, R33"
	AppliesTo string // "": every machine
}

// automatic reports whether Remediate has a fix for the rule.
func (r rule) automatic() bool { return strings.Contains(scripts(), "\n"+function("fix", r.ID)+"()") }

func (r rule) finding() findings.Finding {
	f := findings.Finding{ID: r.ID, Title: r.Title, Severity: r.Severity, Rationale: r.Rationale, Fix: r.Fix}
	if r.Refs != "" {
		f.Refs = strings.Split(r.Refs, ", ")
	}
	return f
}

// function returns the name of a shell function of a rule.
func function(kind, id string) string { return kind + "_" + strings.ReplaceAll(id, "-", "_") }

// Selection selects rules. The zero value selects level 1.
type Selection struct {
	Levels []int    // none: level 1, unless Only names rules
	Only   []string // also these, of any level
	Except []string // never these
}

// Select parses a selection, as written after the name of the profile, such as
// "level2", "ssh-forwarding,pw-aging" or "-service-ports": level2 adds the rules of
// level 2, a name adds that rule, and a name after a minus sign excludes it. If only
// rule names are given, only these rules are selected.
func Select(words string) (Selection, error) {
	var s Selection
	for _, w := range strings.FieldsFunc(words, func(r rune) bool { return r == ',' }) {
		switch id, except := strings.CutPrefix(w, "-"); {
		case w == "level1":
			s.Levels = append(s.Levels, 1)
		case w == "level2":
			s.Levels = append(s.Levels, 1, 2)
		case except:
			s.Except = append(s.Except, id)
		default:
			s.Only = append(s.Only, id)
		}
	}
	_, err := s.rules()
	return s, err
}

// Findings returns the selected rules as findings without a result.
func (s Selection) Findings() (all []findings.Finding) {
	rules, err := s.rules()
	if err != nil {
		return nil
	}
	for _, r := range rules {
		f := r.finding()
		f.Result = findings.NotChecked
		all = append(all, f)
	}
	return all
}

// rules returns the selected rules. It is an error if there are none, or if the
// selection names one that does not exist.
func (s Selection) rules() ([]rule, error) {
	var errs []error
	for _, id := range slices.Concat(s.Only, s.Except) {
		if !slices.ContainsFunc(table, func(r rule) bool { return r.ID == id }) {
			errs = append(errs, fmt.Errorf("%s has no rule %q%s", Name, id, nearest(id)))
		}
	}
	levels := s.Levels
	if len(levels) == 0 && len(s.Only) == 0 {
		levels = []int{1}
	}
	for _, l := range levels {
		if l != 1 && l != 2 {
			errs = append(errs, fmt.Errorf("%s has no level %d, only 1 and 2", Name, l))
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	var rules []rule
	for _, r := range table {
		if (slices.Contains(levels, r.Level) || slices.Contains(s.Only, r.ID)) && !slices.Contains(s.Except, r.ID) {
			rules = append(rules, r)
		}
	}
	if len(rules) == 0 {
		return nil, fmt.Errorf("no rule of %s is selected", Name)
	}
	return rules, nil
}

func nearest(id string) string {
	best, distance := "", 4
	for _, r := range table {
		if d := levenshtein.Distance(id, r.ID, nil); d < distance {
			best, distance = r.ID, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}
