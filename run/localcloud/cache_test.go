package localcloud

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// A machine is found by its key, and the last key has precedence. Images that exceed the limits
// are deleted, with their snapshots.
func TestCache(t *testing.T) {
	const region = "us-east-1"
	s := cloudtest.Start(t, cloud.Options{})
	credentials := s.Credentials()[0]
	client := s.EC2("default", region)
	now := time.Now().UTC().Truncate(time.Second).Add(time.Second)
	c := &Cache{
		Cloud: &Cloud{Cloud: amazon.Cloud{Name: Name, Endpoint: s.URL, AccessKey: credentials.AccessKeyID, SecretKey: credentials.SecretAccessKey, Region: region}},
		Now:   func() time.Time { return now },
		Until: t.Context(),
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
	upper := filepath.Join(s.Driver.Specs()[0].Dir, "upper")
	for i := range 3 {
		if err := os.WriteFile(filepath.Join(upper, fmt.Sprint("file", i)), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time it exists
			if err := c.Keep(t.Context(), region, machine, fmt.Sprintf("key-%d", i), fmt.Sprintf("after %d", i)); err != nil {
				t.Fatal(err)
			}
			if err := c.Settle(t.Context()); err != nil {
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
	all, err := c.List(t.Context(), region)
	if err != nil || Bytes(all) != 6000 {
		t.Errorf("%d bytes: %+v, %v", Bytes(all), all, err)
	}
	images, err := c.Cloud.Images(t.Context(), region)
	if err != nil || len(images) != len(sources.Images) {
		t.Errorf("the cache is among the images: %v, %v", images, err)
	}
	if n, err := c.Trim(t.Context(), region, Bounds{Images: 2}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	count(2)
	now = now.Add(CacheAge + time.Minute)
	if n, err := c.Trim(t.Context(), region, Bounds{Images: 2, Age: CacheAge}); n != 2 || err != nil {
		t.Errorf("deleted %d of those that are too old, %v", n, err)
	}
	count(0)
	if err := c.Keep(t.Context(), region, "i-0123456789abcdef0", "key", ""); err == nil {
		t.Error("a machine that is not there is kept")
	}

	// Errors after Keep are reported once: by the next call for the machine, or at the end.
	full := errors.New("no room")
	s.Images.Cloning = func() error { return full }
	for range 2 {
		if err := c.Keep(t.Context(), region, machine, "key", ""); err != nil {
			t.Fatal(err)
		}
		c.making.Wait()
		if err := c.Keep(t.Context(), region, machine, "key", ""); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("the next is kept: %v", err)
		}
	}
	if err := c.Keep(t.Context(), region, machine, "key", ""); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no room", "<nil>"} {
		if err := c.Settle(t.Context()); !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("at the end: %v, not %s", err, want)
		}
	}
	count(0)
}

// If the cache exceeds its limit, the least recently used images are deleted. Images that a
// machine runs from, or is about to, stay, and shared layers are counted once.
func TestCacheLimit(t *testing.T) {
	const region = "us-east-1"
	s := cloudtest.Start(t, cloud.Options{})
	credentials := s.Credentials()[0]
	client := s.EC2("default", region)
	now := time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	c := &Cache{
		Cloud: &Cloud{Cloud: amazon.Cloud{Name: Name, Endpoint: s.URL, AccessKey: credentials.AccessKeyID, SecretKey: credentials.SecretAccessKey, Region: region}},
		Now:   func() time.Time { return now },
		Until: t.Context(),
	}
	launch := func(image string) (machine, upper string) {
		t.Helper()
		ran, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: &image, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		if err != nil {
			t.Fatal(err)
		}
		waiter := ec2.NewInstanceRunningWaiter(client, func(o *ec2.InstanceRunningWaiterOptions) {
			o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
		})
		if err := waiter.Wait(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{*ran.Instances[0].InstanceId}}, time.Minute); err != nil {
			t.Fatal(err)
		}
		specs := s.Driver.Specs()
		return *ran.Instances[0].InstanceId, filepath.Join(specs[len(specs)-1].Dir, "upper")
	}
	keep := func(machine, upper, key string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(upper, key), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Keep(t.Context(), region, machine, key, key); err != nil {
			t.Fatal(err)
		}
		if err := c.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	left := func(what string, bytes int64, want ...string) []Cached {
		t.Helper()
		all, err := c.List(t.Context(), region)
		var got []string
		for _, i := range all {
			got = append(got, i.About)
		}
		if err != nil || !slices.Equal(got, want) || Bytes(all) != bytes {
			t.Errorf("%s: left %v with %d bytes, not %v with %d: %v", what, got, Bytes(all), want, bytes, err)
		}
		return all
	}
	find := func(key string) string {
		t.Helper()
		id, at, err := c.Find(t.Context(), region, []string{key})
		if err != nil || at != 0 {
			t.Fatalf("Find of %s = %d, %v, want the first key", key, at, err)
		}
		now = now.Add(time.Second)
		return id
	}
	sources, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{})
	if err != nil || len(sources.Images) == 0 {
		t.Fatal(err)
	}
	first, upper := launch(*sources.Images[0].ImageId)
	keep(first, upper, "a") // 1000 bytes
	keep(first, upper, "b") // 2000
	if _, at, err := c.Find(t.Context(), region, []string{"none"}); at >= 0 || err != nil {
		t.Fatalf("Find of an unknown key = %d, %v, want none", at, err)
	}
	c.Limit = 1 << 30
	if err := c.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	find("b")
	from := find("a")
	second, upper := launch(from)
	keep(second, upper, "c") // 1000, and those of a, which are counted already
	now = now.Add(2 * starting)
	find("c")
	left("all", 4000, "c", "a", "b")
	c.Limit = 100
	for _, i := range []string{"b", ""} { // b first; then a machine runs from a, and c is about to be used
		if err := c.Shrink(t.Context()); err != nil {
			t.Fatal(err)
		}
		left("without "+i, 2000, "c", "a")
	}
	if n, err := c.Trim(t.Context(), region, Bounds{Age: starting}); n != 0 || err != nil {
		t.Errorf("in use, and deleted: %d, %v", n, err)
	}
	if n, err := c.Trim(t.Context(), region, Bounds{None: true}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	left("cleared", 1000, "a")
	if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{second}}); err != nil {
		t.Fatal(err)
	}
	waiter := ec2.NewInstanceTerminatedWaiter(client, func(o *ec2.InstanceTerminatedWaiterOptions) {
		o.MinDelay, o.MaxDelay = 10*time.Millisecond, 100*time.Millisecond
	})
	if err := waiter.Wait(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{second}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := c.Shrink(t.Context()); err != nil {
		t.Fatal(err)
	}
	left("at the end", 0)

	third, upper := launch(*sources.Images[0].ImageId)
	keep(third, upper, "d") // 1000 bytes, more than the limit
	left("after Settle, without Shrink", 0)
}

// Incomplete images do not displace others in the cache: a failed image is deleted, whoever made
// it; one in progress stays and counts as 0 bytes. Keep leaves the latter to the cloud at its
// time limit.
func TestCacheOfUnfinished(t *testing.T) {
	const region = "us-east-1"
	s := cloudtest.Start(t, cloud.Options{})
	credentials := s.Credentials()[0]
	client := s.EC2("default", region)
	until, end := context.WithCancel(t.Context())
	defer end()
	c := &Cache{
		Cloud: &Cloud{Cloud: amazon.Cloud{Name: Name, Endpoint: s.URL, AccessKey: credentials.AccessKeyID, SecretKey: credentials.SecretAccessKey, Region: region}},
		Now:   func() time.Time { return time.Now().Add(time.Hour) },
		Until: until,
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
	keep := func(key string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.Driver.Specs()[0].Dir, "upper", key), make([]byte, 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := c.Keep(t.Context(), region, machine, key, key); err != nil {
			t.Fatal(err)
		}
	}
	left := func(want ...string) {
		t.Helper()
		all, err := c.List(t.Context(), region)
		var got []string
		for _, i := range all {
			got = append(got, fmt.Sprintf("%s %d", i.About, i.Bytes))
		}
		slices.Sort(got)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("left %v, not %v: %v", got, want, err)
		}
	}
	for _, key := range []string{"a", "b"} {
		keep(key)
		if err := c.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
	}

	s.Images.Flushing = func() error { return errors.New("no room") }
	tags := []types.Tag{{Key: aws.String(amazon.CacheTag), Value: aws.String("failed")}}
	made, err := client.CreateImage(t.Context(), &ec2.CreateImageInput{ // as by a process that died before it could remove the image
		InstanceId: &machine, Name: aws.String("failed"), Description: aws.String("failed"), NoReboot: aws.Bool(true),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeImage, Tags: tags}, {ResourceType: types.ResourceTypeSnapshot, Tags: tags}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.await(t.Context(), region, *made.ImageId); err == nil || !strings.Contains(err.Error(), "no room") {
		t.Fatal(err)
	}
	goOn := make(chan struct{})
	defer close(goOn)
	s.Images.Flushing = func() error { <-goOn; return nil }
	keep("pending")
	left("a 1000", "b 2000", "failed 0", "pending 0")
	_, err = client.CreateTags(t.Context(), &ec2.CreateTagsInput{ // so that it is looked at last
		Resources: []string{*made.ImageId}, Tags: []types.Tag{{Key: aws.String(usedTag), Value: aws.String(time.Now().Add(30 * time.Minute).UTC().Format(time.RFC3339))}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := c.Trim(t.Context(), region, Bounds{Images: 3}); n != 1 || err != nil {
		t.Errorf("of those that are too many, deleted %d, %v", n, err)
	}
	left("a 1000", "b 2000", "pending 0")
	if n, err := c.Trim(t.Context(), region, Bounds{Bytes: 2500}); n != 1 || err != nil {
		t.Errorf("deleted %d, %v", n, err)
	}
	if all, err := c.List(t.Context(), region); err != nil || len(all) != 2 || Bytes(all) == 0 || Bytes(all) > 2500 {
		t.Errorf("left %+v, %v", all, err)
	}
	if n, err := c.Trim(t.Context(), region, Bounds{Age: time.Minute}); n != 1 || err != nil {
		t.Errorf("of those that are too old, deleted %d, %v", n, err)
	}
	left("pending 0")

	end()
	if err := c.Settle(t.Context()); err != nil {
		t.Error(err)
	}
	left("pending 0")
	if n, err := c.Trim(t.Context(), region, Bounds{None: true}); n != 1 || err != nil {
		t.Errorf("cleared %d, %v", n, err)
	}
	left()
}
