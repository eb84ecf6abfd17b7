package cloud_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

func filter(name string, values ...string) types.Filter {
	return types.Filter{Name: &name, Values: values}
}

// TestErrors checks EC2's error codes over HTTP.
func TestErrors(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	ami := source(t, client)
	running := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	one := aws.Int32(1)
	group, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web")})
	if err != nil {
		t.Fatal(err)
	}
	ssh := []types.IpPermission{{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(22), ToPort: aws.Int32(22), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}}}
	if _, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: ssh}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("key"), KeyType: types.KeyTypeEd25519}); err != nil {
		t.Fatal(err)
	}
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("taken"), NoReboot: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, client, *made.ImageId)
	launch := func(change func(*ec2.RunInstancesInput)) func() error {
		return func() error {
			in := &ec2.RunInstancesInput{ImageId: &ami, InstanceType: types.InstanceTypeT3Micro, MinCount: one, MaxCount: one}
			change(in)
			_, err := client.RunInstances(ctx, in)
			return err
		}
	}
	for _, test := range []struct {
		name, code string
		call       func() error
	}{
		{"no such image", "InvalidAMIID.NotFound", launch(func(in *ec2.RunInstancesInput) { in.ImageId = aws.String("ami-12345678") })},
		{"no image id", "InvalidAMIID.Malformed", launch(func(in *ec2.RunInstancesInput) { in.ImageId = aws.String("debian") })},
		{"no such key", "InvalidKeyPair.NotFound", launch(func(in *ec2.RunInstancesInput) { in.KeyName = aws.String("nokey") })},
		{"no such group", "InvalidGroup.NotFound", launch(func(in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{"sg-12345678"} })},
		{"no group id", "InvalidGroupId.Malformed", launch(func(in *ec2.RunInstancesInput) { in.SecurityGroupIds = []string{"web"} })},
		{"no such subnet", "InvalidSubnetID.NotFound", launch(func(in *ec2.RunInstancesInput) { in.SubnetId = aws.String("subnet-12345678") })},
		{"min over max", "InvalidParameterCombination", launch(func(in *ec2.RunInstancesInput) { in.MinCount = aws.Int32(2) })},
		{"no count", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) { in.MinCount = aws.Int32(0) })},
		{"unknown type", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) { in.InstanceType = "t99.huge" })},
		{"other architecture", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) { in.InstanceType = "t4g.micro" })},
		{"long user data", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) { in.UserData = aws.String(strings.Repeat("AAAA", 6000)) })},
		{"user data not base64", "InvalidUserData.Malformed", launch(func(in *ec2.RunInstancesInput) { in.UserData = aws.String("#!") })},
		{"root too small", "InvalidBlockDeviceMapping", launch(func(in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(4)}}}
		})},
		{"io1 without iops", "MissingParameter", launch(func(in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10), VolumeType: "io1"}}}
		})},
		{"device twice", "InvalidBlockDeviceMapping", launch(func(in *ec2.RunInstancesInput) {
			m := types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10)}}
			in.BlockDeviceMappings = []types.BlockDeviceMapping{m, m}
		})},
		{"reserved tag", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: "instance", Tags: []types.Tag{{Key: aws.String("aws:x"), Value: aws.String("")}}}}
		})},
		{"tags of another resource", "InvalidParameterValue", launch(func(in *ec2.RunInstancesInput) {
			in.TagSpecifications = []types.TagSpecification{{ResourceType: "image", Tags: []types.Tag{{Key: aws.String("x"), Value: aws.String("")}}}}
		})},
		{"interface and subnet", "InvalidParameterCombination", launch(func(in *ec2.RunInstancesInput) {
			in.NetworkInterfaces = []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0)}}
			in.SubnetId = aws.String("subnet-12345678")
		})},
		{"dry run", "DryRunOperation", launch(func(in *ec2.RunInstancesInput) { in.DryRun = aws.Bool(true) })},
		{"dry run of what cannot be", "InvalidKeyPair.NotFound", launch(func(in *ec2.RunInstancesInput) { in.DryRun, in.KeyName = aws.Bool(true), aws.String("nokey") })},
		{"no such instance", "InvalidInstanceID.NotFound", func() error {
			_, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{"i-12345678"}})
			return err
		}},
		{"no instance id", "InvalidInstanceID.Malformed", func() error {
			_, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{"i-xyz"}})
			return err
		}},
		{"start while it runs is no error", "", func() error {
			_, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{running}})
			return err
		}},
		{"pages of given ids", "InvalidParameterCombination", func() error {
			_, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{running}, MaxResults: aws.Int32(5)})
			return err
		}},
		{"unknown filter", "InvalidParameterValue", func() error {
			_, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{filter("colour", "red")}})
			return err
		}},
		{"dry run of a stop", "DryRunOperation", func() error {
			_, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{running}, DryRun: aws.Bool(true)})
			return err
		}},
		{"image name taken", "InvalidAMIName.Duplicate", func() error {
			_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("taken")})
			return err
		}},
		{"image name malformed", "InvalidAMIName.Malformed", func() error {
			_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("a*b")})
			return err
		}},
		{"copy from nowhere", "InvalidParameterValue", func() error {
			_, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("eu-nowhere-1"), Name: aws.String("copy")})
			return err
		}},
		{"copy from another region", "InvalidAMIID.NotFound", func() error {
			_, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("eu-west-1"), Name: aws.String("copy")})
			return err
		}},
		{"share with nobody", "InvalidAMIAttributeItemValue", func() error {
			_, err := client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: img.ImageId,
				LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String("123")}}}})
			return err
		}},
		{"share the image of another", "AuthFailure", func() error {
			_, err := client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &ami,
				LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: aws.String("987654321098")}}}})
			return err
		}},
		{"deregister the image of another", "AuthFailure", func() error {
			_, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &ami})
			return err
		}},
		{"snapshot in use", "InvalidSnapshot.InUse", func() error {
			_, err := client.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: img.BlockDeviceMappings[0].Ebs.SnapshotId})
			return err
		}},
		{"no such snapshot", "InvalidSnapshot.NotFound", func() error {
			_, err := client.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: aws.String("snap-12345678")})
			return err
		}},
		{"no such volume", "InvalidVolume.NotFound", func() error {
			_, err := client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: aws.String("vol-12345678")})
			return err
		}},
		{"volume in use", "VolumeInUse", func() error {
			out, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
			if err == nil {
				_, err = client.DeleteVolume(ctx, &ec2.DeleteVolumeInput{VolumeId: out.Volumes[0].VolumeId})
			}
			return err
		}},
		{"key taken", "InvalidKeyPair.Duplicate", func() error {
			_, err := client.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("key")})
			return err
		}},
		{"no public key", "InvalidKey.Format", func() error {
			_, err := client.ImportKeyPair(ctx, &ec2.ImportKeyPairInput{KeyName: aws.String("new"), PublicKeyMaterial: []byte("ssh-rsa nonsense")})
			return err
		}},
		{"no such key to describe", "InvalidKeyPair.NotFound", func() error {
			_, err := client.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{KeyNames: []string{"nokey"}})
			return err
		}},
		{"deleting no key is no error", "", func() error {
			_, err := client.DeleteKeyPair(ctx, &ec2.DeleteKeyPairInput{KeyName: aws.String("nokey")})
			return err
		}},
		{"group taken", "InvalidGroup.Duplicate", func() error {
			_, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("x")})
			return err
		}},
		{"no such vpc", "InvalidVpcID.NotFound", func() error {
			_, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("new"), Description: aws.String("x"), VpcId: aws.String("vpc-12345678")})
			return err
		}},
		{"rule taken", "InvalidPermission.Duplicate", func() error {
			_, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpPermissions: ssh})
			return err
		}},
		{"no such rule", "InvalidPermission.NotFound", func() error {
			_, err := client.RevokeSecurityGroupEgress(ctx, &ec2.RevokeSecurityGroupEgressInput{GroupId: group.GroupId, IpPermissions: ssh})
			return err
		}},
		{"bad range", "InvalidParameterValue", func() error {
			_, err := client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: group.GroupId, IpProtocol: aws.String("tcp"),
				FromPort: aws.Int32(80), ToPort: aws.Int32(80), CidrIp: aws.String("10.0.0.0/99")})
			return err
		}},
		{"default group in use", "DependencyViolation", func() error {
			out, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{GroupNames: []string{"default"}})
			if err != nil {
				return err
			}
			_, err = client.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: out.SecurityGroups[0].GroupId,
				IpPermissions: []types.IpPermission{{IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: group.GroupId}}}}})
			if err != nil {
				return err
			}
			_, err = client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId})
			return err
		}},
		{"default group", "CannotDelete", func() error {
			_, err := client.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupName: aws.String("default")})
			return err
		}},
		{"tags of nothing", "InvalidInstanceID.NotFound", func() error {
			_, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{"i-12345678"}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
			return err
		}},
		{"protected instance", "OperationNotPermitted", func() error {
			_, err := client.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &running, DisableApiTermination: &types.AttributeBooleanValue{Value: aws.Bool(true)}})
			if err != nil {
				return err
			}
			_, err = client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{running}})
			return err
		}},
		{"a tag without a key to delete", "MissingParameter", func() error {
			_, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*group.GroupId}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
			if err == nil {
				_, err = client.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{*group.GroupId}, Tags: []types.Tag{{Value: aws.String("x")}}})
			}
			return err
		}},
		{"tags of no id", "InvalidID", func() error {
			_, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{"web"}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
			return err
		}},
		{"tags of half an id", "InvalidID", func() error {
			_, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{"i-xyz"}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("b")}}})
			return err
		}},
		{"the name of the default group", "InvalidGroup.Reserved", func() error {
			_, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("default"), Description: aws.String("x")})
			return err
		}},
		{"unknown types are not described", "InvalidInstanceType", func() error {
			_, err := client.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t9.nano"}})
			return err
		}},
		{"types of the first generation are described", "", func() error {
			_, err := client.DescribeInstanceTypes(ctx, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{"t1.micro", "m1.small"}})
			return err
		}},
		{"a key without encryption at launch", "InvalidParameterDependency", launch(func(in *ec2.RunInstancesInput) {
			in.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10), KmsKeyId: aws.String("alias/k")}}}
		})},
		{"a key without encryption of an image's device", "InvalidParameterDependency", func() error {
			_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("keyed"), BlockDeviceMappings: []types.BlockDeviceMapping{
				{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10), KmsKeyId: aws.String("alias/k"), Encrypted: aws.Bool(false)}}}})
			return err
		}},
		{"a key without encryption of a volume", "InvalidParameterDependency", func() error {
			_, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), KmsKeyId: aws.String("alias/k")})
			return err
		}},
		{"a key without encryption of a copy", "InvalidParameterDependency", func() error {
			_, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("copy"), KmsKeyId: aws.String("alias/k")})
			return err
		}},
		{"a tag specification without tags", "InvalidParameterValue", func() error {
			_, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1),
				TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume}}})
			return err
		}},
		{"a gp2 volume for several instances", "InvalidParameterCombination", func() error {
			_, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), MultiAttachEnabled: aws.Bool(true), VolumeType: "gp2"})
			return err
		}},
		{"an image's device twice", "InvalidBlockDeviceMapping", func() error {
			m := types.BlockDeviceMapping{DeviceName: aws.String("/dev/sdf"), Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10)}}
			_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &running, Name: aws.String("twice"), BlockDeviceMappings: []types.BlockDeviceMapping{m, m}})
			return err
		}},
		{"a registered device without a name", "MissingParameter", func() error {
			_, err := client.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("nameless"), RootDeviceName: aws.String("/dev/xvda"), BlockDeviceMappings: []types.BlockDeviceMapping{
				{DeviceName: aws.String("/dev/xvda"), Ebs: img.BlockDeviceMappings[0].Ebs}, {Ebs: &types.EbsBlockDevice{VolumeSize: aws.Int32(10)}}}})
			return err
		}},
		{"change the type of a running one", "IncorrectInstanceState", func() error {
			_, err := client.ModifyInstanceAttribute(ctx, &ec2.ModifyInstanceAttributeInput{InstanceId: &running, InstanceType: &types.AttributeValue{Value: aws.String("t3.large")}})
			return err
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.call(); code(err) != test.code {
				t.Errorf("%v; want the code %q", err, test.code)
			}
		})
	}
}

