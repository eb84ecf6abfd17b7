package localcloud

import (
	"fmt"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// A machine is found by its key, the last one first; what is too old, or too much, goes,
// and its snapshots with it.
func TestCache(t *testing.T) {
	const region = "us-east-1"
	s := cloudtest.Start(t, cloud.Options{})
	credentials := s.Credentials()[0]
	client := s.EC2("default", region)
	now := time.Now()
	c := Cache{
		Cloud: &Cloud{Cloud: amazon.Cloud{Name: Name, Endpoint: s.URL, AccessKey: credentials.AccessKeyID, SecretKey: credentials.SecretAccessKey, Region: region}},
		Now:   func() time.Time { return now },
	}
	sources, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{})
	if err != nil || len(sources.Images) == 0 {
		t.Fatal(err)
	}
	ran, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{
		ImageId: sources.Images[0].ImageId, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
	})
	if err != nil {
		t.Fatal(err)
	}
	machine := *ran.Instances[0].InstanceId
	waiter := ec2.NewInstanceRunningWaiter(client, func(o *ec2.InstanceRunningWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	})
	if err := waiter.Wait(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{machine}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		for range 2 { // the second time it is there
			if err := c.Keep(t.Context(), region, machine, fmt.Sprintf("key-%d", i), fmt.Sprintf("after %d", i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(want int) {
		t.Helper()
		all, err := c.List(t.Context(), region)
		if err != nil || len(all) != want {
			t.Errorf("%d machines, not %d: %v, %v", len(all), want, all, err)
		}
		snapshots, err := client.DescribeSnapshots(t.Context(), &ec2.DescribeSnapshotsInput{Filters: []types.Filter{{Name: aws.String("tag-key"), Values: []string{amazon.CacheTag}}}})
		if err != nil || len(snapshots.Snapshots) != want {
			t.Errorf("%d snapshots, not %d: %v", len(snapshots.Snapshots), want, err)
		}
	}
	count(3)
	for _, want := range []struct {
		keys []string
		at   int
	}{{[]string{"key-0", "key-1", "key-9"}, 1}, {[]string{"key-2"}, 0}, {[]string{"key-9"}, -1}} {
		image, at, err := c.Find(t.Context(), region, want.keys)
		if err != nil || at != want.at || (image == "") != (at < 0) {
			t.Errorf("%v: %q at %d, not %d: %v", want.keys, image, at, want.at, err)
		}
	}
	images, err := c.Cloud.Images(t.Context(), region)
	if err != nil || len(images) != len(sources.Images) {
		t.Errorf("the cache is among the images: %v, %v", images, err)
	}
	if n, err := c.Trim(t.Context(), region, 2); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	count(2)
	now = now.Add(CacheAge + time.Minute)
	if n, err := c.Trim(t.Context(), region, 2); n != 2 || err != nil {
		t.Errorf("deleted %d of those that are too old, %v", n, err)
	}
	count(0)
	if err := c.Keep(t.Context(), region, "i-0123456789abcdef0", "key", ""); err == nil {
		t.Error("a machine that is not there is kept")
	}
}
