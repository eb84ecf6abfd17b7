// Package device describes the volumes of instances and images.
package device

import (
	_ "embed"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/names"
	"bake/config/schema"
)

// Source is the Go source that documents [Mapping], for [schema.Docs].
//
//go:embed device.go
var Source string

// Mapping says what is behind a device name.
type Mapping struct {
	// Device name, such as /dev/xvda.
	DeviceName string `hcl:"device_name"`

	// Delete the volume with its instance. With `false` the volume of the build
	// is left to you; not set, it is false for instances of the image, and the
	// volume of the build is deleted all the same.
	DeleteOnTermination bool `hcl:"delete_on_termination,optional"`

	// Encrypt the volume. Not set: as its snapshot is.
	Encrypted *bool `hcl:"encrypted,optional"`

	// KMS key for an encrypted volume.
	KMSKeyID string `hcl:"kms_key_id,optional"`

	// I/O operations per second, for io1, io2 and gp3.
	IOPS int `hcl:"iops,optional"`

	// Throughput in MiB/s, for gp3.
	Throughput int `hcl:"throughput,optional"`

	// Leave the device out that the image would have.
	NoDevice bool `hcl:"no_device,optional"`

	// Snapshot to start from.
	SnapshotID string `hcl:"snapshot_id,optional"`

	// Instance store volume, such as ephemeral0.
	VirtualName string `hcl:"virtual_name,optional"`

	// Volume type, such as gp3.
	VolumeType string `hcl:"volume_type,optional"`

	// Size in GiB.
	VolumeSize int `hcl:"volume_size,optional"`
}

// ratios are the most IOPS per GiB of a volume type.
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
		c.Errorf(&m.Throughput, "Throughput without gp3", "Only gp3 volumes have a throughput that can be chosen.")
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

// EC2 returns mappings as the API takes them.
func EC2(mappings []*Mapping) []types.BlockDeviceMapping {
	var out []types.BlockDeviceMapping
	for _, m := range mappings {
		out = append(out, m.EC2())
	}
	return out
}

// EC2 returns the mapping as the API takes it.
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
		SnapshotId:          text(m.SnapshotID),
		KmsKeyId:            text(m.KMSKeyID),
		VolumeSize:          number(m.VolumeSize),
		Throughput:          number(m.Throughput),
	}
	switch m.VolumeType {
	case "io1", "io2", "gp3":
		ebs.Iops = number(m.IOPS)
	}
	return ebs
}

func text(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func number(n int) *int32 {
	if n == 0 {
		return nil
	}
	return new(int32(n)) //nolint:gosec // validated
}
