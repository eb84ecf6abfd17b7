package access

import (
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// KnownRegion returns the region that the options name. It is empty if they name none or
// the value is not known yet.
func (o *Options) KnownRegion(src *schema.Source) string {
	if !src.Known(&o.Region) {
		return ""
	}
	return o.Region
}

// SetRegion overrides the region of the template.
func (o *Options) SetRegion(region string) { o.Region = region }

// Permissions returns the needs for opening a session, for the principal of the session:
// with assume_role, that is the role.
func (o *Options) Permissions(src *schema.Source) (needs []policy.Need) {
	if policy.MayBe(src, &o.SkipCredentialValidation, !o.SkipCredentialValidation) {
		needs = append(needs, policy.Need{Actions: []string{"sts:GetCallerIdentity"}})
	}
	if policy.MayBe(src, &o.DecodeAuthorizationMessages, o.DecodeAuthorizationMessages) {
		needs = append(needs, policy.Need{Actions: []string{"sts:DecodeAuthorizationMessage"}})
	}
	return needs
}
