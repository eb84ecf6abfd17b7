package cloud_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestImageOptions sets the options of an image and reads them back.
func TestImageOptions(t *testing.T) {
	var ahead atomic.Int64
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	running := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("web"), NoReboot: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	id := made.ImageId
	awaitImage(t, client, *id)
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	org, ou := "arn:aws:organizations::123456789012:organization/o-abcdefghij", "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-cdefghij"
	deprecated := time.Now().UTC().AddDate(9, 0, 0).Truncate(time.Minute).Add(5 * time.Second)
	do(client.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: id, DeprecateAt: &deprecated}))
	do(client.EnableImageDeregistrationProtection(ctx, &ec2.EnableImageDeregistrationProtectionInput{ImageId: id, WithCooldown: aws.Bool(true)}))
	do(client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: id, ImdsSupport: &types.AttributeValue{Value: aws.String("v2.0")}}))
	do(client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: id, LaunchPermission: &types.LaunchPermissionModifications{
		Add: []types.LaunchPermission{{OrganizationArn: &org}, {OrganizationalUnitArn: &ou}},
	}}))

	out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*id}})
	do(out, err)
	img := out.Images[0]
	if got := aws.ToString(img.DeprecationTime); got != deprecated.Truncate(time.Minute).Format("2006-01-02T15:04:05.000Z") {
		t.Errorf("deprecated at %s", got)
	}
	if got := aws.ToString(img.DeregistrationProtection); got != "enabled-with-cooldown" || img.ImdsSupport != types.ImdsSupportValuesV20 {
		t.Errorf("protection %q, IMDS %q", got, img.ImdsSupport)
	}
	shared, err := client.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: id, Attribute: types.ImageAttributeNameLaunchPermission})
	do(shared, err)
	if p := shared.LaunchPermissions; len(p) != 2 || aws.ToString(p[0].OrganizationArn) != org || aws.ToString(p[1].OrganizationalUnitArn) != ou {
		t.Errorf("launch permissions %v", p)
	}
	_, err = client.EnableFastLaunch(ctx, &ec2.EnableFastLaunchInput{ImageId: id, MaxParallelLaunches: aws.Int32(5)})
	if code(err) != "InvalidParameterValue" {
		t.Errorf("fast launch with five at a time: %v", err)
	}
	_, err = client.EnableFastLaunch(ctx, &ec2.EnableFastLaunchInput{ImageId: id})
	if code(err) != "UnsupportedOperation" {
		t.Errorf("fast launch of Linux: %v", err)
	}
	if fast, err := client.DescribeFastLaunchImages(ctx, &ec2.DescribeFastLaunchImagesInput{}); err != nil || len(fast.FastLaunchImages) != 0 {
		t.Errorf("fast launch: %v, %v", fast, err)
	}
	_, err = client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: id})
	if code(err) != "OperationNotPermitted" {
		t.Errorf("deregistering a protected image: %v", err)
	}
	do(client.DisableImageDeregistrationProtection(ctx, &ec2.DisableImageDeregistrationProtectionInput{ImageId: id}))
	for hours, want := range []string{0: "disabled after ", 25: "disabled"} {
		if want == "" {
			continue
		}
		ahead.Store(int64(hours) * int64(time.Hour))
		out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*id}})
		do(out, err)
		if got := aws.ToString(out.Images[0].DeregistrationProtection); !strings.HasPrefix(got, want) || want == "disabled" && got != want {
			t.Errorf("after %d hours of cooldown the protection is %q", hours, got)
		}
		if hours == 0 {
			if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: id}); code(err) != "OperationNotPermitted" {
				t.Errorf("deregistering in the cooldown: %v", err)
			}
		}
	}
	do(client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: id}))
}

// TestPartitions checks that the regions of GovCloud and China are separate.
func TestPartitions(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	for here, domain := range map[string]string{"us-east-1": ".amazonaws.com", "us-gov-west-1": ".amazonaws.com", "cn-north-1": ".amazonaws.com.cn"} {
		client := s.EC2("default", here)
		out, err := client.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Regions {
			if strings.HasPrefix(*r.RegionName, "us-gov-") != strings.HasPrefix(here, "us-gov-") || strings.HasPrefix(*r.RegionName, "cn-") != strings.HasPrefix(here, "cn-") || !strings.HasSuffix(*r.Endpoint, domain) {
				t.Errorf("%s shows %s at %s", here, *r.RegionName, *r.Endpoint)
			}
		}
		ami := source(t, client)
		_, err = s.EC2("default", "eu-west-1").CopyImage(t.Context(), &ec2.CopyImageInput{Name: aws.String("copy-" + here), SourceImageId: &ami, SourceRegion: &here})
		if apart := here != "us-east-1"; apart != (code(err) == "InvalidParameterValue") || !apart && err != nil {
			t.Errorf("a copy from %s: %v", here, err)
		}
	}
}
