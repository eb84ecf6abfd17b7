// Package image turns a stopped instance into images: it creates, copies,
// shares and hands them over.
package image

import (
	_ "embed"
	"slices"
	"strings"
	"time"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Source is the Go source that documents [Options], for [schema.Docs].
//
//go:embed options.go
var Source string

// Options say what the finished image is like, where it is, and who may use it.
type Options struct {
	// Name of the image. It must be free in each region the image goes to.
	Name string `hcl:"ami_name"`

	// Description of the image.
	Description string `hcl:"ami_description,optional,late"`

	// Virtualization type that the image is expected to have; it is that of the
	// source image. A difference is only reported.
	VirtualizationType string `hcl:"ami_virtualization_type,optional"`

	// Accounts that may launch the image.
	Users []string `hcl:"ami_users,optional"`

	// Groups that may launch the image. The only one is `all`: everybody.
	Groups []string `hcl:"ami_groups,optional"`

	// ARNs of organizations that may launch the image.
	OrgARNs []string `hcl:"ami_org_arns,optional"`

	// ARNs of organizational units that may launch the image.
	OUARNs []string `hcl:"ami_ou_arns,optional"`

	// Product codes of the image.
	ProductCodes []string `hcl:"ami_product_codes,optional"`

	// Regions that the image is copied to. The region of the build has it anyway.
	Regions []string `hcl:"ami_regions,optional"`

	// Do not ask AWS whether the regions exist.
	SkipRegionValidation bool `hcl:"skip_region_validation,optional"`

	// Time within which the snapshots of copies are to be complete, in minutes:
	// a multiple of 15, up to 2880. It costs extra.
	SnapshotCopyDurationMinutes int `hcl:"snapshot_copy_duration_minutes,optional"`

	// Tags for the images and their snapshots.
	Tags map[string]string `hcl:"tags,optional,late"`

	// One more of `tags`.
	Tag []late.Tag `hcl:"tag,block"`

	// Tags for the snapshots only; they win over `tags`.
	SnapshotTags map[string]string `hcl:"snapshot_tags,optional,late"`

	// One more of `snapshot_tags`.
	SnapshotTag []late.Tag `hcl:"snapshot_tag,block"`

	// Accounts that may make volumes from the snapshots.
	SnapshotUsers []string `hcl:"snapshot_users,optional"`

	// Groups that may make volumes from the snapshots. The only one is `all`: everybody.
	SnapshotGroups []string `hcl:"snapshot_groups,optional"`

	// Set or clear the image's support for the Elastic Network Adapter. Not set:
	// as the source image has it.
	ENASupport *bool `hcl:"ena_support,optional"`

	// Set the image's support for SR-IOV networking with the Intel 82599 adapter.
	SRIOVSupport bool `hcl:"sriov_support,optional"`

	// Deregister an image that has the name already, just before it is needed.
	// The flag -force does so too.
	ForceDeregister bool `hcl:"force_deregister,optional"`

	// Delete the snapshots of an image that `force_deregister` removes.
	ForceDeleteSnapshot bool `hcl:"force_delete_snapshot,optional"`

	// Encrypt the image, by way of a temporary one. Not set: as the volumes of the
	// instance are.
	EncryptBoot *bool `hcl:"encrypt_boot,optional"`

	// KMS key to encrypt the image with in the region of the build. Not set: the
	// account's default key.
	KMSKeyID string `hcl:"kms_key_id,optional"`

	// KMS keys to encrypt the copies with, by region; "" is the region's default key.
	RegionKMSKeyIDs map[string]string `hcl:"region_kms_key_ids,optional"`

	// Leave only the copies in `ami_regions`, and nothing in the region of the build.
	SkipSaveBuildRegion bool `hcl:"skip_save_build_region,optional"`

	// `v2.0` makes the metadata service ask for tokens on instances of the image.
	IMDSSupport string `hcl:"imds_support,optional"`

	// When the image becomes deprecated, as in 2030-01-02T15:04:05Z.
	DeprecateAt string `hcl:"deprecate_at,optional"`

	// Protect the image from being deregistered. `-force` and `force_deregister` cannot
	// replace a protected image.
	DeregistrationProtection *Protection `hcl:"deregistration_protection,block"`

	// Volumes that instances of the image get, beside or instead of those of the
	// instance that it was made from.
	BlockDeviceMappings []device.Mapping `hcl:"ami_block_device_mappings,block"`

	// Do not give the image and its snapshots the `run_tags`. In the regions of
	// GovCloud and China they never get them.
	SkipRunTags bool `hcl:"skip_ami_run_tags,optional"`
}

// Protection protects an image from being deregistered.
type Protection struct {
	// Protect it.
	Enabled bool `hcl:"enabled,optional"`

	// Protect it, and for 24 hours after the protection is lifted.
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
	late.Check(c, &o.Description)
	tags := late.Of(&o.Tags, o.Tag)
	late.CheckTags(c, tags)
	snapshot := late.Of(&o.SnapshotTags, o.SnapshotTag)
	late.CheckTags(c, snapshot)
	if !snapshot.Empty() {
		late.CheckTogether(c, tags, snapshot)
	}
	if !o.SkipRegionValidation {
		for _, region := range o.Regions {
			names.Region(c, &o.Regions, strings.TrimSpace(region))
		}
	}
	if o.IMDSSupport != "" && o.IMDSSupport != "v2.0" {
		c.Errorf(&o.IMDSSupport, "Invalid value", `imds_support is "v2.0" or not set.`)
	}
	if n := o.SnapshotCopyDurationMinutes; n < 0 || n > 2880 || n%15 != 0 {
		c.Errorf(&o.SnapshotCopyDurationMinutes, "Invalid duration", "snapshot_copy_duration_minutes is a multiple of 15 up to 2880, not %d.", n)
	}
	if o.SkipSaveBuildRegion && len(o.Regions) == 0 && c.Known(&o.Regions) {
		c.Warnf(&o.SkipSaveBuildRegion, "No image is left", "With skip_save_build_region the image is only in ami_regions, which is not set.")
	}
	if v := o.VirtualizationType; v != "" && v != "hvm" && v != "paravirtual" {
		c.Errorf(&o.VirtualizationType, "Invalid value", "ami_virtualization_type is hvm or paravirtual.")
	}
	if v := o.VirtualizationType; v == "paravirtual" && (o.ENASupport != nil && *o.ENASupport || o.SRIOVSupport) {
		c.Errorf(&o.VirtualizationType, "Invalid virtualization type", "ena_support and sriov_support need hvm.")
	}
	o.validateKeys(c)
	device.Validate(c, o.Devices())
}

// ValidateTags reports tags that are too many together with those of the instance,
// which the image gets too.
func (o *Options) ValidateTags(c *schema.Checker, run late.Tags) {
	if !o.SkipRunTags && !run.Empty() {
		late.CheckTogether(c, run, late.Of(&o.SnapshotTags, o.SnapshotTag), late.Of(&o.Tags, o.Tag))
	}
}

// The latest that AWS takes as the end of an image's life, counted from now.
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
		c.Errorf(&o.DeprecateAt, "Not a time", "deprecate_at is a time such as 2030-01-02T15:04:05Z.")
	case at.Before(now):
		c.Errorf(&o.DeprecateAt, "Time in the past", "deprecate_at is %s, which is over; it must be in the future.", o.DeprecateAt)
	case at.After(now.AddDate(longestLife, 0, 0)):
		c.Warnf(&o.DeprecateAt, "Time too far ahead", "AWS lets an image become deprecated within %d years at the latest, not in %d.", longestLife, at.Year())
	case slices.Contains(o.Groups, "all") && at.After(now.AddDate(longestPublicLife, 0, 0)):
		c.Warnf(&o.DeprecateAt, "Time too far ahead", "AWS lets a public image become deprecated within %d years at the latest, not in %d.", longestPublicLife, at.Year())
	}
}

// Devices are the volumes that instances of the image get by the options.
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
				c.Errorf(&o.RegionKMSKeyIDs, "Region without a copy", "region_kms_key_ids names %q, but ami_regions does not.", region)
			}
			names.KMSKey(c, &o.RegionKMSKeyIDs, key, region)
			if key != "" && o.EncryptBoot != nil && !encrypt {
				c.Errorf(&o.RegionKMSKeyIDs, "Key without encryption", "The copy in %s cannot have a key: encrypt_boot is false.", region)
			}
		}
		for _, region := range o.Regions {
			if _, ok := o.RegionKMSKeyIDs[region]; !ok {
				c.Errorf(&o.RegionKMSKeyIDs, "Region without a key", `ami_regions names %q, but region_kms_key_ids does not; "" is its default key.`, region)
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

// Temporary reports whether the image of the build region is only the source of
// the ones that stay.
func (o *Options) Temporary() bool {
	return o.SkipSaveBuildRegion || o.encrypts()
}
