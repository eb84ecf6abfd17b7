package cloud_test

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/wire"
)

// has reports whether an answer has a value at path, as code for boto3 looks it up: a key
// that is missing in the answer is nil in the SDK's struct, and an error in boto3.
func has(t *testing.T, answer any, path string) bool {
	t.Helper()
	v := reflect.ValueOf(answer)
	for _, step := range strings.Split(path, ".") {
		v = reflect.Indirect(v)
		if i, err := strconv.Atoi(step); err == nil {
			if i >= v.Len() {
				t.Fatalf("there is no %s", path)
			}
			v = v.Index(i)
		} else {
			v = v.FieldByName(step)
		}
		if !v.IsValid() {
			t.Fatalf("%T cannot have %s", answer, path)
		}
		switch v.Kind() {
		case reflect.Pointer, reflect.Slice:
			if v.IsNil() {
				return false
			}
		case reflect.String: // an enumeration
			return v.String() != ""
		}
	}
	return true
}

// TestKeys checks which members AWS sends even if they are empty, and which it omits, for
// instances in every state and their resources.
func TestKeys(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	look := func(answer any, under, there, absent string) {
		t.Helper()
		for _, key := range strings.Fields(there) {
			if !has(t, answer, under+key) {
				t.Errorf("%T: no %s", answer, under+key)
			}
		}
		for _, key := range strings.Fields(absent) {
			if has(t, answer, under+key) {
				t.Errorf("%T: %s should be left out", answer, under+key)
			}
		}
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	instance := "AmiLaunchIndex Architecture BlockDeviceMappings ClientToken CpuOptions.CoreCount CpuOptions.ThreadsPerCore EbsOptimized EnaSupport " +
		"Hypervisor ImageId InstanceId InstanceType LaunchTime MaintenanceOptions.AutoRecovery MetadataOptions.HttpTokens Monitoring.State NetworkInterfaces " +
		"Placement.AvailabilityZone Placement.GroupName Placement.Tenancy PrivateDnsName ProductCodes PublicDnsName RootDeviceName RootDeviceType SecurityGroups State.Name " +
		"StateTransitionReason VirtualizationType "

	ami := source(t, client)
	launched, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: &ami, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
	must(err)
	look(launched, "", "Groups OwnerId ReservationId", "RequesterId")
	look(launched, "Instances.0.", instance+"StateReason.Code StateReason.Message NetworkInterfaces.0.Description NetworkInterfaces.0.Ipv6Addresses", "Tags KeyName Platform SpotInstanceRequestId IamInstanceProfile KernelId")
	id := *launched.Instances[0].InstanceId
	described := func() *ec2.DescribeInstancesOutput {
		t.Helper()
		out, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		must(err)
		return out
	}
	await(t, client, id, types.InstanceStateNameRunning)
	look(described(), "Reservations.0.", "Groups OwnerId Instances", "RequesterId")
	look(described(), "Reservations.0.Instances.0.", instance+"PublicIpAddress PrivateIpAddress SubnetId VpcId", "StateReason Tags KeyName BootMode")
	interfaces, err := client.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{})
	must(err)
	look(interfaces, "NetworkInterfaces.0.", "Description Ipv6Addresses TagSet Groups PrivateIpAddresses RequesterManaged", "RequesterId OutpostArn")

	_, err = client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}})
	must(err)
	await(t, client, id, types.InstanceStateNameStopped)
	look(described(), "Reservations.0.Instances.0.", instance+"StateReason.Code", "PublicIpAddress")
	if name := described().Reservations[0].Instances[0].PublicDnsName; name == nil || *name != "" {
		t.Errorf("the public name of a stopped instance is %v", name)
	}

	snapped, err := client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: described().Reservations[0].Instances[0].BlockDeviceMappings[0].Ebs.VolumeId})
	must(err)
	look(snapped, "", "Description Tags Progress OwnerId VolumeSize Encrypted", "KmsKeyId OwnerAlias")
	snapshots, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snapped.SnapshotId}})
	must(err)
	look(snapshots, "Snapshots.0.", "Description Progress OwnerId VolumeId StorageTier", "Tags KmsKeyId OwnerAlias StateMessage")
	made, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1)})
	must(err)
	look(made, "", "SnapshotId Tags Iops Encrypted", "KmsKeyId Throughput")
	volumes, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*made.VolumeId}})
	must(err)
	look(volumes, "Volumes.0.", "Attachments SnapshotId MultiAttachEnabled Size", "Tags KmsKeyId OutpostArn")
	_, err = client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*made.VolumeId}, Tags: []types.Tag{{Key: aws.String("empty"), Value: aws.String("")}}})
	must(err)
	volumes, err = client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{VolumeIds: []string{*made.VolumeId}})
	must(err)
	look(volumes, "Volumes.0.Tags.0.", "Key Value", "")
	tags, err := client.DescribeTags(ctx, &ec2.DescribeTagsInput{})
	must(err)
	look(tags, "Tags.0.", "Key ResourceId ResourceType Value", "")

	img, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("keys")})
	must(err)
	awaitImage(t, client, *img.ImageId)
	images, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*img.ImageId}})
	must(err)
	look(images, "Images.0.", "BlockDeviceMappings ImageLocation Public PlatformDetails UsageOperation EnaSupport SriovNetSupport",
		"Description DeprecationTime BootMode ImdsSupport TpmSupport Platform ProductCodes StateReason KernelId")
	groups, err := client.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	must(err)
	look(groups, "SecurityGroups.0.", "Description IpPermissions IpPermissionsEgress OwnerId VpcId", "Tags")
	look(groups, "SecurityGroups.0.IpPermissionsEgress.0.", "IpRanges Ipv6Ranges PrefixListIds UserIdGroupPairs", "FromPort ToPort")
	rules, err := client.DescribeSecurityGroupRules(ctx, &ec2.DescribeSecurityGroupRulesInput{})
	must(err)
	look(rules, "SecurityGroupRules.0.", "Tags IsEgress FromPort ToPort", "Description")
	_, err = client.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("key"), KeyType: types.KeyTypeEd25519})
	must(err)
	keys, err := client.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{})
	must(err)
	look(keys, "KeyPairs.0.", "Tags KeyFingerprint KeyType", "PublicKey")
	subnets, err := client.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
	must(err)
	look(subnets, "Subnets.0.", "Ipv6CidrBlockAssociationSet AvailableIpAddressCount", "Tags OutpostArn")
	zones, err := client.DescribeAvailabilityZones(ctx, &ec2.DescribeAvailabilityZonesInput{})
	must(err)
	look(zones, "AvailabilityZones.0.", "Messages ZoneName", "ParentZoneId")

	_, err = client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
	must(err)
	await(t, client, id, types.InstanceStateNameTerminated)
	look(described(), "Reservations.0.Instances.0.", instance+"StateReason.Code", "PublicIpAddress PrivateIpAddress SubnetId VpcId")
}

