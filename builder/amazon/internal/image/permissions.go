package image

import (
	"maps"
	"slices"

	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/policy"
	"bake/config/schema"
)

// Permissions returns the needs for making the images, and for deleting them if the build
// fails. action is the action of EC2 that makes the first image, in the region of the
// build; it may be empty.
func (o *Options) Permissions(src *schema.Source, region, action string) []policy.Need {
	here, all := policy.In(region), o.Place(src, region)
	needs := append(o.Checks(src, region),
		all.Look("DescribeSnapshots"),
		all.Own("DeregisterImage", "image"), all.Own("DeleteSnapshot", "snapshot"), all.Release("image", "snapshot"))
	needs = append(needs, o.first(src, here, action)...)
	copied := len(o.copies(region)) > 0 || o.temporary() || !src.Known(&o.Regions) || !src.Known(&o.EncryptBoot) || !src.Known(&o.SkipSaveBuildRegion)
	if copied {
		needs = append(needs, all.Use("CopyImage", "image", "snapshot"), all.TagNew("CopyImage", "image", "snapshot"))
	}
	needs = append(needs, o.attributes(src, all)...)
	return append(needs, o.keys(src, here, all)...)
}

// Checks returns the needs for checking whether the images can be made.
func (o *Options) Checks(src *schema.Source, region string) (needs []policy.Need) {
	if policy.MayBe(src, &o.SkipRegionValidation, !o.SkipRegionValidation) {
		needs = append(needs, policy.In(region).Look("DescribeRegions"))
	}
	return append(needs, o.Place(src, region).Look("DescribeImages"))
}

// Place returns the place where images are made, including the region of the build.
func (o *Options) Place(src *schema.Source, region string) policy.Place {
	return policy.In(o.Where(src, region)...)
}

// Where returns the regions of Place. A region that is not known is "".
func (o *Options) Where(src *schema.Source, region string) []string {
	if !src.Known(&o.Regions) {
		return []string{""}
	}
	return append(o.copies(region), region)
}

// first returns the needs for making the first image.
func (o *Options) first(src *schema.Source, here policy.Place, action string) (needs []policy.Need) {
	if action == "CreateImage" {
		needs = append(needs, here.Make(action, "image", "snapshot")...)
		needs = append(needs, here.Own(action, "instance"))
	} else {
		needs = append(needs, here.Make(action, "image")...)
		needs = append(needs, here.Own(action, "snapshot"))
	}
	if more := device.Snapshots(src, o.Devices()); len(more) > 0 {
		needs = append(needs, here.Use(action, more...))
	}
	return needs
}

// attributes returns the needs for sharing and protecting the images, and for replacing
// existing ones.
func (o *Options) attributes(src *schema.Source, all policy.Place) (needs []policy.Need) {
	if given(src, &o.Users, &o.Groups, &o.OrgARNs, &o.OUARNs, &o.ProductCodes) || policy.MayBe(src, &o.IMDSSupport, o.IMDSSupport != "") {
		needs = append(needs, all.Own("ModifyImageAttribute", "image"))
	}
	if given(src, &o.SnapshotUsers, &o.SnapshotGroups) {
		needs = append(needs, all.Own("ModifySnapshotAttribute", "snapshot"))
	}
	if policy.MayBe(src, &o.DeprecateAt, o.DeprecateAt != "") {
		needs = append(needs, all.Own("EnableImageDeprecation", "image"))
	}
	if p := o.DeregistrationProtection; p != nil && (policy.MayBe(src, &p.Enabled, p.Enabled) || policy.MayBe(src, &p.WithCooldown, p.WithCooldown)) {
		needs = append(needs, all.Own("EnableImageDeregistrationProtection", "image"), all.Own("DisableImageDeregistrationProtection", "image"))
	}
	if policy.MayBe(src, &o.ForceDeregister, o.ForceDeregister) {
		needs = append(needs, all.Use("DeregisterImage", "image"))
		needs = append(needs, all.Users()...)
		if policy.MayBe(src, &o.ForceDeleteSnapshot, o.ForceDeleteSnapshot) {
			needs = append(needs, all.Use("DeleteSnapshot", "snapshot"))
		}
	}
	return needs
}

func given(src *schema.Source, lists ...*[]string) bool {
	return slices.ContainsFunc(lists, func(l *[]string) bool { return policy.MayBe(src, l, len(*l) > 0) })
}

// SharingCheckPermissions returns the needs of [Maker.CheckSharing].
func (o *Options) SharingCheckPermissions(src *schema.Source, region string) []policy.Need {
	if !given(src, &o.Users, &o.Groups, &o.OrgARNs, &o.OUARNs, &o.SnapshotUsers, &o.SnapshotGroups) {
		return nil
	}
	return []policy.Need{o.Place(src, region).Look("GetEbsDefaultKmsKeyId", "GetEbsEncryptionByDefault")}
}

// InstanceAttributes returns the needs of [launch.Launcher.ModifyInstance].
func (o *Options) InstanceAttributes(src *schema.Source, here policy.Place) []policy.Need {
	if policy.MayBe(src, &o.SRIOVSupport, o.SRIOVSupport) || policy.MayBe(src, &o.ENASupport, o.ENASupport != nil) {
		return []policy.Need{here.Own("ModifyInstanceAttribute", "instance")}
	}
	return nil
}

// keys returns the needs for KMS keys. A copy decrypts the first image in the region of
// the build.
func (o *Options) keys(src *schema.Source, here, all policy.Place) (needs []policy.Need) {
	key := o.KMSKeyID
	if !src.Known(&o.KMSKeyID) {
		key = "*"
	}
	needs = append(needs, here.Keys(key)...)
	if !src.Known(&o.RegionKMSKeyIDs) {
		needs = append(needs, all.Keys("*")...)
	}
	for _, region := range slices.Sorted(maps.Keys(o.RegionKMSKeyIDs)) {
		needs = append(needs, policy.In(region).Keys(o.RegionKMSKeyIDs[region])...)
	}
	return append(needs, device.Permissions(src, here, o.Devices())...)
}
