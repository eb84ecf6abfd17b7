package fleet

import (
	"fmt"
	"slices"
	"strings"

	"bake/builder/amazon"
	"bake/internal/lazyregexp"
	"bake/internal/s3uri"
	"bake/run"
)

// PolicyFor returns the scope of the policy for the roles of the fleet's cells: its
// images, in its regions. It is the same in all accounts.
func (t *Template) PolicyFor(f *Fleet) (run.PolicyFor, error) { return t.policyFor(f.Cells) }

func (t *Template) policyFor(cells []Cell) (of run.PolicyFor, err error) {
	known := map[string]bool{}
	for _, c := range cells {
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
		i.Known = nil // the images of its parents are unknown
		of.Images = append(of.Images, i)
	}
	return of, nil
}

// WorkerPolicyFor returns the scope of the policy for a process that runs the fleet or
// works for it: to assume the roles of its cells, to bake the cells without a role, and to
// read and write the reports.
func (t *Template) WorkerPolicyFor(f *Fleet) (run.PolicyFor, error) {
	var roles amazon.Roles
	var own []Cell
	for _, c := range f.Cells {
		if c.Role != "" {
			roles = append(roles, c.Role)
		} else {
			own = append(own, c)
		}
	}
	of, err := t.policyFor(own)
	if len(roles) > 0 {
		of.Besides = append(of.Besides, roles)
	}
	if strings.HasPrefix(t.Reports, s3uri.Scheme) {
		of.Besides = append(of.Besides, amazon.Documents(t.Reports))
	}
	return of, err
}

// TrustPolicy is the trust policy of a role, as IAM reads it.
type TrustPolicy struct {
	Version   string
	Statement []TrustStatement
}

// TrustStatement defines who may assume a role.
type TrustStatement struct {
	Effect    string
	Principal struct{ AWS string }
	Action    string
}

// principals are the ARNs of roles and users:
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
var principals = lazyregexp.New(`^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/[\w+=,.@/-]*[\w+=,.@-]$`)

// TrustPolicyFor lets the role or user with an ARN assume a role.
func TrustPolicyFor(principal string) (TrustPolicy, error) {
	if !principals.Get().MatchString(principal) {
		return TrustPolicy{}, fmt.Errorf("%q is not the ARN of a role or user, such as arn:aws:iam::333333333333:role/bake-worker", principal)
	}
	s := TrustStatement{Effect: "Allow", Action: "sts:AssumeRole"}
	s.Principal.AWS = principal
	return TrustPolicy{"2012-10-17", []TrustStatement{s}}, nil
}