func TestCredentials(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	good := s.Credentials()[0]
	if len(good.AccessKeyID) != 20 || good.AccessKeyID != "AKIABAKE123456789012" {
		t.Errorf("access key %q", good.AccessKeyID)
	}
	for _, test := range []struct{ key, secret, ec2, sts string }{
		{good.AccessKeyID, good.SecretAccessKey, "", ""},
		{"AKIAUNKNOWN000000000", "x", "AuthFailure", "InvalidClientTokenId"},
		{good.AccessKeyID, "guess", "SignatureDoesNotMatch", "SignatureDoesNotMatch"},
	} {
		provider := credentials.NewStaticCredentialsProvider(test.key, test.secret, "")
		compute := ec2.New(ec2.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}, Credentials: provider})
		if _, err := compute.DescribeRegions(t.Context(), &ec2.DescribeRegionsInput{}); code(err) != test.ec2 {
			t.Errorf("ec2 with %s: %v, want %q", test.key, err, test.ec2)
		}
		tokens := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}, Credentials: provider})
		out, err := tokens.GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
		if code(err) != test.sts {
			t.Errorf("sts with %s: %v, want %q", test.key, err, test.sts)
		}
		if err == nil && *out.Account != good.Account {
			t.Errorf("account %s", *out.Account)
		}
	}
}

