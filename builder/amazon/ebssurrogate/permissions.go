package ebssurrogate

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted].
func (b *surrogate) Permissions() []policy.Need {
	region := b.Access.KnownRegion(b.src)
	here := policy.In(region)
	needs := b.Access.Permissions(b.src)
	needs = append(needs, b.Launch.Permissions(b.src, here, b.devices())...)
	needs = append(needs, b.InstanceAttributes(b.src, here)...)
	if policy.Perhaps(b.src, &b.UseCreateImage, b.UseCreateImage) {
		needs = append(needs, here.Own("DetachVolume", "volume", "instance"), here.Own("AttachVolume", "volume", "instance"), here.Own("ModifyInstanceAttribute", "instance"))
		needs = append(needs, b.Image.Permissions(b.src, region, "CreateImage")...)
	}
	if policy.Perhaps(b.src, &b.UseCreateImage, !b.UseCreateImage) {
		needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
		needs = append(needs, b.Image.Permissions(b.src, region, "RegisterImage")...)
	}
	return needs
}
