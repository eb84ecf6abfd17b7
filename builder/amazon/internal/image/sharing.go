package image

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// AWS does not allow some sharing of encrypted images, and reports that only when the
// image is finished: nothing encrypted can be public, and what is encrypted with a key
// that AWS manages cannot be used by other accounts. These checks report it in advance.

const undecryptable = "Sharing an image that others cannot decrypt"

// sharedWith returns the options that let other accounts use the image or its snapshots.
func (o *Options) sharedWith() (lists []*[]string) {
	for _, list := range []*[]string{&o.Users, &o.OrgARNs, &o.OUARNs, &o.SnapshotUsers} {
		if len(names.Given(*list)) > 0 {
			lists = append(lists, list)
		}
	}
	return lists
}

// public returns the options that let everybody use the image or its snapshots.
func (o *Options) public() (lists []*[]string) {
	for _, list := range []*[]string{&o.Groups, &o.SnapshotGroups} {
		if slices.Contains(*list, "all") {
			lists = append(lists, list)
		}
	}
	return lists
}

// encrypts reports whether the options require the image to be encrypted anew.
func (o *Options) encrypts() bool { return o.EncryptBoot != nil && *o.EncryptBoot }

// validateSharing reports sharing that AWS refuses because of the keys of the image. It
// treats the default key of an account as one that AWS manages, which it is unless the
// account has changed it.
func (o *Options) validateSharing(c *schema.Checker) {
	refused := o.encrypts() && o.KMSKeyID == "" && len(o.RegionKMSKeyIDs) == 0
	why := ""
	for _, key := range append([]string{o.KMSKeyID}, slices.Sorted(maps.Values(o.RegionKMSKeyIDs))...) {
		if access.ManagedKey(key) {
			refused, why = true, fmt.Sprintf(" (AWS manages %s)", key)
		}
	}
	for _, key := range o.RegionKMSKeyIDs {
		refused = refused || key == ""
	}
	if !refused {
		return
	}
	for _, list := range o.sharedWith() {
		c.Errorf(list, undecryptable,
			"%s needs a customer managed KMS key%s: set kms_key_id, and leave no key in region_kms_key_ids empty.", c.Name(list), why)
	}
}

// ValidateVolumes reports volumes of the instance whose snapshots cannot be shared as the
// options require.
func (o *Options) ValidateVolumes(c *schema.Checker, volumes []*device.Mapping) {
	if o.encrypts() || !c.Known(&o.EncryptBoot) || len(o.sharedWith()) == 0 {
		return
	}
	for _, v := range volumes {
		if access.ManagedKey(v.KMSKeyID) && !v.NoDevice {
			c.Errorf(&v.KMSKeyID, undecryptable, "The image is shared, but only its own account may use %s, which AWS manages; use a customer managed KMS key.", v.KMSKeyID)
		}
	}
}

// CheckSharing returns an error for an image that could not be shared as the options or
// Distribution require, because it is encrypted or would inherit encryption from its
// source. volumes are those of the instance, and source has the other devices that become
// part of the image. EC2 does not report the key of the source: where the key matters,
// CheckSharing warns.
func (m *Maker) CheckSharing(ctx context.Context, source types.Image, volumes []*device.Mapping) error {
	if m.None || len(m.sharedWith()) == 0 && len(m.public()) == 0 && len(m.Distribution.Accounts) == 0 {
		return nil
	}
	e := m.encryption(source, volumes)
	if why := cmp.Or(e.why, e.inherited); why != "" {
		if err := m.notPublic(why); err != nil {
			return err
		}
	}
	if e.inherited != "" && (m.isShared(m.Session.Region, !m.SkipSaveBuildRegion) || len(m.sharedWith()) > 0) {
		m.Scope.Warn(ctx, "%s. The image can be shared only if its key is not an account's default key; set encrypt_boot and kms_key_id to encrypt it with another key.", e.inherited)
	}
	return m.suitsDefaults(ctx, e)
}

// isShared reports whether Distribution shares the image in a region with other accounts.
// made means that the build makes the image there; otherwise it is copied there.
func (m *Maker) isShared(region string, made bool) bool {
	to := m.Distribution
	return slices.ContainsFunc(to.Accounts, func(id string) bool { return id != m.Session.Account }) &&
		(slices.Contains(to.Regions, region) || len(to.Regions) == 0 && made)
}