// TestAccounts checks that an account's resources are invisible to others until they are
// shared.
func TestAccounts(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	mine, other := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1")
	ctx := t.Context()
	id := *run(t, mine, ec2.RunInstancesInput{}).InstanceId
	made, err := mine.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("mine")})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, mine, *made.ImageId)
	snapshot := img.BlockDeviceMappings[0].Ebs.SnapshotId

	if _, err := other.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}}); code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("another's instance: %v", err)
	}
	if _, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*img.ImageId}}); code(err) != "AuthFailure" {
		t.Errorf("another's image: %v", err)
	}
	launch := func() error {
		_, err := other.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: img.ImageId, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		return err
	}
	if err := launch(); code(err) != "AuthFailure" {
		t.Errorf("launch of another's image: %v", err)
	}
	share := func(add bool, p types.LaunchPermission) {
		t.Helper()
		m := &types.LaunchPermissionModifications{Add: []types.LaunchPermission{p}}
		if !add {
			m = &types.LaunchPermissionModifications{Remove: []types.LaunchPermission{p}}
		}
		if _, err := mine.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: img.ImageId, LaunchPermission: m}); err != nil {
			t.Fatal(err)
		}
	}
	share(true, types.LaunchPermission{UserId: aws.String("987654321098")})
	if err := launch(); err != nil {
		t.Errorf("launch of a shared image: %v", err)
	}
	out, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{ExecutableUsers: []string{"self"}})
	if err != nil || len(out.Images) != 1 {
		t.Errorf("images shared with me: %v, %v", out, err)
	}
	copyIt := func(name string) error {
		_, err := other.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: &name})
		return err
	}
	if err := copyIt("stolen"); code(err) != "InvalidRequest" {
		t.Errorf("copy without the snapshot's permission: %v", err)
	}
	_, err = mine.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: snapshot,
		CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: []types.CreateVolumePermission{{UserId: aws.String("987654321098")}}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := copyIt("given"); err != nil {
		t.Errorf("copy with the snapshot's permission: %v", err)
	}
	share(false, types.LaunchPermission{UserId: aws.String("987654321098")})
	if err := launch(); code(err) != "AuthFailure" {
		t.Errorf("launch after the permission was taken back: %v", err)
	}
	share(true, types.LaunchPermission{Group: types.PermissionGroupAll})
	if err := launch(); err != nil {
		t.Errorf("launch of a public image: %v", err)
	}
	public, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"123456789012"}, Filters: []types.Filter{filter("is-public", "true")}})
	if err != nil || len(public.Images) != 1 {
		t.Errorf("public images: %v, %v", public, err)
	}
	attribute, err := mine.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: img.ImageId, Attribute: types.ImageAttributeNameLaunchPermission})
	if err != nil || len(attribute.LaunchPermissions) != 1 || attribute.LaunchPermissions[0].Group != types.PermissionGroupAll {
		t.Errorf("launch permissions: %v, %v", attribute, err)
	}
}

