package amazonbuild

import "bake/builder/amazon/internal/policy"

// SnapshotPermissions returns the needs of [Build.Snapshot], and those for deleting its
// snapshots.
func SnapshotPermissions(here policy.Place) []policy.Need {
	return append(here.Make("CreateSnapshot", "snapshot"),
		here.Own("CreateSnapshot", "volume"), here.Own("DeleteSnapshot", "snapshot"), here.Look("DescribeSnapshots"))
}
