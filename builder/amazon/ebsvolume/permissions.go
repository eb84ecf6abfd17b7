package ebsvolume

import (
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/policy"
)

// Permissions implements [bake/builder/amazon.Permitted].
func (b *volumes) Permissions() []policy.Need {
	here := policy.In(b.Access.KnownRegion(b.src))
	needs := b.Access.Permissions(b.src)
	needs = append(needs, b.Launch.Permissions(b.src, here, b.devices())...)
	if policy.Perhaps(b.src, &b.SRIOVSupport, b.SRIOVSupport) || policy.Perhaps(b.src, &b.ENASupport, b.ENASupport != nil) {
		needs = append(needs, here.Own("ModifyInstanceAttribute", "instance"))
	}
	for i := range b.Volumes {
		v := &b.Volumes[i]
		if len(v.Tags)+len(v.Tag) > 0 || !b.src.Known(&v.Tags) {
			needs = append(needs, here.Own("CreateTags", "volume"))
		}
		if policy.Perhaps(b.src, &v.DeleteOnTermination, !v.DeleteOnTermination) {
			needs = append(needs, here.Release("volume"))
			if len(b.RunVolumeTags)+len(b.RunVolumeTag) > 0 || !b.src.Known(&b.RunVolumeTags) {
				needs = append(needs, here.Own("DeleteTags", "volume")) // those only of the run
			}
		}
		if policy.Perhaps(b.src, &v.SnapshotVolume, v.SnapshotVolume) {
			needs = append(needs, amazonbuild.SnapshotPermissions(here)...)
			needs = append(needs, here.Release("snapshot"))
			if len(v.SnapshotUsers)+len(v.SnapshotGroups) > 0 || !b.src.Known(&v.SnapshotUsers) || !b.src.Known(&v.SnapshotGroups) {
				needs = append(needs, here.Own("ModifySnapshotAttribute", "snapshot"))
			}
		}
	}
	return needs
}
