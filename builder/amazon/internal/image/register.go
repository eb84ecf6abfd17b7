package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/wait"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/internal/lazyregexp"
	"bake/step"
)

// Firmware are the options of an image that is registered, and so inherits nothing from
// an instance.
type Firmware struct {
	// Architecture of the image, such as x86_64 or arm64. It must match the software on the
	// volumes.
	Architecture Architecture `hcl:"ami_architecture,optional"`

	// Boot mode of the image: `legacy-bios`, `uefi` or `uefi-preferred`. The wrong mode
	// makes an image that does not boot.
	BootMode BootMode `hcl:"boot_mode,optional"`

	// UEFI variable store in base64, as `GetInstanceUefiData` returns it. For Secure Boot
	// with keys of your own.
	UEFIData string `hcl:"uefi_data,optional"`

	// Version of the Trusted Platform Module for instances of the image: `v2.0`. It needs
	// `boot_mode = "uefi"`.
	TPMSupport TPM `hcl:"tpm_support,optional"`
}

// FirmwareDefaults returns the options of a template that sets none.
func FirmwareDefaults() Firmware { return Firmware{Architecture: "x86_64"} }

// Validate reports what is wrong with the options. Structs that embed them call it.
func (f *Firmware) Validate(c *schema.Checker) {
	arm := strings.HasPrefix(string(f.Architecture), "arm64")
	switch {
	case f.UEFIData == "":
	case f.BootMode == "legacy-bios":
		c.Errorf(&f.UEFIData, "No UEFI", "uefi_data needs a boot_mode with UEFI, not legacy-bios.")
	case f.BootMode == "" && !arm && c.Known(&f.BootMode):
		c.Errorf(&f.UEFIData, "No UEFI", "uefi_data needs boot_mode = \"uefi\" or \"uefi-preferred\".")
	}
	if f.TPMSupport != "" && f.BootMode == "legacy-bios" {
		c.Errorf(&f.TPMSupport, "No UEFI", "tpm_support needs a boot_mode with UEFI, not legacy-bios.")
	}
}

// Architecture is the processor architecture of an image.
type Architecture string

// Choices implements [schema.Choices].
func (Architecture) Choices() []string {
	return []string{"arm64", "arm64_mac", "i386", "x86_64", "x86_64_mac"}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *Architecture) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// BootMode is the firmware with which an instance boots.
type BootMode string

