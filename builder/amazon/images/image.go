package images

import (
	"cmp"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/internal/imagetag"
)

// Image is an image, as -json writes it.
type Image struct {
	ID          string            `json:"id"`
	Name        string            `json:"name"`
	Region      string            `json:"region"`
	Owner       string            `json:"owner"`
	OwnerAlias  string            `json:"owner_alias,omitempty"` // such as amazon
	State       string            `json:"state"`                 // as EC2 has it: available, disabled, pending, failed, …
	Reason      string            `json:"state_reason,omitempty"`
	Created     time.Time         `json:"created"`
	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags"`

	Public       bool       `json:"public"`
	Deprecated   *time.Time `json:"deprecated,omitempty"`    // when the deprecation begins; may be in the future
	LastLaunched *time.Time `json:"last_launched,omitempty"` // known to the owner only, and up to a day late
	Protection   string     `json:"deregistration_protection,omitempty"`
	Allowed      *bool      `json:"allowed,omitempty"` // by the account's Allowed AMIs; absent if that is off
	ProductCodes []string   `json:"product_codes,omitempty"`
	Watermarks   []string   `json:"watermarks,omitempty"`

	SourceImage    string `json:"source_image,omitempty"` // that it is a copy of or, with SourceInstance, was built on
	SourceRegion   string `json:"source_region,omitempty"`
	SourceInstance string `json:"source_instance,omitempty"`

	Architecture string   `json:"architecture"`
	Platform     string   `json:"platform"`
	BootMode     string   `json:"boot_mode,omitempty"`
	IMDS         string   `json:"imds_support,omitempty"`
	TPM          string   `json:"tpm_support,omitempty"`
	ENA          bool     `json:"ena_support"`
	RootDevice   string   `json:"root_device"`
	Devices      []Device `json:"block_devices"`
}

// Device is a block device of an image.
type Device struct {
	Name       string `json:"name"`
	Snapshot   string `json:"snapshot,omitempty"`
	Virtual    string `json:"virtual_name,omitempty"` // of an instance store
	Size       int32  `json:"size_gib,omitempty"`
	Type       string `json:"volume_type,omitempty"`
	IOPS       int32  `json:"iops,omitempty"`
	Throughput int32  `json:"throughput,omitempty"`
	Encrypted  bool   `json:"encrypted"`
	Deleted    bool   `json:"delete_on_termination"`
}

// Snapshots returns the IDs of the image's snapshots.
func (i Image) Snapshots() (ids []string) {
	for _, d := range i.Devices {
		if d.Snapshot != "" {
			ids = append(ids, d.Snapshot)
		}
	}
	return ids
}

// size returns the size of all volumes together, in GiB.
func (i Image) size() (gib int32) {
	for _, d := range i.Devices {
		gib += d.Size
	}
	return gib
}

// encrypted reports whether a snapshot of the image is encrypted.
func (i Image) encrypted() bool {
	return slices.ContainsFunc(i.Devices, func(d Device) bool { return d.Encrypted })
}

// protected reports whether the image cannot be deregistered.
func (i Image) protected() bool { return i.Protection != "" && i.Protection != "disabled" }

// isCopy reports whether the image was made by copying another one.
func (i Image) isCopy() bool { return i.SourceImage != "" && i.SourceInstance == "" }

// status returns the state for people: EC2 does not count a deprecation as one.
func (i Image) status(now time.Time) string {
	if i.State == string(types.ImageStateAvailable) && i.Deprecated != nil && !now.Before(*i.Deprecated) {
		return "deprecated"
	}
	return i.State
}

// made returns when the image was made.
func (i Image) made() imagetag.Made { return imagetag.Made{Created: i.Created, Tags: i.Tags, ID: i.ID} }

// imageOf converts EC2's description of an image in a region.
func imageOf(region string, i types.Image) Image {
	out := Image{
		ID: aws.ToString(i.ImageId), Name: aws.ToString(i.Name), Region: region, Owner: aws.ToString(i.OwnerId), OwnerAlias: aws.ToString(i.ImageOwnerAlias),
		State: string(i.State), Reason: access.StateReason(i.StateReason), Description: aws.ToString(i.Description), Tags: map[string]string{},
		Public: aws.ToBool(i.Public), Deprecated: moment(i.DeprecationTime), LastLaunched: moment(i.LastLaunchedTime),
		Protection: aws.ToString(i.DeregistrationProtection), Allowed: i.ImageAllowed,
		SourceImage: aws.ToString(i.SourceImageId), SourceRegion: aws.ToString(i.SourceImageRegion), SourceInstance: aws.ToString(i.SourceInstanceId),
		Architecture: string(i.Architecture), Platform: cmp.Or(aws.ToString(i.PlatformDetails), string(i.Platform)),
		BootMode: string(i.BootMode), IMDS: string(i.ImdsSupport), TPM: string(i.TpmSupport), ENA: aws.ToBool(i.EnaSupport),
		RootDevice: aws.ToString(i.RootDeviceName), Devices: []Device{},
	}
	if created := moment(i.CreationDate); created != nil {
		out.Created = *created
	}
	for _, t := range i.Tags {
		out.Tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	for _, c := range i.ProductCodes {
		out.ProductCodes = append(out.ProductCodes, aws.ToString(c.ProductCodeId))
	}
	for _, w := range i.ImageWatermarks {
		out.Watermarks = append(out.Watermarks, aws.ToString(w.WatermarkKey))
	}
	for _, b := range i.BlockDeviceMappings {
		d := Device{Name: aws.ToString(b.DeviceName), Virtual: aws.ToString(b.VirtualName)}
		if e := b.Ebs; e != nil {
			d.Snapshot, d.Size, d.Type = aws.ToString(e.SnapshotId), aws.ToInt32(e.VolumeSize), string(e.VolumeType)
			d.IOPS, d.Throughput = aws.ToInt32(e.Iops), aws.ToInt32(e.Throughput)
			d.Encrypted, d.Deleted = aws.ToBool(e.Encrypted), aws.ToBool(e.DeleteOnTermination)
		}
		out.Devices = append(out.Devices, d)
	}
	return out
}

// moment parses a time in the format of EC2; nil if there is none.
func moment(text *string) *time.Time {
	at, err := time.Parse(time.RFC3339, aws.ToString(text))
	if err != nil {
		return nil
	}
	at = at.UTC()
	return &at
}
