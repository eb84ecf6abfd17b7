package checks

import (
	"context"
	"fmt"
	"strings"

	"bake/communicator"
	"bake/golden/checks/baseline"
	"bake/golden/checks/goss"
	"bake/golden/findings"
)

// Stdin is the name of standard input in diagnostics.
const Stdin = goss.Stdin

// scheme is the prefix of the names of built-in profiles.
const scheme = "bake:"

// IsProfile reports whether a name is that of a profile, and not of a file.
func IsProfile(name string) bool { return strings.HasPrefix(name, scheme) }

// profile is a built-in set of rules.
type profile struct {
	name  string
	rules func() []findings.Finding
	run   func(ctx context.Context, m communicator.Communicator, remediate bool) (findings.Report, error)
}

func names() []string { return []string{baseline.Name} }

// find returns the profile with a name, which may be followed by a slash and a selection
// of its rules.
func find(name string) (*profile, error) {
	base, words, more := strings.Cut(name, "/")
	if base != baseline.Name {
		return nil, fmt.Errorf("there is no profile %s; there are: %s", name, strings.Join(names(), ", "))
	}
	selected, err := baseline.Select(words)
	if err == nil && more && words == "" {
		err = fmt.Errorf("%s selects nothing", name)
	}
	if err != nil {
		return nil, err
	}
	return &profile{name: name, rules: selected.Findings, run: func(ctx context.Context, m communicator.Communicator, remediate bool) (findings.Report, error) {
		on := baseline.On(m)
		report, err := baseline.Check(ctx, on, selected)
		if err == nil && remediate {
			report, err = baseline.Remediate(ctx, on, selected, report)
		}
		return report, err
	}}, nil
}
