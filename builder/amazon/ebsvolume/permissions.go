package ebsvolume

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

func (o *Options) permissions(src *schema.Source, _ string, here policy.Place) (needs []policy.Need) {
	if policy.MayBe(src, &o.SRIOVSupport, o.SRIOVSupport) || policy.MayBe(src, &o.ENASupport, o.ENASupport != nil) {
		needs = append(needs, here.Own("ModifyInstanceAttribute", "instance"))
	}
	for i := range o.Volumes {
		v := &o.Volumes[i]
		if len(v.Tags)+len(v.Tag) > 0 || !src.Known(&v.Tags) {
			needs = append(needs, here.Own("CreateTags", "volume"))
		}
		if policy.MayBe(src, &v.DeleteOnTermination, !v.DeleteOnTermination) {
			needs = append(needs, here.Release("volume"))
			if len(o.RunVolumeTags)+len(o.RunVolumeTag) > 0 || !src.Known(&o.RunVolumeTags) {
				needs = append(needs, here.Own("DeleteTags", "volume")) // for the run_volume_tags
			}
		}
		if policy.MayBe(src, &v.SnapshotVolume, v.SnapshotVolume) {
			needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
			needs = append(needs, here.Release("snapshot"))
			if len(v.SnapshotUsers)+len(v.SnapshotGroups) > 0 || !src.Known(&v.SnapshotUsers) || !src.Known(&v.SnapshotGroups) {
				needs = append(needs, here.Own("ModifySnapshotAttribute", "snapshot"))
			}
		}
	}
	return needs
}
