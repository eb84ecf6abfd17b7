package chroot

import (
	_ "embed"
	"slices"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

//go:embed options.go
var source string

// Options of the builder amazon-chroot.
type Options struct {
	Access
	Image

	// Id of the image to start from. With `source_ami_filter` as well, the image
	// must also match that.
	SourceAMI string `hcl:"source_ami,optional"`

	// Finds the image to start from.
	SourceAMIFilter *launch.SourceAMIFilter `hcl:"source_ami_filter,block"`

	// Start from an empty volume, which `pre_mount_commands` format.
	FromScratch bool `hcl:"from_scratch,optional"`

	// The command that is run in place of each command of this machine: `{{.Command}}`
	// is that one. With `sudo {{.Command}}` bake need not be root.
	CommandWrapper string `hcl:"command_wrapper,optional,late"`

	// Files of this machine that are there while the build goes on. Not set:
	// /etc/resolv.conf, unless `from_scratch` is set.
	CopyFiles []string `hcl:"copy_files,optional"`

	// Device to attach the volume as, such as /dev/xvdf. Not set: the first that is free.
	DevicePath string `hcl:"device_path,optional"`

	// Device that the volume has on this machine when it is an NVMe disk here.
	NVMeDevicePath string `hcl:"nvme_device_path,optional"`

	// What else is mounted in the volume: kind, source and place of each.
	ChrootMounts [][]string `hcl:"chroot_mounts,optional"`

	// Partition of the volume that is mounted; "0" is the whole volume.
	MountPartition string `hcl:"mount_partition,optional"`

	// Where the volume is mounted: `{{.Device}}` is the name of its device.
	MountPath string `hcl:"mount_path,optional,late"`

	// Options of the mount, each given with -o.
	MountOptions []string `hcl:"mount_options,optional"`

	// Commands before the volume is mounted: `{{.Device}}` is its device.
	PreMountCommands []string `hcl:"pre_mount_commands,optional,late"`

	// Commands after the volume was mounted: `{{.Device}}` is its device, and
	// `{{.MountPath}}` where it is.
	PostMountCommands []string `hcl:"post_mount_commands,optional,late"`

	// Device of the root volume in the image.
	RootDeviceName string `hcl:"root_device_name,optional"`

	// Size of the root volume in GiB. Not set: that of the source image.
	RootVolumeSize int `hcl:"root_volume_size,optional"`

	// Type of the root volume, such as gp3. Not set: that of the source image.
	RootVolumeType string `hcl:"root_volume_type,optional"`

	// Encrypt the root volume. Not set: as that of the source image.
	RootVolumeEncryptBoot *bool `hcl:"root_volume_encrypt_boot,optional"`

	// KMS key for an encrypted root volume.
	RootVolumeKMSKeyID string `hcl:"root_volume_kms_key_id,optional"`

	// Tags for the volume while the build goes on.
	RootVolumeTags map[string]string `hcl:"root_volume_tags,optional,late"`

	// One more of `root_volume_tags`.
	RootVolumeTag []late.Tag `hcl:"root_volume_tag,block"`
}

// The groups of options, by which they are reached.
type (
	// Access says which account and region to work in.
	Access struct{ access.Options }
	// Image says what the finished image is like.
	Image struct {
		image.Options
		image.Firmware
	}
)

// Defaults are the options of a template that sets none.
func Defaults() Options {
	return Options{
		Access:         Access{access.Defaults()},
		Image:          Image{Firmware: image.FirmwareDefaults()},
		CommandWrapper: "{{.Command}}",
		ChrootMounts: [][]string{
			{"proc", "proc", "/proc"}, {"sysfs", "sysfs", "/sys"}, {"bind", "/dev", "/dev"}, {"devpts", "devpts", "/dev/pts"},
			{"binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"},
		},
		MountPartition: "1",
		MountPath:      "/mnt/packer-amazon-chroot-volumes/{{.Device}}",
	}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Access.Validate(c)
	o.Image.Options.Validate(c)
	o.Firmware.Validate(c)
	late.CheckTags(c, late.Of(&o.RootVolumeTags, o.RootVolumeTag))
	if o.FromScratch {
		o.validateScratch(c)
	} else {
		o.validateSource(c)
	}
	if slices.ContainsFunc(o.ChrootMounts, func(m []string) bool { return len(m) != 3 }) {
		c.Errorf(&o.ChrootMounts, "Not a mount", "Each of chroot_mounts is a kind, a source and a place, such as [\"proc\", \"proc\", \"/proc\"].")
	}
	for _, p := range []*string{&o.DevicePath, &o.NVMeDevicePath, &o.RootDeviceName} {
		if *p != "" {
			image.ValidDevice(c, p)
		}
	}
	if c.Set(&o.SkipRunTags) {
		c.Warnf(&o.SkipRunTags, "Argument without effect", "amazon-chroot launches nothing and has no run_tags.")
	}
	if o.RootVolumeSize < 0 {
		c.Errorf(&o.RootVolumeSize, "Negative size", "root_volume_size cannot be negative.")
	}
	if key := o.RootVolumeKMSKeyID; key != "" {
		names.KMSKey(c, &o.RootVolumeKMSKeyID, key, o.Region)
		if (o.RootVolumeEncryptBoot == nil || !*o.RootVolumeEncryptBoot) && c.Known(&o.RootVolumeEncryptBoot) {
			c.Errorf(&o.RootVolumeKMSKeyID, "Key without encryption", "root_volume_kms_key_id needs root_volume_encrypt_boot = true.")
		}
	}
}

func (o *Options) validateScratch(c *schema.Checker) {
	if o.SourceAMI != "" || o.SourceAMIFilter != nil {
		c.Errorf(&o.FromScratch, "Conflicting arguments", "With from_scratch there is no source_ami and no source_ami_filter.")
	}
	need := func(missing bool, ptr any) {
		if missing && c.Known(ptr) {
			c.Errorf(ptr, "Missing argument", "from_scratch needs %s.", c.Name(ptr))
		}
	}
	need(o.VirtualizationType == "", &o.VirtualizationType)
	need(len(o.PreMountCommands) == 0, &o.PreMountCommands)
	need(o.RootVolumeSize == 0, &o.RootVolumeSize)
	need(o.RootDeviceName == "", &o.RootDeviceName)
	need(len(o.BlockDeviceMappings) == 0, &o.BlockDeviceMappings)
	if o.RootVolumeType == "io1" || o.RootVolumeType == "io2" {
		c.Errorf(&o.RootVolumeType, "Invalid volume type", "The volume of from_scratch cannot be of type %s: there is no argument for its IOPS.", o.RootVolumeType)
	}
}

func (o *Options) validateSource(c *schema.Checker) {
	f := o.SourceAMIFilter
	switch {
	case f == nil:
		if o.SourceAMI == "" {
			c.Errorf(&o.SourceAMI, "No source image", "Set source_ami, source_ami_filter or from_scratch.")
		}
	case len(f.Owners) == 0 && o.SourceAMI == "" && c.Known(&o.SourceAMI):
		c.Errorf(&o.SourceAMIFilter, "No owners", "Set owners in source_ami_filter: anybody can publish an image under any name.")
	}
	if len(o.BlockDeviceMappings) == 0 {
		if o.RootDeviceName != "" {
			c.Errorf(&o.RootDeviceName, "Root device without mappings",
				"The image has the root device of the source image; root_device_name is for an image with ami_block_device_mappings of its own. Set those too, or leave it out.")
		}
		return
	}
	for _, missing := range []struct {
		is  bool
		ptr any
	}{{o.RootDeviceName == "", &o.RootDeviceName}, {o.RootVolumeSize == 0, &o.RootVolumeSize}} {
		if missing.is && c.Known(missing.ptr) {
			c.Errorf(missing.ptr, "Missing argument", "ami_block_device_mappings needs %s: the image's mappings take the place of the source image's.", c.Name(missing.ptr))
		}
	}
}
