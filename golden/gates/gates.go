// Package gates reads the configuration of gates: gate blocks, and files of waivers.
package gates

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/config"
	"bake/config/schema"
	"bake/golden/findings"
	"bake/internal/hostpath"
	"bake/internal/limits"
	"bake/internal/prose"
)

// waiver holds the arguments of a waiver block, whose label is the ID of a rule.
type waiver struct {
	Reason  string `hcl:"reason"`
	Owner   string `hcl:"owner"`
	Expires string `hcl:"expires"`
}

// Validate implements [schema.Validator].
func (w *waiver) Validate(c *schema.Checker) {
	for _, s := range []*string{&w.Reason, &w.Owner} {
		if c.Known(s) && strings.TrimSpace(*s) == "" {
			c.Errorf(s, "Missing "+c.Name(s), "A waiver needs a %s, so that somebody can answer for it.", c.Name(s))
		}
	}
	if c.Known(&w.Expires) {
		if _, err := expiry(w.Expires); err != nil {
			c.Errorf(&w.Expires, "Invalid date", "%s.", err)
		}
	}
}

// expiry returns when a waiver ends. A date means the end of that day in UTC.
func expiry(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1).Add(-time.Nanosecond), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is not a date such as \"2027-03-31\" or \"2027-03-31T12:00:00Z\"", text)
}

// ReadWaivers reads a file of waivers.
func ReadWaivers(path string) ([]findings.Waiver, hcl.Diagnostics) {
	src, err := hostpath.Read(path, hostpath.Limit)
	if err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read waivers", Detail: prose.Sprintf("%s.", err)}}
	}
	return Waivers(path, src)
}

// Waivers parses the text of a file of waivers, which is called name in diagnostics.
func Waivers(name string, src []byte) (all []findings.Waiver, diags hcl.Diagnostics) {
	if err := limits.Source(src, limits.HCL); err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read waivers", Detail: prose.Sprintf("%s: %s.", name, err)}}
	}
	if err := limits.Run(context.Background(), func() { all, diags = waivers(name, src) }); err != nil {
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read waivers", Detail: prose.Sprintf("%s: %s.", name, err)}}
	}
	if diags.HasErrors() {
		return nil, diags
	}
	return all, diags
}

func waivers(name string, src []byte) ([]findings.Waiver, hcl.Diagnostics) {
	f, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, config.LimitSyntaxErrors(diags)
	}
	content, diags := f.Body.Content(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "waiver", LabelNames: []string{"rule"}}}})
	var all []findings.Waiver
	first := map[string]hcl.Range{}
	complain := func(at *hcl.Range, summary, format string, args ...any) {
		diags = append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: at})
	}
	for _, b := range content.Blocks {
		rule := b.Labels[0]
		if at, ok := first[rule]; ok {
			complain(&b.LabelRanges[0], "Duplicate waiver", "There is a waiver for %q already, at %s.", rule, at)
			continue
		}
		first[rule] = b.DefRange
		if strings.TrimSpace(rule) == "" {
			complain(&b.LabelRanges[0], "Missing rule", "The label of a waiver is the ID of a rule, such as \"ssh-root-login\".")
		}
		w := new(waiver)
		_, more := schema.Decode(schema.Input{Body: b.Body}, w)
		diags = append(diags, more...)
		if expires, err := expiry(w.Expires); err == nil {
			at := b.DefRange
			all = append(all, findings.Waiver{Rule: rule, Reason: w.Reason, Owner: w.Owner, Expires: expires, Source: &at})
		}
	}
	return all, diags
}