// TestPaging checks the errors for invalid pages.
func TestPaging(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx, five := t.Context(), aws.Int32(5)
	instance := run(t, client, ec2.RunInstancesInput{MinCount: aws.Int32(6), MaxCount: aws.Int32(6)})
	first, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{MaxResults: five})
	if err != nil || first.NextToken == nil {
		t.Fatalf("DescribeInstances = %+v, %v, want a next token", first, err)
	}
	ids := []string{*instance.InstanceId}
	for name, call := range map[string]func(token *string) error{
		"instances": func(token *string) error {
			_, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{NextToken: token})
			return err
		},
		"images": func(token *string) error {
			_, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{NextToken: token})
			return err
		},
		"volumes": func(token *string) error {
			_, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{NextToken: token})
			return err
		},
		"import tasks": func(token *string) error {
			_, err := client.DescribeImportImageTasks(ctx, &ec2.DescribeImportImageTasksInput{NextToken: token})
			return err
		},
		"tags": func(token *string) error {
			_, err := client.DescribeTags(ctx, &ec2.DescribeTagsInput{NextToken: token})
			return err
		},
	} {
		for _, token := range []string{"bogus", "YWJj", "!", *first.NextToken + "x"} {
			if err := call(&token); code(err) != "InvalidNextToken" {
				t.Errorf("%s after the token %q: %v", name, token, err)
			}
		}
		if err := call(first.NextToken); (code(err) == "InvalidNextToken") != (name != "instances") {
			t.Errorf("%s after a token of instances: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"status": func() error {
			_, err := client.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: ids, MaxResults: five})
			return err
		}(),
		"interfaces": func() error {
			_, err := client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{*instance.NetworkInterfaces[0].NetworkInterfaceId}, MaxResults: five})
			return err
		}(),
		"volumes": func() error {
			_, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*instance.BlockDeviceMappings[0].Ebs.VolumeId}, MaxResults: five})
			return err
		}(),
	} {
		if code(err) != "InvalidParameterCombination" {
			t.Errorf("pages of %s with ids: %v", name, err)
		}
	}

	// The instances of a launch are in launch order.
	all, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{})
	if err != nil {
		t.Fatal(err)
	}
	for i, in := range all.Reservations[0].Instances {
		if *in.AmiLaunchIndex != int32(i) {
			t.Errorf("instance %d has the launch index %d", i, *in.AmiLaunchIndex)
		}
	}

	// An id given twice counts once.
	if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: ids}); err != nil {
		t.Fatal(err)
	}
	await(t, client, ids[0], types.InstanceStateNameStopped)
	started, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{ids[0], ids[0]}})
	if err != nil || len(started.StartingInstances) != 1 {
		t.Errorf("started %v, %v", started, err)
	}
	_, err = client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{"ami-11111111", "ami-22222222"}})
	if err == nil || !strings.Contains(err.Error(), "The image ids '[ami-11111111, ami-22222222]' do not exist") {
		t.Errorf("unknown images: %v", err)
	}
}

