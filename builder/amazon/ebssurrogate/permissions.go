package ebssurrogate

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

func (o *Options) permissions(src *schema.Source, region string, here policy.Place) []policy.Need {
	needs := o.InstanceAttributes(src, here)
	if policy.MayBe(src, &o.UseCreateImage, o.UseCreateImage) {
		needs = append(needs, here.Own("DetachVolume", "volume", "instance"), here.Own("AttachVolume", "volume", "instance"), here.Own("ModifyInstanceAttribute", "instance"))
		needs = append(needs, o.Image.Permissions(src, region, "CreateImage")...)
	}
	if policy.MayBe(src, &o.UseCreateImage, !o.UseCreateImage) {
		needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
		needs = append(needs, o.Image.Permissions(src, region, "RegisterImage")...)
	}
	return append(needs, o.Image.SharingCheckPermissions(src, region)...)
}
