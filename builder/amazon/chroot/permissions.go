package chroot

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted]. The instance that bake
// runs on belongs to no run.
func (b *onVolume) Permissions() []policy.Need {
	region := b.Access.KnownRegion(b.src)
	here := policy.In(region)
	key := b.RootVolumeKMSKeyID
	if !b.src.Known(&b.RootVolumeKMSKeyID) {
		key = "*"
	}
	needs := append(b.Access.Permissions(b.src), here.Look("DescribeInstances", "DescribeVolumes"))
	needs = append(needs, here.Make("CreateVolume", "volume")...)
	if policy.Perhaps(b.src, &b.FromScratch, !b.FromScratch) {
		needs = append(needs, here.Use("CreateVolume", "snapshot"))
	}
	needs = append(needs,
		here.Own("AttachVolume", "volume"), here.Own("DetachVolume", "volume"), here.Own("DeleteVolume", "volume"),
		here.Use("AttachVolume", "instance"), here.Use("DetachVolume", "instance"))
	needs = append(needs, here.Keys(key)...)
	needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
	return append(needs, b.Image.Permissions(b.src, region, "RegisterImage")...)
}