// TestCopy checks that a copy in another region has snapshots of its own, has the tags if
// requested, and boots the same layers.
func TestCopy(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	home, away := s.EC2("default", "us-east-1"), s.EC2("default", "eu-west-1")
	ctx := t.Context()
	id := *run(t, home, ec2.RunInstancesInput{}).InstanceId
	if err := writeDisk(s, id, "file"); err != nil {
		t.Fatal(err)
	}
	made, err := home.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("web"), NoReboot: aws.Bool(true),
		TagSpecifications: []types.TagSpecification{{ResourceType: "image", Tags: []types.Tag{{Key: aws.String("Team"), Value: aws.String("images")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, home, *made.ImageId)
	in := &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("web"), CopyImageTags: aws.Bool(true),
		Encrypted: aws.Bool(true), ClientToken: aws.String("once")}
	first, err := away.CopyImage(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := away.CopyImage(ctx, in); err != nil || *again.ImageId != *first.ImageId {
		t.Errorf("the same token again: %v, %v", again, err)
	}
	in.Name = aws.String("other")
	if _, err := away.CopyImage(ctx, in); code(err) != "IdempotentParameterMismatch" {
		t.Errorf("the same token for another copy: %v", err)
	}
	copied := awaitImage(t, away, *first.ImageId)
	ebs := copied.BlockDeviceMappings[0].Ebs
	if *ebs.SnapshotId == *img.BlockDeviceMappings[0].Ebs.SnapshotId || !*ebs.Encrypted || tagValue(copied.Tags, "Team") != "images" {
		t.Errorf("copy = %+v, %+v", copied, ebs)
	}
	clone := run(t, away, ec2.RunInstancesInput{ImageId: first.ImageId})
	original := run(t, home, ec2.RunInstancesInput{ImageId: img.ImageId})
	a, b := s.Driver.Machine(*clone.InstanceId).Spec().Layers, s.Driver.Machine(*original.InstanceId).Spec().Layers
	if len(a) != 2 || strings.Join(a, " ") != strings.Join(b, " ") {
		t.Errorf("layers of the copy %v, of the original %v", a, b)
	}

	// Deregistering keeps the snapshot, which can then be deleted.
	if _, err := away.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: first.ImageId}); err != nil {
		t.Fatal(err)
	}
	left, err := away.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil || len(left.Snapshots) != 1 || left.Snapshots[0].State != types.SnapshotStateCompleted || *left.Snapshots[0].Progress != "100%" {
		t.Fatalf("snapshots after deregistering: %v, %v", left, err)
	}
	registered, err := away.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("again"), RootDeviceName: aws.String("/dev/xvda"),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: left.Snapshots[0].SnapshotId}}}})
	if err != nil {
		t.Fatal(err)
	}
	again := run(t, away, ec2.RunInstancesInput{ImageId: registered.ImageId})
	if got := s.Driver.Machine(*again.InstanceId).Spec(); len(got.Layers) != 2 || got.User != "admin" {
		t.Errorf("an instance of the registered image: layers %v, user %s", got.Layers, got.User)
	}
	if _, err := away.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: registered.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	if left, err := away.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}}); err != nil || len(left.Snapshots) != 0 {
		t.Errorf("snapshots left: %v, %v", left, err)
	}
}

