package ebssurrogate

import (
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/config/schema"
)

// Options of the builder amazon-ebssurrogate.
type Options struct {
	Access
	Launch
	Image

	// Volumes of the build instance, in addition to or instead of those of the source image.
	// Provisioners fill them, and the image is made from them. Repeatable.
	LaunchBlockDeviceMappings []Mapping `hcl:"launch_block_device_mappings,block"`

	// The volume that becomes the root volume of the image: one of
	// `launch_block_device_mappings`, under a device name of its own. Required.
	Root *RootDevice `hcl:"ami_root_device,block"`

	// Description of the snapshots. Not set: the time of their creation. With
	// `use_create_image`, EC2 sets its own.
	SnapshotDescription string `hcl:"snapshot_description,optional"`

	// Swap the root volume of the instance for the new one and create the image with
	// CreateImage, which then inherits the instance's properties. Otherwise the image is
	// registered from the snapshots and inherits nothing.
	UseCreateImage bool `hcl:"use_create_image,optional"`
}

// The groups of options, each accessible by its name.
type (
	// Access holds the options for the account and region.
	Access struct{ access.Options }
	// Launch holds the options for the machine and the connection to it.
	Launch struct {
		launch.Options
		launch.VolumeTags
	}
	// Image holds the options for the finished image.
	Image struct {
		image.Options
		image.Firmware
	}
)

// Mapping is a volume of the instance.
type Mapping struct {
	device.Mapping

	// Leave this volume out of the image, for instance if it holds only what the build itself
	// needs. Not possible for the volume that becomes the root.
	OmitFromArtifact bool `hcl:"omit_from_artifact,optional"`
}

// RootDevice is the root volume of the image.
type RootDevice struct {
	// Device name that the volume has on the build instance: the `device_name` of one of
	// `launch_block_device_mappings`.
	SourceDeviceName string `hcl:"source_device_name"`

	// Device name of the root volume in the image, such as /dev/xvda.
	DeviceName string `hcl:"device_name"`

	// Delete the root volume when an instance of the image is terminated. Not set: `false`;
	// the volumes of terminated instances stay, and are charged.
	DeleteOnTermination bool `hcl:"delete_on_termination,optional"`

	// Provisioned I/O operations per second, for io1, io2 and gp3 volumes. Required for io1
	// and io2.
	IOPS int `hcl:"iops,optional"`

	// Provisioned throughput in MiB/s, for gp3 volumes: 125 to 1000.
	Throughput int `hcl:"throughput,optional"`

	// Volume type: gp2, gp3, io1, io2, st1, sc1 or standard. Not set: EC2's default, whatever
	// type the volume had during the build.
	VolumeType string `hcl:"volume_type,optional"`

	// Size in GiB. Not set: the size of the snapshot. It cannot be smaller.
	VolumeSize int `hcl:"volume_size,optional"`
}

// mapping returns the root as a device of the image.
func (r *RootDevice) mapping() *device.Mapping {
	return &device.Mapping{
		DeviceName: r.DeviceName, DeleteOnTermination: r.DeleteOnTermination, IOPS: r.IOPS, Throughput: r.Throughput,
		VolumeType: r.VolumeType, VolumeSize: r.VolumeSize,
	}
}

// defaults returns the options of a template that sets none.
func defaults() Options {
	return Options{Access: Access{access.Defaults()}, Launch: Launch{Options: launch.Defaults()}, Image: Image{Firmware: image.FirmwareDefaults()}}
}

// devices returns the mappings in the form that the launcher uses.
func (o *Options) devices() (all []*device.Mapping) {
	for i := range o.LaunchBlockDeviceMappings {
		all = append(all, &o.LaunchBlockDeviceMappings[i].Mapping)
	}
	return all
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Access.Validate(c)
	o.Launch.Options.Validate(c)
	o.Launch.ValidateIn(c, o.Region)
	o.Image.ValidateTags(c, o.DeferredRunTags())
	o.VolumeTags.Validate(c)
	o.Image.Options.Validate(c)
	o.Firmware.Validate(c)
	device.Validate(c, o.devices())
	if o.VirtualizationType == "" {
		c.Errorf(&o.VirtualizationType, "No virtualization type", "Set ami_virtualization_type, most likely to hvm.")
	}
	o.validateRoot(c)
	if !o.UseCreateImage {
		return
	}
	for _, ptr := range []any{&o.Architecture, &o.BootMode, &o.UEFIData, &o.TPMSupport} {
		if c.Set(ptr) {
			c.Warnf(ptr, "Argument without effect", "With use_create_image the image takes its %s from the instance.", c.Name(ptr))
		}
	}
}

func (o *Options) validateRoot(c *schema.Checker) {
	r := o.Root
	if r == nil {
		c.Errorf(&o.Root, "No root device", "Add an ami_root_device block that names the volume to become the root of the image.")
		return
	}
	if r.DeviceName == "" {
		c.Errorf(&r.DeviceName, "No device name", "device_name cannot be empty.")
	}
	for _, n := range []*int{&r.VolumeSize, &r.IOPS, &r.Throughput} {
		if *n < 0 {
			c.Errorf(n, "Negative number", "%s cannot be negative.", c.Name(n))
		}
	}
	for i := range o.LaunchBlockDeviceMappings {
		m := &o.LaunchBlockDeviceMappings[i]
		if !c.Known(&m.DeviceName) {
			return
		}
		if m.DeviceName != r.SourceDeviceName {
			continue
		}
		switch {
		case m.OmitFromArtifact:
			c.Errorf(&m.OmitFromArtifact, "Root volume omitted", "The volume %s becomes the root of the image, so it cannot be omitted.", m.DeviceName)
		case m.NoDevice, m.VirtualName != "":
			c.Errorf(&r.SourceDeviceName, "No volume", "%s is not an EBS volume.", m.DeviceName)
		}
		return
	}
	c.Errorf(&r.SourceDeviceName, "No such volume", "No launch_block_device_mappings has the device_name %q.", r.SourceDeviceName)
}
