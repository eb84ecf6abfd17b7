package ebs

import (
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

func (o *Options) permissions(src *schema.Source, region string, here policy.Place) []policy.Need {
	if src.Known(&o.SkipCreate) && o.SkipCreate {
		return o.Image.Checks(src, region)
	}
	needs := o.InstanceAttributes(src, here)
	needs = append(needs, o.Image.Permissions(src, region, "CreateImage")...)
	needs = append(needs, o.Image.SharingCheckPermissions(src, region)...)
	if o.FastLaunch != nil {
		needs = append(needs, o.FastLaunch.Permissions(o.Image.Place(src, region))...)
	}
	return needs
}