func tagValue(tags []types.Tag, key string) string {
	for _, t := range tags {
		if *t.Key == key {
			return *t.Value
		}
	}
	return ""
}

// TestPages reads DescribeInstances and others in pages, through the SDK's paginators.
func TestPages(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ami := source(t, client)
	_, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: &ami, InstanceType: "t3.micro", MinCount: aws.Int32(13), MaxCount: aws.Int32(13)})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	addresses := map[string]bool{}
	pages := 0
	for p := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(context.WithoutCancel(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Reservations {
			for _, in := range r.Instances {
				seen[*in.InstanceId] = true
				addresses[*in.PublicIpAddress] = true
				addresses[*in.PrivateIpAddress] = true
			}
		}
	}
	if pages != 3 || len(seen) != 13 || len(addresses) != 26 {
		t.Errorf("%d pages with %d instances, %d addresses; want 3 with 13, 26", pages, len(seen), len(addresses))
	}
	types := 0
	for p := ec2.NewDescribeInstanceTypesPaginator(client, &ec2.DescribeInstanceTypesInput{MaxResults: aws.Int32(100)}); p.HasMorePages(); {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		types += len(out.InstanceTypes)
	}
	if types < 150 {
		t.Errorf("%d instance types", types)
	}
}

// TestThreads: the number of threads per core is that of a type's processor.
func TestThreads(t *testing.T) {
	client := cloudtest.Start(t, cloud.Options{}).EC2("default", "us-east-1")
	for name, want := range map[types.InstanceType]string{"m5.xlarge": "2 2 [1 2]", "m6a.xlarge": "2 2 [1 2]", "m7a.xlarge": "4 1 [1]", "m7g.xlarge": "4 1 [1]",
		"c7a.medium": "1 1 [1]", "t2.xlarge": "4 1 [1]", "t3.micro": "1 2 [1 2]"} {
		out, err := client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{name}})
		if err != nil {
			t.Fatal(err)
		}
		v := out.InstanceTypes[0].VCpuInfo
		if got := fmt.Sprint(*v.DefaultCores, *v.DefaultThreadsPerCore, v.ValidThreadsPerCore); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestTypeFilters: documented filters of instance types are answered, with what is true here;
