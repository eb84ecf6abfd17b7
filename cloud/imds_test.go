package cloud_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestInheritance checks that an image's metadata options, boot mode and devices apply to
// its instances, and are inherited by images made of them and by copies.
func TestInheritance(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, away := s.EC2("default", "us-east-1"), s.EC2("default", "eu-west-1")
	ctx := t.Context()
	first := run(t, client, ec2.RunInstancesInput{})
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: first.InstanceId, Name: aws.String("plain")})
	if err != nil {
		t.Fatal(err)
	}
	plain := awaitImage(t, client, *made.ImageId)
	if first.MetadataOptions.HttpTokens != types.HttpTokensStateOptional || plain.ImdsSupport != "" || plain.TpmSupport != "" {
		t.Errorf("without support: tokens %s, image %s %s", first.MetadataOptions.HttpTokens, plain.ImdsSupport, plain.TpmSupport)
	}
	registered, err := client.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("strict"), RootDeviceName: aws.String("/dev/xvda"),
		ImdsSupport: types.ImdsSupportValuesV20, TpmSupport: types.TpmSupportValuesV20, BootMode: types.BootModeValuesUefi, EnaSupport: aws.Bool(true),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: plain.BlockDeviceMappings[0].Ebs.SnapshotId}}}})
	if err != nil {
		t.Fatal(err)
	}
	strict := awaitImage(t, client, *registered.ImageId)
	if ebs := strict.BlockDeviceMappings[0].Ebs; ebs.Encrypted == nil || *ebs.Encrypted || ebs.VolumeSize == nil || ebs.VolumeType == "" {
		t.Errorf("the registered image's device: %+v", ebs)
	}
	if strict.SriovNetSupport != nil {
		t.Errorf("the registered image has the SR-IOV support %s", *strict.SriovNetSupport)
	}

	same := func(what string, img types.Image) {
		t.Helper()
		if img.ImdsSupport != types.ImdsSupportValuesV20 || img.TpmSupport != types.TpmSupportValuesV20 || img.BootMode != types.BootModeValuesUefi ||
			!aws.ToBool(img.EnaSupport) || img.SriovNetSupport != nil {
			t.Errorf("%s: IMDS %s, TPM %s, boot %s, ENA %v, SR-IOV %v", what, img.ImdsSupport, img.TpmSupport, img.BootMode, img.EnaSupport, img.SriovNetSupport)
		}
	}
	second := run(t, client, ec2.RunInstancesInput{ImageId: strict.ImageId, MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpEndpoint: "enabled"}})
	if o := second.MetadataOptions; o.HttpTokens != types.HttpTokensStateRequired || *o.HttpPutResponseHopLimit != 2 {
		t.Errorf("an instance of the strict image: tokens %s, hops %d", o.HttpTokens, *o.HttpPutResponseHopLimit)
	}
	if aws.ToString(second.TpmSupport) != "v2.0" || second.CurrentInstanceBootMode != types.InstanceBootModeValuesUefi {
		t.Errorf("an instance of the strict image: TPM %v, boot %s", second.TpmSupport, second.CurrentInstanceBootMode)
	}
	third := run(t, client, ec2.RunInstancesInput{ImageId: strict.ImageId, MetadataOptions: &types.InstanceMetadataOptionsRequest{HttpTokens: "optional"}})
	if third.MetadataOptions.HttpTokens != types.HttpTokensStateOptional {
		t.Errorf("what the launch says is not heeded: %s", third.MetadataOptions.HttpTokens)
	}
	made, err = client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: third.InstanceId, Name: aws.String("child")})
	if err != nil {
		t.Fatal(err)
	}
	same("an image made of an instance", awaitImage(t, client, *made.ImageId))
	copied, err := away.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: made.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("copy")})
	if err != nil {
		t.Fatal(err)
	}
	same("a copy", awaitImage(t, away, *copied.ImageId))
}
