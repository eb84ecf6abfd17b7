// Package image turns a stopped instance into images: it creates, copies,
// shares and hands them over.
package image

import (
	"slices"
	"strings"
	"time"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Options define the finished image, its regions, and who may use it.
type Options struct {
	// Name of the image: 3 to 128 letters, digits, spaces and `()[]./-'@_`. It must not be
	// in use in any region that the image goes to, unless `force_deregister` is set. For a
	// unique name, add the time, such as with `formatdate`.
	Name string `hcl:"ami_name"`

	// Description of the image, up to 255 characters. It can use `{{ .SourceAMI }}` and similar
	// variables.
	Description string `hcl:"ami_description,optional,deferred"`

	// Virtualization type that you expect: `hvm` or `paravirtual`. It does not change the
	// image, which has the type of the source image; bake reports a difference.
	VirtualizationType string `hcl:"ami_virtualization_type,optional"`

	// AWS accounts that may launch the image, as 12-digit account IDs. Not set: only the
	// account that owns it. Encrypted images can be shared only if they are encrypted with a
	// customer managed KMS key, which those accounts must be allowed to use.
	Users []string `hcl:"ami_users,optional"`

	// Groups that may launch the image. The only group is `all`, which makes the image
	// public: anyone with an AWS account can launch and read it. Encrypted images cannot be
	// public, and neither can images in accounts that block public access to images.
	Groups []string `hcl:"ami_groups,optional"`

	// ARNs of organizations in AWS Organizations whose accounts may launch the image, such
	// as `arn:aws:organizations::123456789012:organization/o-abc123def4`.
	OrgARNs []string `hcl:"ami_org_arns,optional"`

	// ARNs of organizational units in AWS Organizations whose accounts may launch the image.
	OUARNs []string `hcl:"ami_ou_arns,optional"`

	// AWS Marketplace product codes to attach to the image. They cannot be removed from it
	// later.
	ProductCodes []string `hcl:"ami_product_codes,optional"`

	// Regions to copy the image to, besides the region of the build. Each copy has its own
	// image ID, and its storage is charged in its region.
	Regions []string `hcl:"ami_regions,optional"`

	// Do not check that the names in `ami_regions` are those of AWS regions.
	SkipRegionValidation bool `hcl:"skip_region_validation,optional"`

	// Maximum duration of snapshot copies in minutes (time-based copies): a multiple of
	// 15, up to 2880. AWS charges extra for it.
	SnapshotCopyDurationMinutes int `hcl:"snapshot_copy_duration_minutes,optional"`

	// Tags for the images and their snapshots. A key is up to 128 characters, a value up to
	// 256, and there can be at most 48. They can use `{{ .SourceAMIName }}` and similar
	// variables.
	Tags map[string]string `hcl:"tags,optional,deferred"`

	// A single tag, added to `tags`. Repeatable.
	Tag []interpolate.Tag `hcl:"tag,block"`

	// Additional tags for the snapshots only. They override `tags` with the same key.
	SnapshotTags map[string]string `hcl:"snapshot_tags,optional,deferred"`

	// A single tag, added to `snapshot_tags`. Repeatable.
	SnapshotTag []interpolate.Tag `hcl:"snapshot_tag,block"`

	// AWS accounts that may create volumes from the snapshots, as 12-digit account IDs.
	// Sharing the image does not share its snapshots. The rules for encryption are those of
	// `ami_users`.
	SnapshotUsers []string `hcl:"snapshot_users,optional"`

	// Groups that may create volumes from the snapshots. The only group is `all`, which
	// makes the snapshots public: anyone can read all data in them. Encrypted snapshots
	// cannot be public.
	SnapshotGroups []string `hcl:"snapshot_groups,optional"`

	// Turn the image's support for enhanced networking with the Elastic Network Adapter on
	// or off. Not set: the setting of the source image. The image must have the driver.
	ENASupport *bool `hcl:"ena_support,optional"`

	// Enable enhanced networking with the Intel 82599 adapter on the image. The image must
	// have the ixgbevf driver.
	SRIOVSupport bool `hcl:"sriov_support,optional"`

	// Replace an image that already has the name `ami_name`: it is deregistered just before the
	// new one is created. Instances of the old image keep running, but nothing can launch it any
	// more. The flag -force does the same. An image is never replaced if it has the tag
	// `bake:hold` or `bake:quarantine`, if a channel in this account that bake has moved names
	// it, or if it has the tag `bake:image` and the channels cannot be read from Systems
	// Manager. Other users of the image are listed before the launch, as far as the credentials
	// permit it and the services answer in time.
	ForceDeregister bool `hcl:"force_deregister,optional"`

	// Also delete the snapshots of the image that `force_deregister` replaces. The data
	// cannot be recovered. Not set: the snapshots stay, and are charged.
	ForceDeleteSnapshot bool `hcl:"force_delete_snapshot,optional"`

	// Encrypt the image, by copying it with encryption. Not set: each volume is encrypted if
	// the volume of the instance is. `false` cannot remove encryption from an encrypted
	// volume.
	EncryptBoot *bool `hcl:"encrypt_boot,optional"`

	// KMS key for the image in the region of the build: key ID, alias or ARN. Needs
	// `encrypt_boot = true`. Not set: the account's default key for EBS, with which an image
	// cannot be shared.
	KMSKeyID string `hcl:"kms_key_id,optional"`

	// KMS keys for the copies, by region; `""` means the default key of the region. It must
	// name every region of `ami_regions` and no other.
	RegionKMSKeyIDs map[string]string `hcl:"region_kms_key_ids,optional"`

	// Keep only the copies in `ami_regions` and remove the image from the region of the
	// build. Without `ami_regions` no image is left.
	SkipSaveBuildRegion bool `hcl:"skip_save_build_region,optional"`

	// `v2.0` makes instances of the image require session tokens of the metadata service
	// (IMDSv2) by default. Software that only knows IMDSv1 fails on them. Cannot be undone
	// on an image.
	IMDSSupport string `hcl:"imds_support,optional"`

	// When the image becomes deprecated, as a time in RFC 3339 such as 2030-01-02T15:04:05Z.
	// It must be in the future, within 10 years, or 2 for a public image. Other accounts
	// then no longer see the image in searches; it can still be launched by its ID.
	DeprecateAt string `hcl:"deprecate_at,optional"`

	// Protect the image from being deregistered. `-force` and `force_deregister` cannot
	// replace a protected image.
	DeregistrationProtection *Protection `hcl:"deregistration_protection,block"`

	// Volumes that instances of the image get. A mapping with the device name of a volume of
	// the build instance changes it; another one adds a volume. Repeatable.
	BlockDeviceMappings []device.Mapping `hcl:"ami_block_device_mappings,block"`

	// Do not copy `run_tags` to the image and its snapshots. In the GovCloud and China
	// regions they are never copied.
	SkipRunTags bool `hcl:"skip_ami_run_tags,optional"`
}

// Protection protects an image from being deregistered.
type Protection struct {
	// Turn the protection on. Not set: off, unless `with_cooldown` is set.
	Enabled bool `hcl:"enabled,optional"`

	// Protect the image, and keep it protected for another 24 hours when the protection is
	// turned off.
	WithCooldown bool `hcl:"with_cooldown,optional"`
}

// Validate reports what is wrong with the options. Structs that embed them call it.
func (o *Options) Validate(c *schema.Checker) {
	names.Image(c, &o.Name)
	o.validateDeprecation(c)
	for _, list := range []*[]string{&o.Users, &o.SnapshotUsers} {
		names.Accounts(c, list)
	}
	for _, list := range []*[]string{&o.Groups, &o.SnapshotGroups} {
		names.Groups(c, list)
	}
	names.ARNs(c, &o.OrgARNs, names.Organization)
	names.ARNs(c, &o.OUARNs, names.Unit)
	interpolate.Check(c, &o.Description)
	tags := interpolate.Of(&o.Tags, o.Tag)
	interpolate.CheckTags(c, tags)
	snapshot := interpolate.Of(&o.SnapshotTags, o.SnapshotTag)
	interpolate.CheckTags(c, snapshot)
	if !snapshot.Empty() {
		interpolate.CheckTogether(c, tags, snapshot)
	}
	if !o.SkipRegionValidation {
		for _, region := range o.Regions {
			names.Region(c, &o.Regions, strings.TrimSpace(region))
		}
	}
	if o.IMDSSupport != "" && o.IMDSSupport != "v2.0" {
		c.Errorf(&o.IMDSSupport, "Invalid value", `imds_support must be "v2.0" or not set.`)
	}
	if n := o.SnapshotCopyDurationMinutes; n < 0 || n > 2880 || n%15 != 0 {
		c.Errorf(&o.SnapshotCopyDurationMinutes, "Invalid duration", "snapshot_copy_duration_minutes must be a multiple of 15 up to 2880, not %d.", n)
	}
	if o.SkipSaveBuildRegion && len(o.Regions) == 0 && c.Known(&o.Regions) {
		c.Warnf(&o.SkipSaveBuildRegion, "No image is left", "With skip_save_build_region the image is kept only in ami_regions, which is not set.")
	}
	if v := o.VirtualizationType; v != "" && v != "hvm" && v != "paravirtual" {
		c.Errorf(&o.VirtualizationType, "Invalid value", "ami_virtualization_type must be hvm or paravirtual.")
	}
	if v := o.VirtualizationType; v == "paravirtual" && (o.ENASupport != nil && *o.ENASupport || o.SRIOVSupport) {
		c.Errorf(&o.VirtualizationType, "Invalid virtualization type", "ena_support and sriov_support need hvm.")
	}
	o.validateKeys(c)
	device.Validate(c, o.Devices())
}

// ValidateTags reports an excess of tags: the image gets its own tags and those of the
// instance.
func (o *Options) ValidateTags(c *schema.Checker, run interpolate.Tags) {
	if !o.SkipRunTags && !run.Empty() {
		interpolate.CheckTogether(c, run, interpolate.Of(&o.SnapshotTags, o.SnapshotTag), interpolate.Of(&o.Tags, o.Tag))
	}
}

// The latest times, counted from now, that AWS accepts as the end of an image's life.
const (
	longestLife       = 10 // years
	longestPublicLife = 2
)

func (o *Options) validateDeprecation(c *schema.Checker) {
	if o.DeprecateAt == "" {
		return
	}
	at, err := time.Parse(time.RFC3339, o.DeprecateAt)
	now := time.Now()
	switch {
	case err != nil:
		c.Errorf(&o.DeprecateAt, "Not a time", "deprecate_at must be a time such as 2030-01-02T15:04:05Z.")
	case at.Before(now):
		c.Errorf(&o.DeprecateAt, "Time in the past", "deprecate_at is %s, which is in the past; it must be in the future.", o.DeprecateAt)
	case at.After(now.AddDate(longestLife, 0, 0)):
		c.Warnf(&o.DeprecateAt, "Time too far ahead", "AWS accepts at most %d years ahead for an image, not %d.", longestLife, at.Year())
	case slices.Contains(o.Groups, "all") && at.After(now.AddDate(longestPublicLife, 0, 0)):
		c.Warnf(&o.DeprecateAt, "Time too far ahead", "AWS accepts at most %d years ahead for a public image, not %d.", longestPublicLife, at.Year())
	}
}

// Devices returns the volumes that the options define for instances of the image.
func (o *Options) Devices() (all []*device.Mapping) {
	for i := range o.BlockDeviceMappings {
		all = append(all, &o.BlockDeviceMappings[i])
	}
	return all
}

func (o *Options) validateKeys(c *schema.Checker) {
	encrypt := o.encrypts()
	if o.KMSKeyID != "" {
		names.KMSKey(c, &o.KMSKeyID, o.KMSKeyID, "")
		if !encrypt && c.Known(&o.EncryptBoot) {
			c.Errorf(&o.KMSKeyID, "Key without encryption", "kms_key_id needs encrypt_boot = true.")
		}
	}
	if len(o.RegionKMSKeyIDs) > 0 && c.Known(&o.Regions) {
		for region, key := range o.RegionKMSKeyIDs {
			if !slices.Contains(o.Regions, region) {
				c.Errorf(&o.RegionKMSKeyIDs, "Region without a copy", "region_kms_key_ids contains %q, but ami_regions does not.", region)
			}
			names.KMSKey(c, &o.RegionKMSKeyIDs, key, region)
			if key != "" && o.EncryptBoot != nil && !encrypt {
				c.Errorf(&o.RegionKMSKeyIDs, "Key without encryption", "The copy in %s cannot have a key: encrypt_boot is false.", region)
			}
		}
		for _, region := range o.Regions {
			if _, ok := o.RegionKMSKeyIDs[region]; !ok {
				c.Errorf(&o.RegionKMSKeyIDs, "Region without a key", `ami_regions contains %q, but region_kms_key_ids does not; use "" for the region's default key.`, region)
			}
		}
	}
	if c.Known(&o.EncryptBoot) && c.Known(&o.KMSKeyID) && c.Known(&o.RegionKMSKeyIDs) {
		o.validateSharing(c)
	}
}

// copies returns the regions other than build that get a copy.
func (o *Options) copies(build string) []string {
	var out []string
	for _, r := range o.Regions {
		if r = strings.TrimSpace(r); r != "" && r != build && !slices.Contains(out, r) {
			out = append(out, r)
		}
	}
	return out
}

// temporary reports whether the image of the build region is only the source of the
// permanent images.
func (o *Options) temporary() bool {
	return o.SkipSaveBuildRegion || o.encrypts()
}