// those whose answers are not known are refused.
func TestTypeFilters(t *testing.T) {
	client := cloudtest.Start(t, cloud.Options{}).EC2("default", "us-east-1")
	for _, test := range []struct {
		name, value, want string
	}{
		{"vcpu-info.default-cores", "8", "m5.4xlarge"}, {"vcpu-info.default-threads-per-core", "2", "m5.4xlarge"},
		{"network-info.maximum-network-cards", "1", "m5.4xlarge"}, {"network-info.efa-supported", "false", "m5.4xlarge"},
		{"network-info.ipv6-addresses-per-interface", "0", "m5.4xlarge"}, {"network-info.encryption-in-transit-supported", "true", ""},
		{"network-info.efa-info.maximum-efa-interfaces", "*", ""}, {"instance-storage-info.total-size-in-gb", "*", ""},
		{"ebs-info.ebs-optimized-info.maximum-iops", "*", "InvalidParameterValue"}, {"vcpu-info.valid-cores", "*", "InvalidParameterValue"},
		{"vcpu-info.valid-threads-per-core", "1", "m5.4xlarge"}, {"vcpu-info.valid-threads-per-core", "2", "m5.4xlarge"},
	} {
		out, err := client.DescribeInstanceTypes(t.Context(), &ec2.DescribeInstanceTypesInput{
			InstanceTypes: []types.InstanceType{"m5.4xlarge", "t2.micro"}, Filters: []types.Filter{filter(test.name, test.value), filter("instance-type", "m5.*")},
		})
		found := code(err)
		if err == nil && len(out.InstanceTypes) > 0 {
			found = string(out.InstanceTypes[0].InstanceType)
		}
		if found != test.want {
			t.Errorf("%s = %s: %q, want %q", test.name, test.value, found, test.want)
		}
	}
}
