package cloud_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// marks formats the watermarks of an image for comparison.
func marks(img types.Image) string {
	var keys []string
	for _, w := range img.ImageWatermarks {
		keys = append(keys, *w.WatermarkKey+" of "+*w.SourceImageId)
	}
	return strings.Join(keys, ", ")
}

// TestWatermarks checks that whatever is made from an image with watermarks has them too,
// in any account.
func TestWatermarks(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	mine, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	img := made(t, mine, "web")
	attach := func(client *ec2.Client, image, name string) error {
		_, err := client.AttachImageWatermark(ctx, &ec2.AttachImageWatermarkInput{ImageId: &image, WatermarkName: &name})
		return err
	}
	out, err := mine.AttachImageWatermark(ctx, &ec2.AttachImageWatermarkInput{ImageId: img.ImageId, WatermarkName: aws.String("bake web 7")})
	if err != nil || *out.WatermarkKey != "123456789012:bake web 7" {
		t.Fatalf("AttachImageWatermark = %+v, %v, want the key 123456789012:bake web 7", out, err)
	}
	public := made(t, mine, "public")
	if err := permit(t, mine, public.ImageId, types.LaunchPermission{Group: "all"}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"again":        {attach(mine, *img.ImageId, "bake web 7"), ""},
		"a short name": {attach(mine, *img.ImageId, "ab"), "InvalidParameterValue"},
		"not mine":     {attach(other, *img.ImageId, "bake web 8"), "AuthFailure"},
		"public":       {attach(mine, *public.ImageId, "bake web 7"), "OperationNotPermitted"},
		"made public":  {permit(t, mine, img.ImageId, types.LaunchPermission{Group: "all"}), "OperationNotPermitted"},
	} {
		if code(test.err) != test.want {
			t.Errorf("%s: %v, want %q", name, test.err, test.want)
		}
	}
	want := "123456789012:bake web 7 of " + *img.ImageId

	if err := permit(t, mine, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
		t.Fatal(err)
	}
	_, err = mine.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: img.BlockDeviceMappings[0].Ebs.SnapshotId, OperationType: "add", UserIds: []string{otherAccount}})
	if err != nil {
		t.Fatal(err)
	}
	copied, err := other.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("copy")})
	if err != nil {
		t.Fatal(err)
	}
	if got := marks(awaitImage(t, other, *copied.ImageId)); got != want {
		t.Errorf("the copy has %q", got)
	}
	id := run(t, other, ec2.RunInstancesInput{ImageId: copied.ImageId}).InstanceId
	if _, err := other.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: copied.ImageId}); err != nil {
		t.Fatal(err)
	}
	child, err := other.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: id, Name: aws.String("child"), NoReboot: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	if got := marks(awaitImage(t, other, *child.ImageId)); got != want {
		t.Errorf("the image of an instance of an image that was deregistered has %q", got)
	}
	found, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Filters: []types.Filter{filter("image-watermark.watermark-key", "123456789012:bake web*")}})
	if err != nil || len(found.Images) != 2 {
		t.Errorf("images with the watermark: %v, %v", found, err)
	}
	for i := range 5 {
		err := attach(other, *child.ImageId, fmt.Sprint("own ", i))
		if want := map[bool]string{true: "ResourceLimitExceeded"}[i == 4]; code(err) != want {
			t.Errorf("watermark %d: %v, want %q", i+2, err, want)
		}
	}
	detach := &ec2.DetachImageWatermarkInput{ImageId: img.ImageId, WatermarkKey: out.WatermarkKey}
	for _, want := range []string{"", "InvalidParameterValue"} {
		if _, err := mine.DetachImageWatermark(ctx, detach); code(err) != want {
			t.Errorf("detach: %v, want %q", err, want)
		}
	}
	if got := marks(awaitImage(t, mine, *img.ImageId)); got != "" {
		t.Errorf("detached: %q", got)
	}
	if got := marks(awaitImage(t, other, *child.ImageId)); !strings.HasPrefix(got, want) {
		t.Errorf("what was made of the image has %q", got)
	}
}

// TestAncestry checks that an image's ancestry goes back to its root, past deregistered
// images and after a restart, and that an instance's image is known.
func TestAncestry(t *testing.T) {
	dir := t.TempDir()
	var instance, copied string
	var chain []string
	t.Run("make", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		client, west, ctx := s.EC2("default", "us-east-1"), s.EC2("default", "us-west-2"), t.Context()
		img := made(t, client, "web")
		instance = *run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId
		out, err := west.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("copy")})
		if err != nil {
			t.Fatal(err)
		}
		copied = *out.ImageId
		awaitImage(t, west, copied)
		chain = []string{copied, *img.ImageId, source(t, client)}
		if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId}); err != nil {
			t.Fatal(err)
		}
		if _, err := client.GetImageAncestry(ctx, &ec2.GetImageAncestryInput{ImageId: img.ImageId}); code(err) != "InvalidAMIID.NotFound" {
			t.Errorf("the ancestry of an image that was deregistered: %v", err)
		}
	})
	t.Run("ask", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		client, west, ctx := s.EC2("default", "us-east-1"), s.EC2("default", "us-west-2"), t.Context()
		out, err := west.GetImageAncestry(ctx, &ec2.GetImageAncestryInput{ImageId: &copied})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range out.ImageAncestryEntries {
			got = append(got, *e.ImageId)
		}
		if fmt.Sprint(got) != fmt.Sprint(chain) {
			t.Errorf("the ancestry is %v, want %v", got, chain)
		}
		other := *run(t, client, ec2.RunInstancesInput{}).InstanceId
		meta, err := client.DescribeInstanceImageMetadata(ctx, &ec2.DescribeInstanceImageMetadataInput{InstanceIds: []string{instance, other}})
		if err != nil || len(meta.InstanceImageMetadata) != 2 {
			t.Fatalf("DescribeInstanceImageMetadata = %+v, %v, want two instances", meta, err)
		}
		for _, m := range meta.InstanceImageMetadata {
			name, state := "debian-12-amd64-20250316-2053", types.ImageStateAvailable
			if *m.InstanceId == instance {
				name, state = "web", types.ImageStateDeregistered
			}
			if i := m.ImageMetadata; *i.Name != name || i.State != state || i.CreationDate == nil || m.AvailabilityZone == nil {
				t.Errorf("%s: %+v", *m.InstanceId, i)
			}
		}
		stopped, err := client.DescribeInstanceImageMetadata(ctx, &ec2.DescribeInstanceImageMetadataInput{Filters: []types.Filter{filter("instance-state-name", "stopped"), filter("owner-id", "123456789012")}})
		if err != nil || len(stopped.InstanceImageMetadata) != 1 || *stopped.InstanceImageMetadata[0].InstanceId != instance {
			t.Errorf("the stopped instance: %v, %v", stopped, err)
		}
	})
}
