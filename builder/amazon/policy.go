package amazon

import (
	"strings"

	"bake/builder"
	"bake/builder/amazon/internal/policy"
)

// Policy is an IAM policy. Its JSON encoding is the format of IAM.
type Policy = policy.Document

// Permitted is a component that can list the AWS permissions that its options require. For
// options that are not known yet, it lists those of all possible values. The component may
// be only an outline, as [bake/component.Factory] makes it.
type Permitted interface {
	Permissions() []policy.Need
}

// Regional is a component whose region a cell of a fleet can override.
type Regional interface{ SetRegion(region string) }

// Roles are the ARNs of roles to assume.
type Roles []string

// Permissions implements [Permitted].
func (r Roles) Permissions() []policy.Need {
	return []policy.Need{{Actions: []string{"sts:AssumeRole"}, Resources: r}}
}

// Verifying is a [bake/builder.Verifiable] that can list the additional permissions for
// verifying its images and for tagging them.
type Verifying interface {
	VerifyPermissions(boots []builder.Boot, quarantines bool) []policy.Need
}

// Verification describes the verification of a builder's images, which needs permissions to
// examine and tag them.
type Verification struct {
	Of          Verifying
	Boots       []builder.Boot
	Quarantines bool // an image that fails is disabled
}

// Permissions implements [Permitted].
func (v Verification) Permissions() []policy.Need {
	return v.Of.VerifyPermissions(v.Boots, v.Quarantines)
}

// Secret is the name of a secret that [Secrets] looks up.
type Secret string

// Permissions implements [Permitted].
func (s Secret) Permissions() []policy.Need { return policy.In("").Secret(string(s)) }

// Signing is a component that may sign with a key of AWS KMS.
type Signing interface {
	// SigningKey is the URI of the key, "awskms://…", with "*" for parts that are not known
	// yet; "" if no key is used.
	SigningKey() string
}

// SigningKey is the URI of a key that [bake/builder/amazon/kmskey] opens.
type SigningKey string

// Permissions implements [Permitted].
func (k SigningKey) Permissions() []policy.Need {
	_, rest, _ := strings.Cut(string(k), "://")
	_, id, _ := strings.Cut(rest, "/")
	return []policy.Need{policy.In("").Sign(id)}
}

// PolicyFor returns a policy that allows what the components need, and nothing more as far
// as AWS can distinguish it: resources that they make, change and delete carry the tag of
// a run.
func PolicyFor(components []Permitted) Policy {
	var needs []policy.Need
	for _, c := range components {
		needs = append(needs, c.Permissions()...)
	}
	return policy.Make(needs)
}
