package ebsvolume

import (
	_ "embed"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

//go:embed options.go
var source string

// Options of the builder amazon-ebsvolume.
type Options struct {
	Access
	Launch

	// Volumes to make.
	Volumes []Volume `hcl:"ebs_volumes,block"`

	// Set or clear the instance's support for the Elastic Network Adapter. Not set:
	// as the source image has it.
	ENASupport *bool `hcl:"ena_support,optional"`

	// Set the instance's support for SR-IOV networking with the Intel 82599 adapter.
	SRIOVSupport bool `hcl:"sriov_support,optional"`

	// Tags for the volumes of the instance while the build goes on.
	RunVolumeTags map[string]string `hcl:"run_volume_tags,optional,late"`

	// One more of `run_volume_tags`.
	RunVolumeTag []late.Tag `hcl:"run_volume_tag,block"`
}

// The groups of options, by which they are reached.
type (
	// Access says which account and region to work in.
	Access struct{ access.Options }
	// Launch says what is launched and how it is reached.
	Launch struct{ launch.Options }
)

// Volume is a volume to make.
type Volume struct {
	device.Mapping

	// Tags for the volume.
	Tags map[string]string `hcl:"tags,optional,late"`

	// One more of `tags`.
	Tag []late.Tag `hcl:"tag,block"`

	// Make a snapshot of the volume.
	SnapshotVolume bool `hcl:"snapshot_volume,optional"`

	// Description of the snapshot.
	SnapshotDescription string `hcl:"snapshot_description,optional"`

	// Tags for the snapshot.
	SnapshotTags map[string]string `hcl:"snapshot_tags,optional,late"`

	// One more of `snapshot_tags`.
	SnapshotTag []late.Tag `hcl:"snapshot_tag,block"`

	// Accounts that may make volumes from the snapshot.
	SnapshotUsers []string `hcl:"snapshot_users,optional"`

	// Groups that may make volumes from the snapshot. The only one is `all`: everybody.
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
	late.CheckTags(c, late.Of(&v.Tags, v.Tag))
	late.CheckTags(c, late.Of(&v.SnapshotTags, v.SnapshotTag))
}

// Defaults are the options of a template that sets none.
func Defaults() Options {
	return Options{Access: Access{access.Defaults()}, Launch: Launch{launch.Defaults()}}
}

// devices are the volumes as the launcher takes them.
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
	late.CheckTags(c, late.Of(&o.RunVolumeTags, o.RunVolumeTag))
	device.Validate(c, o.devices())
	if len(o.Volumes) == 0 {
		c.Warnf(&o.Volumes, "No volumes", "Without a block ebs_volumes nothing is made.")
	}
}
