package bakefile

import (
	"maps"
	"slices"
	"strings"

	"bake/builder"
	"bake/config/schema"
)

// Distribute are the arguments of a distribute block: the regions and accounts that the
// verified image is distributed to, in addition to the region where it was made.
type Distribute struct {
	// Regions to copy the image to.
	Regions []string `hcl:"regions,optional"`

	// Account IDs of the accounts that get the image, in each of the regions.
	Accounts []string `hcl:"accounts,optional"`

	// How accounts get the image: `share` it with them, or `copy` it, so that they own
	// their images.
	Mode Mode `hcl:"mode,optional"`

	// ARN of a role to assume in each account, with `{account}` for the account ID. Required
	// for copies, and for tags and channels in the accounts.
	Role string `hcl:"role,optional"`

	// External ID that the roles' trust policies require.
	ExternalID string `hcl:"external_id,optional"`

	// KMS keys to encrypt copies with, by region. In another account, an alias refers to
	// that account's own key.
	KMSKeys map[string]string `hcl:"kms_keys,optional"`

	// Move channels only if the image is in all regions and accounts.
	AllOrNone bool `hcl:"all_or_none,optional"`
}

// Mode is how accounts get an image.
type Mode string

// Choices implements [schema.Choices].
func (Mode) Choices() []string { return []string{"share", "copy"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Mode) UnmarshalText(b []byte) error { return schema.ParseChoice(m, b, m.Choices()) }

// SetDefaults implements [schema.Defaulter].
func (d *Distribute) SetDefaults() { d.Mode = "share" }

// Validate implements [schema.Validator].
func (d *Distribute) Validate(c *schema.Checker) {
	for _, id := range d.Accounts {
		if len(id) != 12 || strings.Trim(id, "0123456789") != "" {
			c.Errorf(&d.Accounts, "Invalid account ID", "%q is not an AWS account ID, which has 12 digits.", id)
		}
	}
	if slices.Contains(d.Regions, "") {
		c.Errorf(&d.Regions, "Empty region", "An empty text is not a region.")
	}
	switch {
	case d.Role == "" && d.Mode == "copy" && c.Known(&d.Role) && len(d.Accounts) > 0:
		c.Errorf(&d.Mode, "Missing role", "To make images in other accounts, bake needs a role there: set role to an ARN such as \"arn:aws:iam::{account}:role/bake\".")
	case d.Role != "" && (!strings.HasPrefix(d.Role, "arn:") || !strings.Contains(d.Role, ":role/")):
		c.Errorf(&d.Role, "Not the ARN of a role", "%q is not the ARN of a role, such as \"arn:aws:iam::{account}:role/bake\".", d.Role)
	case d.Role == "" && d.ExternalID != "" && c.Known(&d.Role):
		c.Errorf(&d.ExternalID, "External ID without a role", "An external ID is for assuming roles: set role too, or leave it out.")
	case d.ExternalID != "" && (len(d.ExternalID) < 2 || len(d.ExternalID) > 1224):
		c.Errorf(&d.ExternalID, "Invalid external ID", "An external ID has 2 to 1224 characters.")
	case d.Role != "" && len(d.Accounts) > 1 && !strings.Contains(d.Role, "{account}"):
		c.Errorf(&d.Role, "One role for several accounts", "A role is in one account. Write {account} in the place of its number.")
	}
	for _, region := range slices.Sorted(maps.Keys(d.KMSKeys)) {
		if !slices.Contains(d.Regions, region) && c.Known(&d.Regions) {
			c.Errorf(&d.KMSKeys, "Key for no region", "The image is not distributed to %q, so a key for that place is not used.", region)
		}
		if d.KMSKeys[region] == "" {
			c.Errorf(&d.KMSKeys, "Empty key", "The key for %s is empty.", region)
		}
	}
}

// Distribution returns the regions and accounts that the image is distributed to.
func (o *Image) Distribution() builder.Distribution {
	d := o.Distribute
	if d == nil {
		return builder.Distribution{}
	}
	return builder.Distribution{Regions: d.Regions, Accounts: d.Accounts, Copy: d.Mode == "copy", Role: d.Role, ExternalID: d.ExternalID, Keys: d.KMSKeys}
}
