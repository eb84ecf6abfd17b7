package gates

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"bake/config/lang"
	"bake/config/schema"
	"bake/golden/findings"
)

// Options are the arguments of a gate block. Whatever could not be judged closes every
// gate: a rule that ended in an error, or a file none of whose rules applies to the
// machine.
type Options struct {
	// How many rules of each severity may fail: `critical`, `high`, `medium`, `low` and
	// `unknown`. A severity that is not listed has no limit, unless a less severe one is
	// listed: then none may fail. For `unknown`, none may fail unless it is listed. Not set:
	// no rule may fail, or any number if `min_score` is set.
	MaxFailed map[string]int `hcl:"max_failed,optional"`

	// Minimum score, from 0 to 100: the percentage of judged rules that passed. Waived
	// rules do not count.
	MinScore *float64 `hcl:"min_score,optional"`

	// Minimum number of rules that must apply to the machine.
	MinApplicable *int `hcl:"min_applicable,optional"`

	// File of waivers: rules that may fail until a date, each with a reason and an owner.
	Waivers string `hcl:"waivers,optional"`
}

// Reads implements [schema.Reader].
func (o *Options) Reads() []string { return []string{o.Waivers} }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	names := severities()
	for _, s := range slices.Sorted(maps.Keys(o.MaxFailed)) {
		switch {
		case !slices.Contains(names, s):
			c.Errorf(&o.MaxFailed, "Unknown severity", "There is no severity %q.%s There are %s.", s, lang.DidYouMean(s, names), strings.Join(names, ", "))
		case o.MaxFailed[s] < 0:
			c.Errorf(&o.MaxFailed, "Negative number", "The number of failed rules of severity %s cannot be %d.", s, o.MaxFailed[s])
		}
	}
	if o.MinScore != nil && !(*o.MinScore >= 0 && *o.MinScore <= 100) {
		c.Errorf(&o.MinScore, "Invalid score", "A score is a number from 0 to 100.")
	}
	if o.MinApplicable != nil && *o.MinApplicable < 0 {
		c.Errorf(&o.MinApplicable, "Negative number", "The number of applicable rules cannot be %d.", *o.MinApplicable)
	}
}

// Gate returns the gate that the options define.
func (o *Options) Gate(waivers []findings.Waiver) findings.Gate {
	g := findings.Gate{MinScore: o.MinScore, MinApplicable: o.MinApplicable, Waivers: waivers}
	for name, n := range o.MaxFailed {
		if g.MaxFailed == nil {
			g.MaxFailed = map[findings.Severity]int{}
		}
		g.MaxFailed[findings.Severity(name)] = n
	}
	return g
}

// ParseMaxFailed parses limits for the number of failed rules by severity: each text is
// SEVERITY=N.
func ParseMaxFailed(texts []string) (map[string]int, error) {
	all := map[string]int{}
	for _, text := range texts {
		severity, number, _ := strings.Cut(text, "=")
		n, err := strconv.ParseUint(number, 10, 31)
		if err != nil || !slices.Contains(severities(), severity) {
			return nil, fmt.Errorf("%q is not SEVERITY=N with one of %s", text, strings.Join(severities(), ", "))
		}
		all[severity] = int(n)
	}
	return all, nil
}

func severities() (names []string) {
	for _, s := range findings.Severities() {
		names = append(names, string(s))
	}
	return names
}
