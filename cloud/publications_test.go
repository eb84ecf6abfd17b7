package cloud_test

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestPublished checks that a publisher's image is found by the filters that templates
// use, and that its instances have the publisher's devices and metadata options.
func TestPublished(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	const parameter = "/aws/service/canonical/ubuntu/server/22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"
	old := cloud.Publication{
		Owner: "099720109477", OwnerAlias: "amazon", Name: "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20230516", Architecture: "x86_64",
		Created: time.Date(2023, 5, 16, 0, 0, 0, 0, time.UTC), Deprecated: time.Date(2025, 5, 16, 0, 0, 0, 0, time.UTC),
		Base: "ubuntu-22.04", User: "ubuntu", RootDevice: "/dev/sda1", VolumeType: "gp2", Ephemeral: 2,
	}
	fresh := old
	fresh.Name, fresh.Created, fresh.Deprecated = "ubuntu/images/hvm-ssd/ubuntu-jammy-22.04-amd64-server-20251212", old.Created.AddDate(2, 7, 0), time.Time{}
	fresh.BootMode, fresh.ImdsSupport, fresh.Parameters = "uefi-preferred", "v2.0", []string{parameter}
	s.Images.Publish(old)
	s.Images.Publish(fresh)

	find := func(owner string, deprecated bool, filters ...string) []types.Image {
		t.Helper()
		in := &ec2.DescribeImagesInput{Owners: []string{owner}, IncludeDeprecated: &deprecated}
		for i := 0; i < len(filters); i += 2 {
			in.Filters = append(in.Filters, types.Filter{Name: &filters[i], Values: []string{filters[i+1]}})
		}
		out, err := client.DescribeImages(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		return out.Images
	}
	const name = "ubuntu/images/*ubuntu-jammy-22.04-amd64-server-*"
	images := find("amazon", false, "name", name, "root-device-type", "ebs", "virtualization-type", "hvm", "block-device-mapping.volume-type", "gp2")
	if len(images) != 1 {
		t.Fatalf("images of the alias: %+v", images)
	}
	img := images[0]
	if *img.Name != fresh.Name || *img.ImageLocation != "amazon/"+fresh.Name || *img.RootDeviceName != "/dev/sda1" || img.BootMode != "uefi-preferred" ||
		len(img.BlockDeviceMappings) != 3 || *img.BlockDeviceMappings[2].VirtualName != "ephemeral1" {
		t.Errorf("image %+v", img)
	}
	for _, test := range []struct {
		owner      string
		deprecated bool
		filters    []string
		want       int
	}{
		{"099720109477", false, []string{"name", name}, 1},
		{"099720109477", true, []string{"name", name}, 2},
		{"amazon", false, []string{"name", name, "block-device-mapping.volume-type", "gp3"}, 0},
		{"amazon", false, []string{"imds-support", "v2.0"}, 1},
		{"amazon", false, []string{"public-ssm-parameter-name", parameter}, 1},
		{"136693071363", false, []string{"name", name}, 0},
	} {
		if got := find(test.owner, test.deprecated, test.filters...); len(got) != test.want {
			t.Errorf("%+v: %d images", test, len(got))
		}
	}
	if got := get(t, ssm.NewFromConfig(s.Config("default", "us-east-1")), parameter, false); got != *img.ImageId {
		t.Errorf("the parameter is %s, want %s", got, *img.ImageId)
	}

	// The image's root device is the root; a volume replaces an instance store.
	row := run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId, BlockDeviceMappings: []types.BlockDeviceMapping{
		{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(20)}},
		{DeviceName: aws.String("/dev/sdb"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(5)}},
	}})
	if row.MetadataOptions.HttpTokens != types.HttpTokensStateRequired || *row.MetadataOptions.HttpPutResponseHopLimit != 2 {
		t.Errorf("metadata options %+v", row.MetadataOptions)
	}
	volumes, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("attachment.instance-id"), Values: []string{*row.InstanceId}}}})
	if err != nil {
		t.Fatal(err)
	}
	sizes := map[string]int32{}
	for _, v := range volumes.Volumes {
		sizes[*v.Attachments[0].Device] = *v.Size
	}
	if len(sizes) != 2 || sizes["/dev/sda1"] != 20 || sizes["/dev/sdb"] != 5 {
		t.Errorf("volumes %v", sizes)
	}
}