// notPublic returns an error if an encrypted image would be public; why is the reason for
// the encryption.
func (m *Maker) notPublic(why string) error {
	if lists := m.public(); len(lists) > 0 {
		return m.Src.Errorf(lists[0], "Sharing an encrypted image with everyone",
			"%s, and AWS does not allow encrypted images and snapshots to be public: share with accounts, organizations or organizational units instead.", why)
	}
	return nil
}

// suitsDefaults returns an error for a region where the image would be encrypted with the
// account's default key and could not be shared as required: because the options say so,
// because the account encrypts everything there, or as a copy of an encrypted image. If
// the query is not permitted, EC2 reports the problem when the image is shared.
func (m *Maker) suitsDefaults(ctx context.Context, e encryption) error {
	home, made := m.Session.Region, m.Targets()
	if e.plain {
		why, err := m.Session.EncryptsAll(ctx, home)
		if err != nil {
			return err
		}
		if why != "" {
			e.why, e.byDefault = why, true
		}
	}
	for _, region := range made {
		if m.isShared(region, true) || len(m.sharedWith()) > 0 || len(m.public()) > 0 {
			if region == home && !e.byDefault || region != home && m.key(region) != "" {
				continue // it is not encrypted, or is encrypted with named keys
			}
			if err := m.suitsDefault(ctx, region, true, e); err != nil {
				return err
			}
		}
	}
	for _, region := range m.Distribution.Regions {
		if !slices.Contains(made, region) && m.isShared(region, false) && m.Distribution.Keys[region] == "" {
			if err := m.suitsDefault(ctx, region, false, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// suitsDefault is [Maker.suitsDefaults] for one region. made means that the build makes the
// image there without a named key; otherwise it is copied there later.
func (m *Maker) suitsDefault(ctx context.Context, region string, made bool, e encryption) error {
	why := cmp.Or(e.why, e.inherited)
	if why == "" {
		var err error
		if why, err = m.Session.EncryptsAll(ctx, region); why == "" {
			return err
		}
	}
	blame, remedy := any(&m.Name), "Name a customer managed KMS key for it in kms_keys of the distribute block"
	if made {
		if err := m.notPublic(why); err != nil {
			return err
		}
		if shared := m.sharedWith(); len(shared) > 0 {
			blame = shared[0]
		}
		remedy = "Set encrypt_boot and kms_key_id, and region_kms_key_ids for copies, to a customer managed KMS key"
	}
	key, err := m.Session.DefaultKey(ctx, region)
	if err != nil || !access.ManagedKey(key) {
		return err
	}
	return m.Src.Errorf(blame, undecryptable,
		"The image is to be shared, and in %s it would be encrypted with %s, which only its own account may use. %s, and no key is named for %s. %s, or give the account another default key.", region, key, why, region, remedy)
}

// encryption describes, as far as is known in advance, how the image in the build region
// will be encrypted.
type encryption struct {
	why       string // why it is encrypted; empty: the options do not require encryption
	byDefault bool   // at least one volume is encrypted with the account's default key
	inherited string // why it is encrypted with the source's key, which is not known
	plain     bool   // a volume is encrypted only if the account encrypts everything
}

func (m *Maker) encryption(source types.Image, volumes []*device.Mapping) (e encryption) {
	if m.encrypts() {
		return encryption{why: "encrypt_boot is set", byDefault: m.key(m.Session.Region) == ""}
	}
	was := map[string]bool{} // encrypted, by device of the source
	for _, b := range source.BlockDeviceMappings {
		if b.Ebs != nil {
			was[aws.ToString(b.DeviceName)] = aws.ToBool(b.Ebs.Encrypted)
		}
	}
	inherit := func(name string, encrypted bool) {
		if !encrypted {
			e.plain = true
		} else if e.inherited == "" {
			e.inherited = fmt.Sprintf("%s of the source image %s is encrypted", name, aws.ToString(source.ImageId))
		}
	}
	for _, v := range volumes {
		encrypted, why := was[v.DeviceName], v.DeviceName+" is encrypted"
		delete(was, v.DeviceName)
		on := v.Encrypted != nil && *v.Encrypted
		switch {
		case v.NoDevice || v.VirtualName != "":
		case v.KMSKeyID != "" || on && v.SnapshotID != "": // the snapshot may have a different key
			e.why = cmp.Or(e.why, why)
		case v.SnapshotID != "":
		case on && !encrypted:
			e.why, e.byDefault = why, true
		default:
			inherit(v.DeviceName, encrypted)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		inherit(name, was[name])
	}
	return e
}