// Choices implements [schema.Choices].
func (BootMode) Choices() []string { return []string{"legacy-bios", "uefi", "uefi-preferred"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *BootMode) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// TPM is a version of the Trusted Platform Module.
type TPM string

// Choices implements [schema.Choices].
func (TPM) Choices() []string { return []string{"v2.0"} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (v *TPM) UnmarshalText(b []byte) error { return schema.ParseChoice(v, b, v.Choices()) }

// Request returns a request for [Maker.Register] that the caller completes.
func (m *Maker) Request(f Firmware) *ec2.RegisterImageInput {
	in := &ec2.RegisterImageInput{
		Architecture: types.ArchitectureValues(f.Architecture), BootMode: types.BootModeValues(f.BootMode), TpmSupport: types.TpmSupportValues(f.TPMSupport),
		UefiData: access.Optional(f.UEFIData), VirtualizationType: access.Optional(m.VirtualizationType),
	}
	if m.ENASupport != nil && *m.ENASupport {
		in.EnaSupport = m.ENASupport
	}
	if m.SRIOVSupport {
		in.SriovNetSupport = new("simple")
	}
	return in
}

// Register makes an image from snapshots, or from a bundle in S3, in the build region,
// under the name in the options or, for a temporary image, a generated one. parts are
// the keys of the snapshots in the scope.
func (m *Maker) Register(ctx context.Context, in *ec2.RegisterImageInput, labels Labels, parts []string) (Made, error) {
	if err := m.registered(ctx); err != nil {
		return Made{}, err
	}
	name, err := m.firstName(ctx)
	if err != nil {
		return Made{}, err
	}
	in.Name, in.Description = &name, access.Optional(labels.Description)
	t := &tagging{image: m.Owner.Tags(merge(m.runTags(labels), labels.Tags))}
	region := m.Session.Region
	key := fmt.Sprintf("%s@%s %s", name, region, m.Owner.ID)
	made, err := m.acquire(ctx, "register the image", "registered image", region, name, key, t, func(ctx context.Context) (string, error) {
		return m.making(ctx, t, t.specs(), func(specs []types.TagSpecification) (string, error) {
			in.TagSpecifications = specs
			out, err := access.Finish(ctx, m.Session.EC2(m.Session.Region).RegisterImage, in)
			if err != nil {
				return m.lost(ctx, name, err)
			}
			return aws.ToString(out.ImageId), nil
		})
	})
	made.Parts = parts
	return made, err
}

// registered finds the result of a registration during which an earlier process of the run
// died. Deleting that image would delete the snapshots that it was made from.
func (m *Maker) registered(ctx context.Context) error {
	owned, err := m.Scope.Ledger.Owned()
	if err != nil {
		return err
	}
	region := m.Session.Region
	for _, r := range owned {
		name := r.With[ownership.WithName]
		if r.ID != "" || !m.owns(r, region, name) {
			continue
		}
		image, err := m.listed(ctx, region, name)
		switch {
		case err != nil:
			return err
		case image != nil:
			err = m.Scope.Ledger.Created(r.Key, aws.ToString(image.ImageId))
		default: // it is registered again
			err = m.Scope.Ledger.Gone(r.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// listed looks for an image that may have been made a moment ago, as long as EC2 may not
// list it yet.
func (m *Maker) listed(ctx context.Context, region, name string) (*types.Image, error) {
	start := time.Now()
	for pause := wait.First; ; pause *= 2 {
		image, err := destroy.FindImage(ctx, m.Session.EC2(region), name, m.Owner.ID)
		if err != nil || image != nil || time.Since(start) >= m.Session.Pace.Visible {
			return image, err
		}
		if err := delay.For(ctx, min(pause, m.Session.Pace.Visible)); err != nil {
			return nil, err
		}
	}
}

// CheckExists returns an error if an image that an earlier process of the run has made no
// longer exists: a finished one, or the first one if a region has no image yet.
func (m *Maker) CheckExists(ctx context.Context, first Made) error {
	regions := m.copyTo()
	if !m.temporary() {
		regions = append([]string{first.Region}, regions...)
	}
	var needed []Made
	for _, region := range regions {
		done, ok := step.Recall[Made](m.Scope, "image in "+region)
		if !ok {
			done = first
		}
		if !slices.ContainsFunc(needed, func(n Made) bool { return n.ID == done.ID }) {
			needed = append(needed, done)
		}
	}
	for _, n := range needed {
		out, err := access.Call(ctx, m.Session.EC2(n.Region).DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{n.ID}})
		if access.NotFound(err) || err == nil && len(out.Images) == 0 {
			return fmt.Errorf("the build cannot go on: its image %s in %s was deregistered; bake sweep -run %s deletes what is left", n.ID, n.Region, m.Scope.Run.ID)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// SnapshotTags returns the tags of the snapshots that an image is registered from.
func SnapshotTags(labels Labels) map[string]string { return merge(labels.Tags, labels.Snapshot) }

// FromSnapshot returns the mapping of a device of an image that is made from a
// snapshot. It is encrypted if the snapshot is.
func FromSnapshot(d *device.Mapping, snapshot string) types.BlockDeviceMapping {
	m := d.EC2()
	if m.Ebs != nil {
		m.Ebs.SnapshotId, m.Ebs.Encrypted, m.Ebs.KmsKeyId = &snapshot, nil, nil
	}
	return m
}

var unixDevice = lazyregexp.New(`^(/dev/)?[a-z][a-z0-9/]*$`)

// ValidDevice reports an invalid device name.
func ValidDevice(c *schema.Checker, name *string) {
	if !unixDevice.Get().MatchString(*name) {
		c.Errorf(name, "Not a device name", "%q is not a device name such as /dev/xvdf.", *name)
	}
}
