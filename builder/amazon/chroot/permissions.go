package chroot

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// permissions returns the needs for working on a volume of this instance. The instance
// that bake runs on does not carry the tag of a run.
func (o *Options) permissions(src *schema.Source, region string, here policy.Place) []policy.Need {
	key := o.RootVolumeKMSKeyID
	if !src.Known(&o.RootVolumeKMSKeyID) {
		key = "*"
	}
	needs := []policy.Need{here.Look("DescribeInstances", "DescribeVolumes")}
	needs = append(needs, here.Make("CreateVolume", "volume")...)
	if policy.MayBe(src, &o.FromScratch, !o.FromScratch) {
		needs = append(needs, here.Use("CreateVolume", "snapshot"))
	}
	needs = append(needs,
		here.Own("AttachVolume", "volume"), here.Own("DetachVolume", "volume"), here.Own("DeleteVolume", "volume"),
		here.Use("AttachVolume", "instance"), here.Use("DetachVolume", "instance"))
	needs = append(needs, here.Keys(key)...)
	needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
	needs = append(needs, o.Image.Permissions(src, region, "RegisterImage")...)
	return append(needs, o.Image.SharingCheckPermissions(src, region)...)
}