// TestListsAreThere checks that the list of a Describe action is in the answer even if it
// is empty.
func TestListsAreThere(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	m, err := wire.Load("ec2")
	if err != nil {
		t.Fatal(err)
	}
	untagged := map[string]string{ // actions whose resources have no tags, with one of their filters
		"DescribeAvailabilityZones": "zone-name", "DescribeFastLaunchImages": "state", "DescribeIamInstanceProfileAssociations": "instance-id",
		"DescribeImportImageTasks": "task-state", "DescribeRegions": "region-name", "DescribeFastSnapshotRestores": "state", "DescribeLockedSnapshots": "lock-state",
		"DescribeVolumesModifications": "volume-id", "DescribeInstanceCreditSpecifications": "instance-id", "DescribePrefixLists": "prefix-list-name",
		"DescribeSpotPriceHistory": "instance-type", "DescribeStoreImageTasks": "bucket", "DescribeExportImageTasks": "task-state",
	}
	about := []string{"DescribeLaunchTemplateVersions", "DescribeImageReferences", "DescribeImageUsageReportEntries"} // need the name of a resource
	for action, op := range m.Operations {
		if !strings.HasPrefix(action, "Describe") || strings.HasSuffix(action, "Attribute") || slices.Contains(about, action) {
			continue
		}
		tree := map[string]any{}
		if m.Shapes[op.Input].Members["Filters"].Shape != "" {
			tree["Filters"] = []any{map[string]any{"Name": cmp.Or(untagged[action], "tag:no such"), "Values": []any{"x"}}}
		}
		status, answer := send(t, s.URL, s.Credentials()[0], "ec2", m, action, tree)
		for name, member := range m.Shapes[op.Output].Members {
			if m.Shapes[member.Shape].List != nil && !strings.Contains(answer, "<"+member.Location+">") {
				t.Errorf("%s: status %d, no %s in %s", action, status, name, answer)
			}
		}
	}
}
