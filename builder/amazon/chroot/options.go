package chroot

import (
	"slices"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/sourceami"
	"bake/config/schema"
)

// Options of the builder amazon-chroot.
type Options struct {
	Access
	Image
	sourceami.Selection

	// Start with an empty volume, which `pre_mount_commands` must partition and format,
	// instead of a source image. Needs `ami_virtualization_type`, `root_device_name`,
	// `root_volume_size` and `ami_block_device_mappings`.
	FromScratch bool `hcl:"from_scratch,optional"`

	// Wrapper for every command that bake runs on this computer; `{{.Command}}` is the
	// command. With `sudo {{.Command}}` bake itself need not run as root.
	CommandWrapper string `hcl:"command_wrapper,optional,deferred"`

	// Files on this computer to copy into the chroot for the duration of the build. Not set:
	// /etc/resolv.conf, unless `from_scratch` is set.
	CopyFiles []string `hcl:"copy_files,optional"`

	// Device name to attach the volume as, such as /dev/xvdf. Not set: the first free one.
	DevicePath string `hcl:"device_path,optional"`

	// Device file of the attached volume, such as /dev/nvme1n1. Required on instances that show
	// EBS volumes as NVMe disks: there is no file with the name `device_path`.
	NVMeDevicePath string `hcl:"nvme_device_path,optional"`

	// File systems to mount in the chroot, each as `[type, source, path]`, in this order. They
	// replace the default list; an empty list mounts none.
	ChrootMounts [][]string `hcl:"chroot_mounts,optional"`

	// Number of the partition of the volume to mount as the root. `"0"` is the whole volume,
	// without a partition table. A paravirtual image is always mounted whole.
	MountPartition string `hcl:"mount_partition,optional"`

	// Directory to mount the volume at. `{{.Device}}` is the name of its device.
	MountPath string `hcl:"mount_path,optional,deferred"`

	// Options for mount, each passed with -o. An XFS volume with the UUID of one that is
	// mounted here needs `nouuid`.
	MountOptions []string `hcl:"mount_options,optional"`

	// Commands to run on this computer, as root, before the volume is mounted. `{{.Device}}`
	// is its device.
	PreMountCommands []string `hcl:"pre_mount_commands,optional,deferred"`

	// Commands to run on this computer, as root, after the volume is mounted and before the
	// chroot is prepared. `{{.Device}}` is its device, `{{.MountPath}}` where it is mounted.
	PostMountCommands []string `hcl:"post_mount_commands,optional,deferred"`

	// Device name of the root volume in the image, such as /dev/xvda. Only together with
	// `ami_block_device_mappings`. Not set: that of the source image.
	RootDeviceName string `hcl:"root_device_name,optional"`

	// Size of the root volume in GiB. Not set: the size in the source image. The file system
	// does not grow with it.
	RootVolumeSize int `hcl:"root_volume_size,optional"`

	// Type of the root volume, such as gp3. Not set: the type in the source image.
	RootVolumeType string `hcl:"root_volume_type,optional"`

	// Encrypt the root volume, and with it the image. Not set: as in the source image. `false`
	// cannot remove encryption.
	RootVolumeEncryptBoot *bool `hcl:"root_volume_encrypt_boot,optional"`

	// KMS key for the encrypted root volume: key ID, alias or ARN. Needs
	// `root_volume_encrypt_boot`.
	RootVolumeKMSKeyID string `hcl:"root_volume_kms_key_id,optional"`

	// Tags for the volume during the build. The image does not get them.
	RootVolumeTags map[string]string `hcl:"root_volume_tags,optional,deferred"`

	// A single tag, added to `root_volume_tags`. Repeatable.
	RootVolumeTag []interpolate.Tag `hcl:"root_volume_tag,block"`
}

// The groups of options, each accessible by its name.
type (
	// Access holds the options for the account and region.
	Access struct{ access.Options }
	// Image holds the options for the finished image.
	Image struct {
		image.Options
		image.Firmware
	}
)

// defaults returns the options of a template that sets none.
func defaults() Options {
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
	interpolate.CheckTags(c, interpolate.Of(&o.RootVolumeTags, o.RootVolumeTag))
	if o.FromScratch {
		o.validateScratch(c)
	} else {
		o.validateSource(c)
	}
	if slices.ContainsFunc(o.ChrootMounts, func(m []string) bool { return len(m) != 3 }) {
		c.Errorf(&o.ChrootMounts, "Not a mount", "Each of chroot_mounts is a type, a source and a path, such as [\"proc\", \"proc\", \"/proc\"].")
	}
	for _, p := range []*string{&o.DevicePath, &o.NVMeDevicePath, &o.RootDeviceName} {
		if *p != "" {
			image.ValidDevice(c, p)
		}
	}
	if c.Set(&o.SkipRunTags) {
		c.Warnf(&o.SkipRunTags, "Argument without effect", "amazon-chroot does not launch an instance, so run_tags has no effect.")
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
		c.Errorf(&o.FromScratch, "Conflicting arguments", "from_scratch cannot be combined with source_ami or source_ami_filter.")
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
		c.Errorf(&o.RootVolumeType, "Invalid volume type", "from_scratch cannot use a volume of type %s: there is no argument for its IOPS.", o.RootVolumeType)
	}
}

func (o *Options) validateSource(c *schema.Checker) {
	o.Selection.Validate(c, "source_ami, source_ami_filter or from_scratch")
	if len(o.BlockDeviceMappings) == 0 {
		if o.RootDeviceName != "" {
			c.Errorf(&o.RootDeviceName, "Root device without mappings",
				"root_device_name needs ami_block_device_mappings. Set both, or neither to keep the root device of the source image.")
		}
		return
	}
	for _, missing := range []struct {
		is  bool
		ptr any
	}{{o.RootDeviceName == "", &o.RootDeviceName}, {o.RootVolumeSize == 0, &o.RootVolumeSize}} {
		if missing.is && c.Known(missing.ptr) {
			c.Errorf(missing.ptr, "Missing argument", "ami_block_device_mappings needs %s: the image's mappings replace those of the source image.", c.Name(missing.ptr))
		}
	}
}
