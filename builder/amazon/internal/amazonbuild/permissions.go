package amazonbuild

import "bake/builder/amazon/internal/policy"

// SnapshotPermissions is what [Build.Snapshot] takes, and deleting what it made.
func SnapshotPermissions(here policy.Place) []policy.Need {
	return append(here.Make("CreateSnapshot", "snapshot"),
		here.Own("CreateSnapshot", "volume"), here.Own("DeleteSnapshot", "snapshot"), here.Look("DescribeSnapshots"))
}
