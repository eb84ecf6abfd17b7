package fleet

import (
	"fmt"
	"slices"
	"strings"

	"bake/builder/amazon"
	"bake/internal/s3uri"
	"bake/run"
)

// PolicyFor says of what the policy is that the roles of the fleet's cells need: of its images,
// in its regions. It is the same in all accounts.
func (t *Template) PolicyFor(f *Fleet) (of run.PolicyFor, err error) {
	known := map[string]bool{}
	for _, c := range f.Cells {
		if !slices.Contains(of.Regions, c.Region) {
			of.Regions = append(of.Regions, c.Region)
		}
		if known[c.Image] {
			continue
		}
		known[c.Image] = true
		i, err := t.Instance(c, nil)
		if err != nil {
			return of, err
		}
		i.Known = nil // what parents will be
		of.Images = append(of.Images, i)
	}
	return of, nil
}

// WorkerPolicy is the policy of whoever runs the fleet, or works for it: to take on the roles of
// its cells, and to write the reports and to read them.
func (t *Template) WorkerPolicy(f *Fleet) (amazon.Policy, error) {
	var roles amazon.Roles
	for _, c := range f.Cells {
		if c.Role != "" {
			roles = append(roles, c.Role)
		}
	}
	if len(roles) == 0 {
		return amazon.Policy{}, fmt.Errorf("the fleet %s names no role: whoever runs it needs the policy of -for role", f.Name)
	}
	needs := []amazon.Permitted{roles}
	if strings.HasPrefix(t.Reports, s3uri.Scheme) {
		needs = append(needs, amazon.Documents(t.Reports))
	}
	return amazon.PolicyFor(needs), nil
}

// TrustPolicy is the trust policy of a role, as IAM reads it.
type TrustPolicy struct {
	Version   string
	Statement []TrustStatement
}

// TrustStatement says who may take on a role.
type TrustStatement struct {
	Effect    string
	Principal struct{ AWS string }
	Action    string
}

// TrustPolicyFor lets the role or user with an ARN take on a role.
func TrustPolicyFor(principal string) (TrustPolicy, error) {
	if !strings.HasPrefix(principal, "arn:") || strings.Contains(principal, "*") {
		return TrustPolicy{}, fmt.Errorf("%q is not the ARN of a role or user", principal)
	}
	s := TrustStatement{Effect: "Allow", Action: "sts:AssumeRole"}
	s.Principal.AWS = principal
	return TrustPolicy{"2012-10-17", []TrustStatement{s}}, nil
}
