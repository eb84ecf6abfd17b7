// Package names checks names and IDs of AWS resources for their syntax: a malformed name
// is wrong in every account. An empty text is valid.
package names

import (
	"fmt"
	"slices"
	"strings"

	"bake/config/schema"
	"bake/internal/lazyregexp"
)

// Accounts reports invalid AWS account numbers.
func Accounts(c *schema.Checker, ptr *[]string) {
	for _, id := range *ptr {
		if id != "" && !IsAccount(id) {
			c.Errorf(ptr, "Invalid account ID", "%q in %s is not an AWS account ID, which has 12 digits.", id, c.Name(ptr))
		}
	}
}

// IsAccount reports whether text is the number of an AWS account.
func IsAccount(text string) bool {
	return len(text) == 12 && strings.Trim(text, "0123456789") == ""
}

// Groups reports groups that nothing can be shared with.
func Groups(c *schema.Checker, ptr *[]string) {
	if slices.ContainsFunc(*ptr, func(g string) bool { return g != "" && g != "all" }) {
		c.Errorf(ptr, "Unknown group", `The only group is "all".`)
	}
}

// Kind is a kind of resource with an ARN.
type Kind struct {
	what, service, prefix string // prefix of the part of the ARN that names the resource
	example               string
}

// The kinds of resources that options name by ARNs.
var (
	Organization  = Kind{"an organization", "organizations", "organization/o-", "arn:aws:organizations::123456789012:organization/o-a1b2c3d4e5"}
	Unit          = Kind{"an organizational unit", "organizations", "ou/o-", "arn:aws:organizations::123456789012:ou/o-a1b2c3d4e5/ou-ab12-11111111"}
	Role          = Kind{"a role", "iam", "role/", "arn:aws:iam::123456789012:role/baker"}
	Policy        = Kind{"a managed policy", "iam", "policy/", "arn:aws:iam::aws:policy/ReadOnlyAccess"}
	ResourceGroup = Kind{"a resource group", "resource-groups", "group/", "arn:aws:resource-groups:us-east-1:123456789012:group/bakers"}
	License       = Kind{"a license configuration", "license-manager", "license-configuration", "arn:aws:license-manager:us-east-1:123456789012:license-configuration:lic-1"}
)

// Has reports whether text is the ARN of a resource of the kind.
func (k Kind) Has(text string) bool {
	parts := strings.SplitN(text, ":", 6)
	if len(parts) != 6 || parts[0] != "arn" || !strings.HasPrefix(parts[1], "aws") || parts[2] != k.service {
		return false
	}
	account := parts[4]
	name, ok := strings.CutPrefix(parts[5], k.prefix)
	return ok && name != "" && (IsAccount(account) || account == "aws" && k == Policy)
}

// ARNs reports texts that are not ARNs of resources of a kind.
func ARNs(c *schema.Checker, ptr *[]string, kind Kind) {
	for _, text := range *ptr {
		checkARN(c, ptr, text, kind)
	}
}

// ARN is [ARNs] for a single text.
func ARN(c *schema.Checker, ptr *string, kind Kind) { checkARN(c, ptr, *ptr, kind) }

func checkARN(c *schema.Checker, ptr any, text string, kind Kind) {
	if text != "" && !kind.Has(text) {
		c.Errorf(ptr, "Not the ARN of "+kind.what, "%q in %s is not the ARN of %s, such as %s.", text, c.Name(ptr), kind.what, kind.example)
	}
}

var region = lazyregexp.New(`^[a-z]{2,}(-[a-z]+)+-[0-9]+$`)

// Region reports a text in the option at ptr that is not the name of a region.
func Region(c *schema.Checker, ptr any, text string) {
	if text == "" || region.Get().MatchString(text) {
		return
	}
	hint := "such as us-east-1"
	if zone := strings.TrimRight(text, "abcdef"); zone != text && region.Get().MatchString(zone) {
		hint = fmt.Sprintf("but of an availability zone; the region is %s", zone)
	}
	c.Errorf(ptr, "Not a region", "%q is not the name of a region, %s.", text, hint)
}

// IsRegion reports whether text has the form of a region's name.
func IsRegion(text string) bool { return region.Get().MatchString(text) }

// Zone reports an availability zone that is not in the region.
func Zone(c *schema.Checker, ptr *string, region string) {
	if *ptr != "" && region != "" && !strings.HasPrefix(*ptr, region) {
		c.Errorf(ptr, "Not a zone of the region", "The availability zone %q is not in the region %s.", *ptr, region)
	}
}

var key = lazyregexp.New(`^(arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/.+|alias/.+|mrk-[0-9a-f]{32}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$`)

// KMSKey reports a text in the option at ptr that does not name a KMS key of a region. The
// region is empty if it is not known.
func KMSKey(c *schema.Checker, ptr any, text, region string) {
	switch parts := strings.Split(text, ":"); {
	case text == "":
	case !key.Get().MatchString(text):
		c.Errorf(ptr, "Not a KMS key", "%q is not a key id, an alias (alias/...) or an ARN of either.", text)
	case len(parts) > 3 && region != "" && parts[3] != region:
		c.Errorf(ptr, "KMS key of another region", "%q is a key in %s, and cannot encrypt anything in %s.", text, parts[3], region)
	}
}

var imageName = lazyregexp.New(`^[A-Za-z0-9()\[\] ./\-'@_]*$`)

// IsImage reports whether text can be the name of an image.
func IsImage(text string) bool {
	return len(text) >= 3 && len(text) <= 128 && imageName.Get().MatchString(text)
}

// IsKMSKey reports whether text names a KMS key: by its ID, an alias, or the ARN of either.
func IsKMSKey(text string) bool { return key.Get().MatchString(text) }

// Image reports a text that cannot be the name of an image.
func Image(c *schema.Checker, ptr *string) {
	if n := len(*ptr); n < 3 || n > 128 {
		c.Errorf(ptr, "Invalid image name", "An image name has 3 to 128 characters; this one has %d.", n)
	}
	if !imageName.Get().MatchString(*ptr) {
		c.Errorf(ptr, "Invalid image name", "%q has characters that AWS does not allow: only letters, digits and ()[] ./-'@_ are allowed.", *ptr)
	}
}

// Given returns the texts of a list that are not empty.
func Given(list []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return s == "" })
}
