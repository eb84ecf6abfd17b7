package checks

import (
	"context"
	"fmt"
	"strings"

	"bake/communicator"
	"bake/golden/findings"
)

// scheme begins the names of profiles that are built in.
const scheme = "bake:"

// profile is a set of rules that is built in.
type profile struct {
	name  string
	rules func() []findings.Finding
	run   func(ctx context.Context, m communicator.Communicator, remediate bool) (findings.Report, error)
}

func profiles() []*profile { return nil }

func names() (all []string) {
	for _, p := range profiles() {
		all = append(all, p.name)
	}
	return all
}

func find(name string) (*profile, error) {
	for _, p := range profiles() {
		if p.name == name {
			return p, nil
		}
	}
	return nil, fmt.Errorf("there is no profile %s; there are: %s", name, strings.Join(names(), ", "))
}
