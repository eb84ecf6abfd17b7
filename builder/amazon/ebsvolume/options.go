package ebsvolume

import (
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Options of the builder amazon-ebsvolume.
type Options struct {
	Access
	Launch

	// Volumes to create. They are attached to the machine, filled by provisioners, and kept
	// unless `delete_on_termination` is set. Repeatable.
	Volumes []Volume `hcl:"ebs_volumes,block"`

	// Turn the instance's support for enhanced networking with the Elastic Network Adapter
	// on or off. Not set: the setting of the source image.
	ENASupport *bool `hcl:"ena_support,optional"`

	// Enable enhanced networking with the Intel 82599 adapter on the instance. Its operating
	// system must have the ixgbevf driver.
	SRIOVSupport bool `hcl:"sriov_support,optional"`

	// Tags for the volumes of the instance during the build. They are removed from the
	// volumes that are kept.
	RunVolumeTags map[string]string `hcl:"run_volume_tags,optional,deferred"`

	// A single tag, added to `run_volume_tags`. Repeatable.
	RunVolumeTag []interpolate.Tag `hcl:"run_volume_tag,block"`
}

// The groups of options, each accessible by its name.
type (
	// Access holds the options for the account and region.
	Access struct{ access.Options }
	// Launch holds the options for the machine and the connection to it.
	Launch struct{ launch.Options }
)

// Volume is a volume to make.
type Volume struct {
	device.Mapping

	// Tags for the volume, which it keeps. They override `run_volume_tags` with the same key.
	Tags map[string]string `hcl:"tags,optional,deferred"`

	// A single tag, added to `tags`. Repeatable.
	Tag []interpolate.Tag `hcl:"tag,block"`

	// Create a snapshot of the volume after provisioning. The volume itself is kept as well,
	// unless `delete_on_termination` is set.
	SnapshotVolume bool `hcl:"snapshot_volume,optional"`

	// Description of the snapshot. Needs `snapshot_volume`. Not set: none.
	SnapshotDescription string `hcl:"snapshot_description,optional"`

	// Tags for the snapshot, which does not get those of the volume. Needs `snapshot_volume`.
	SnapshotTags map[string]string `hcl:"snapshot_tags,optional,deferred"`

	// A single tag, added to `snapshot_tags`. Repeatable.
	SnapshotTag []interpolate.Tag `hcl:"snapshot_tag,block"`

	// AWS accounts that may create volumes from the snapshot, as 12-digit account IDs. An
	// encrypted snapshot can be shared only if its KMS key is a customer managed key.
	SnapshotUsers []string `hcl:"snapshot_users,optional"`

	// Groups that may create volumes from the snapshot. The only group is `all`, which makes
	// the snapshot public: anyone can read all data in it. Encrypted snapshots cannot be
	// public.
	SnapshotGroups []string `hcl:"snapshot_groups,optional"`
}

// Validate implements [schema.Validator].
func (v *Volume) Validate(c *schema.Checker) {
	v.Mapping.Validate(c)
	if v.SnapshotDescription != "" && !v.SnapshotVolume && c.Known(&v.SnapshotVolume) {
		c.Errorf(&v.SnapshotDescription, "No snapshot", "snapshot_description needs snapshot_volume = true.")
	}
	names.Accounts(c, &v.SnapshotUsers)
	names.Groups(c, &v.SnapshotGroups)
	interpolate.CheckTags(c, interpolate.Of(&v.Tags, v.Tag))
	interpolate.CheckTags(c, interpolate.Of(&v.SnapshotTags, v.SnapshotTag))
}

// defaults returns the options of a template that sets none.
func defaults() Options {
	return Options{Access: Access{access.Defaults()}, Launch: Launch{launch.Defaults()}}
}

// devices returns the volumes in the form that the launcher uses.
func (o *Options) devices() (all []*device.Mapping) {
	for i := range o.Volumes {
		all = append(all, &o.Volumes[i].Mapping)
	}
	return all
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Access.Validate(c)
	o.Launch.Validate(c)
	o.Launch.ValidateIn(c, o.Region)
	interpolate.CheckTags(c, interpolate.Of(&o.RunVolumeTags, o.RunVolumeTag))
	device.Validate(c, o.devices())
	if len(o.Volumes) == 0 {
		c.Warnf(&o.Volumes, "No volumes", "Add an ebs_volumes block; without one, nothing is created.")
	}
}
