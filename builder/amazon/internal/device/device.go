// Package device describes the volumes of instances and images.
package device

import (
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Mapping says what is behind a device name.
type Mapping struct {
	// Device name, such as /dev/xvda. On Nitro instances the operating system shows another
	// name, such as /dev/nvme1n1.
	DeviceName string `hcl:"device_name"`

	// Delete the volume with its instance. If set to `false`, the volume of the build
	// instance is kept, and charged, after the build. Not set: the build's own volume is
	// always deleted; instances of the image keep theirs.
	DeleteOnTermination bool `hcl:"delete_on_termination,optional"`

	// Encrypt the volume. Not set: as in its snapshot, or the account's default. An
	// encrypted snapshot cannot become an unencrypted volume.
	Encrypted *bool `hcl:"encrypted,optional"`

	// KMS key for the encrypted volume: key ID, alias or ARN. Not set: the account's default
	// key for EBS, with which an image cannot be shared.
	KMSKeyID string `hcl:"kms_key_id,optional"`

	// Provisioned I/O operations per second, for io1, io2 and gp3 volumes. Required for io1
	// and io2.
	IOPS int `hcl:"iops,optional"`

	// Provisioned throughput in MiB/s, for gp3 volumes: 125 to 1000.
	Throughput int `hcl:"throughput,optional"`

	// Suppress the device of this name that the source image defines.
	NoDevice bool `hcl:"no_device,optional"`

	// ID of the snapshot to create the volume from. Not set: the snapshot in the source
	// image, or an empty volume.
	SnapshotID string `hcl:"snapshot_id,optional"`

	// Name of an instance store volume, such as ephemeral0. Its content is lost when the
	// instance stops, and is not part of the image.
	VirtualName string `hcl:"virtual_name,optional"`

	// Volume type: gp2, gp3, io1, io2, st1, sc1 or standard. Not set: the type in the source
	// image, or EC2's default.
	VolumeType string `hcl:"volume_type,optional"`

	// Size in GiB. It cannot be smaller than the snapshot. Required for an empty volume.
	VolumeSize int `hcl:"volume_size,optional"`
}

// ratios are the maximum IOPS per GiB, by volume type.
var ratios = map[string]int{"io1": 50, "io2": 500}

// Validate implements [schema.Validator].
func (m *Mapping) Validate(c *schema.Checker) {
	if m.DeviceName == "" {
		c.Errorf(&m.DeviceName, "No device name", "device_name cannot be empty.")
	}
	if m.KMSKeyID != "" {
		names.KMSKey(c, &m.KMSKeyID, m.KMSKeyID, "")
		if m.Encrypted != nil && !*m.Encrypted {
			c.Errorf(&m.KMSKeyID, "Key for a volume without encryption", "Set encrypted = true, or leave kms_key_id out.")
		}
	}
	m.validatePerformance(c)
}

func (m *Mapping) validatePerformance(c *schema.Checker) {
	if ratio, ok := ratios[m.VolumeType]; ok && m.VolumeSize > 0 {
		if m.IOPS > ratio*m.VolumeSize {
			c.Errorf(&m.IOPS, "Too many IOPS", "%s volumes have at most %d IOPS per GiB: %d for %d GiB.", m.VolumeType, ratio, ratio*m.VolumeSize, m.VolumeSize)
		}
		if m.IOPS < 100 || m.IOPS > 64000 {
			c.Errorf(&m.IOPS, "Invalid IOPS", "%s volumes have 100 to 64000 IOPS, not %d.", m.VolumeType, m.IOPS)
		}
	}
	if m.VolumeType == "gp3" {
		if m.IOPS != 0 && (m.IOPS < 3000 || m.IOPS > 16000) {
			c.Errorf(&m.IOPS, "Invalid IOPS", "gp3 volumes have 3000 to 16000 IOPS, not %d.", m.IOPS)
		}
		if m.Throughput != 0 && (m.Throughput < 125 || m.Throughput > 1000) {
			c.Errorf(&m.Throughput, "Invalid throughput", "gp3 volumes have a throughput of 125 to 1000 MiB/s, not %d.", m.Throughput)
		}
	} else if m.Throughput != 0 && c.Known(&m.VolumeType) {
		c.Errorf(&m.Throughput, "Throughput without gp3", "Throughput can be set only for gp3 volumes.")
	}
	for _, n := range []*int{&m.VolumeSize, &m.IOPS, &m.Throughput} {
		if *n < 0 {
			c.Errorf(n, "Negative number", "%s cannot be negative.", c.Name(n))
		}
	}
}

// Validate reports what is wrong with mappings taken together.
func Validate(c *schema.Checker, mappings []*Mapping) {
	seen := map[string]bool{}
	for _, m := range mappings {
		if seen[m.DeviceName] && c.Known(&m.DeviceName) {
			c.Errorf(&m.DeviceName, "Duplicate device", "There is another mapping for %s.", m.DeviceName)
		}
		seen[m.DeviceName] = true
	}
}

// EC2 returns mappings in the form of the API.
func EC2(mappings []*Mapping) []types.BlockDeviceMapping {
	var out []types.BlockDeviceMapping
	for _, m := range mappings {
		out = append(out, m.EC2())
	}
	return out
}

// EC2 returns the mapping in the form of the API.
func (m *Mapping) EC2() types.BlockDeviceMapping {
	bdm := types.BlockDeviceMapping{DeviceName: &m.DeviceName}
	switch {
	case m.NoDevice:
		bdm.NoDevice = new("")
	case m.VirtualName != "":
		bdm.VirtualName = &m.VirtualName
	default:
		bdm.Ebs = m.ebs()
	}
	return bdm
}

func (m *Mapping) ebs() *types.EbsBlockDevice {
	ebs := &types.EbsBlockDevice{
		DeleteOnTermination: &m.DeleteOnTermination,
		Encrypted:           m.Encrypted,
		VolumeType:          types.VolumeType(m.VolumeType),
		SnapshotId:          access.Optional(m.SnapshotID),
		KmsKeyId:            access.Optional(m.KMSKeyID),
		VolumeSize:          number(m.VolumeSize),
		Throughput:          number(m.Throughput),
	}
	switch m.VolumeType {
	case "io1", "io2", "gp3":
		ebs.Iops = number(m.IOPS)
	}
	return ebs
}

func number(n int) *int32 {
	if n == 0 {
		return nil
	}
	return new(int32(n)) // validated
}
