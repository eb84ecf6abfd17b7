package cloud_test

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestNewestFirst checks that lists begin with the newest, with the instances of a launch
// in launch order, and that the pages of a list stay consistent while the list grows or
// its instances are started.
func TestNewestFirst(t *testing.T) {
	var ahead atomic.Int64
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bases, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ExecutableUsers: []string{"all"}})
	if err != nil {
		t.Fatal(err)
	}
	var instances, images, snapshots, volumes []string // in the order of their creation
	launch := func() {
		out, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: bases.Images[0].ImageId, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(2), MaxCount: aws.Int32(2)})
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range slices.Backward(out.Instances) {
			instances = append(instances, *i.InstanceId)
		}
	}
	for n := range 3 {
		launch()
		if err := ec2.NewInstanceRunningWaiter(client).Wait(ctx, &ec2.DescribeInstancesInput{InstanceIds: instances}, time.Minute, func(o *ec2.InstanceRunningWaiterOptions) { o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond }); err != nil {
			t.Fatal(err)
		}
		v, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1), TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeVolume, Tags: []types.Tag{{Key: aws.String("own"), Value: aws.String("")}}}}})
		if err != nil {
			t.Fatal(err)
		}
		volumes = append(volumes, *v.VolumeId)
		i, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &instances[0], Name: aws.String(fmt.Sprintf("image %d", n)), NoReboot: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		images = append(images, *i.ImageId)
		img := awaitImage(t, client, *i.ImageId)
		snapshots = append(snapshots, *img.BlockDeviceMappings[0].Ebs.SnapshotId)
		ahead.Add(int64(time.Second)) // so that creation times, which are in seconds, differ
	}
	same := func(what string, got, made []string) {
		t.Helper()
		made = slices.Clone(made)
		slices.Reverse(made)
		if !slices.Equal(got, made) {
			t.Errorf("%s: %v, want %v", what, got, made)
		}
	}
	var got []string
	if out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}}); err != nil {
		t.Error(err)
	} else {
		for _, i := range out.Images {
			got = append(got, *i.ImageId)
		}
		same("images", got, images)
	}
	if out, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}}); err != nil {
		t.Error(err)
	} else {
		got = nil
		for _, s := range out.Snapshots {
			got = append(got, *s.SnapshotId)
		}
		same("snapshots", got, snapshots)
	}
	if out, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{{Name: aws.String("tag-key"), Values: []string{"own"}}}}); err != nil {
		t.Error(err)
	} else {
		got = nil
		for _, v := range out.Volumes {
			got = append(got, *v.VolumeId)
		}
		same("volumes", got, volumes)
	}

	var listed, status []string
	there := slices.Clone(instances)
	pages := ec2.NewDescribeInstancesPaginator(client, &ec2.DescribeInstancesInput{MaxResults: aws.Int32(5)})
	for pages.HasMorePages() {
		out, err := pages.NextPage(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				listed = append(listed, *i.InstanceId)
			}
		}
		launch()
		// Starting the oldest instance again must not make it a new one, which this list
		// would miss.
		oldest := []string{instances[0]}
		if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: oldest}); err != nil {
			t.Fatal(err)
		}
		if err := ec2.NewInstanceStoppedWaiter(client).Wait(ctx, &ec2.DescribeInstancesInput{InstanceIds: oldest}, time.Minute, func(o *ec2.InstanceStoppedWaiterOptions) { o.MinDelay, o.MaxDelay = time.Millisecond, time.Millisecond }); err != nil {
			t.Fatal(err)
		}
		if _, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: oldest}); err != nil {
			t.Fatal(err)
		}
	}
	same("instances", listed, there)
	out, err := client.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: there, IncludeAllInstances: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range out.InstanceStatuses {
		status = append(status, *i.InstanceId)
	}
	if len(status) != len(there) || !slices.Contains(there[4:], status[0]) {
		t.Errorf("states of instances: %v, want the newest of %v first", status, there)
	}
}
