package cloud_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/confined"
)

// serveOnce opens a cloud in dir and serves it while use runs.
func serveOnce(t *testing.T, opts cloud.Options, use func(*cloudtest.Server)) {
	t.Helper()
	t.Run("", func(t *testing.T) { use(cloudtest.Start(t, opts)) })
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var id, ami, secret string
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		client := s.EC2("default", "us-east-1")
		secret = s.Credentials()[0].SecretAccessKey
		id = *run(t, client, ec2.RunInstancesInput{UserData: aws.String("aGk=")}).InstanceId
		made, err := client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("kept"), NoReboot: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		ami = *made.ImageId
		awaitImage(t, client, ami)

		_, err = cloud.Open(t.Context(), cloud.Options{Dir: dir, Driver: s.Driver, Images: s.Images})
		use, ok := errors.AsType[*cloud.InUseError](err)
		if !ok || use.PID != os.Getpid() || use.URL != s.URL {
			t.Errorf("opened twice: %v", err)
		}
		info, err := os.Stat(s.CredentialsFile())
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("credentials file: %v, %v", info, err)
		}
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		if s.Credentials()[0].SecretAccessKey != secret {
			t.Error("the secret changed")
		}
		client := s.EC2("default", "us-east-1")
		if in := describe(t, client, id); in.State.Name != types.InstanceStateNameStopped || in.PublicIpAddress != nil {
			t.Errorf("after a restart the instance is %s with address %v", in.State.Name, in.PublicIpAddress)
		}
		awaitImage(t, client, ami)
		if _, err := client.StartInstances(t.Context(), &ec2.StartInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		await(t, client, id, types.InstanceStateNameRunning)
		if spec := s.Driver.Machine(id).Spec(); spec.First || !spec.HasUserData {
			t.Errorf("started again: first %v, user data %v", spec.First, spec.HasUserData)
		}
	})
}

// TestKillPoints copies the state at every change of it on disk, as a kill -9 would leave
// it, and opens each copy: nothing may be half done.
func TestKillPoints(t *testing.T) {
	root := t.TempDir()
	dir, copies, before := filepath.Join(root, "state"), 0, 0
	copyOf := func(n int) string { return filepath.Join(root, fmt.Sprintf("copy-%03d", n)) }
	var mu sync.Mutex
	copyNow := func() {
		mu.Lock()
		defer mu.Unlock()
		copies++
		if err := os.CopyFS(copyOf(copies), os.DirFS(dir)); err != nil {
			t.Error(err)
		}
	}
	opts := cloud.Options{Dir: dir, Wrote: copyNow, Images: froze{cloudtest.NewImages(filepath.Join(dir, "layers")), copyNow}}
	serveOnce(t, opts, func(s *cloudtest.Server) {
		client := s.EC2("default", "us-east-1")
		ctx := t.Context()
		id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
		if err := writeDisk(s, id, "precious"); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		before = copies
		mu.Unlock()
		if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		await(t, client, id, types.InstanceStateNameStopped)
		made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("image")})
		if err != nil {
			t.Fatal(err)
		}
		awaitImage(t, client, *made.ImageId)
		copied, err := s.EC2("default", "eu-west-1").CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: made.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("image")})
		if err != nil {
			t.Fatal(err)
		}
		awaitImage(t, s.EC2("default", "eu-west-1"), *copied.ImageId)
		if _, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		await(t, client, id, types.InstanceStateNameTerminated)
	})
	if copies < 15 {
		t.Fatalf("only %d changes of the state", copies)
	}
	for n := 1; n <= copies; n++ {
		t.Run(fmt.Sprintf("kill %d", n), func(t *testing.T) { checkState(t, cloudtest.Start(t, cloud.Options{Dir: copyOf(n)}), n > before) })
	}
}

// froze calls then after a disk has become a layer and before that is recorded.
type froze struct {
	*cloudtest.Images
	then func()
}

func (f froze) Freeze(ctx context.Context, id string, dir confined.Dir) error {
	err := f.Images.Freeze(ctx, id, dir)
	f.then()
	return err
}

// checkState reports contradictions in the state of a cloud that was just opened. written
// says that the file was on the instance's disk.
func checkState(t *testing.T, s *cloudtest.Server, written bool) {
	ctx := t.Context()
	for _, region := range []string{"us-east-1", "eu-west-1"} {
		client := s.EC2("default", region)
		snapshots, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
		if err != nil {
			t.Fatal(err)
		}
		used := map[string]bool{}
		images, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, img := range images.Images {
			if img.State != types.ImageStateAvailable {
				t.Errorf("%s is %s", *img.ImageId, img.State)
			}
			used[*img.BlockDeviceMappings[0].Ebs.SnapshotId] = true
			in := run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId})
			if !holds(s, *in.InstanceId, "precious") {
				t.Errorf("an instance of %s lacks the file", *img.ImageId)
			}
		}
		for _, snap := range snapshots.Snapshots {
			if snap.State != types.SnapshotStateCompleted || !used[*snap.SnapshotId] {
				t.Errorf("%s is %s, used %v", *snap.SnapshotId, snap.State, used[*snap.SnapshotId])
			}
		}
		instances, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{filter("instance-state-name", "stopped", "terminated", "pending")}})
		if err != nil {
			t.Fatal(err)
		}
		attached := map[string]bool{}
		for _, r := range instances.Reservations {
			in := r.Instances[0]
			for _, b := range in.BlockDeviceMappings {
				attached[*b.Ebs.VolumeId] = true
			}
			switch in.State.Name {
			case types.InstanceStateNamePending:
				t.Errorf("%s is pending", *in.InstanceId)
			case types.InstanceStateNameStopped:
				if _, err := client.StartInstances(ctx, &ec2.StartInstancesInput{InstanceIds: []string{*in.InstanceId}}); err != nil {
					t.Error(err)
				}
				await(t, client, *in.InstanceId, types.InstanceStateNameRunning)
				if written && !holds(s, *in.InstanceId, "precious") {
					t.Errorf("the disk of %s lost the file", *in.InstanceId)
				}
				if _, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{*in.InstanceId}}); err != nil {
					t.Error(err)
				}
				await(t, client, *in.InstanceId, types.InstanceStateNameTerminated)
			}
		}
	}
	groups, err := s.EC2("default", "us-east-1").DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	if err != nil || len(groups.SecurityGroups) != 1 {
		t.Errorf("security groups: %v, %v", groups, err)
	}
}

// holds reports whether a file is in a layer of the machine or on its disk.
func holds(s *cloudtest.Server, id, name string) bool {
	spec := s.Driver.Machine(id).Spec()
	for _, dir := range append(spec.Layers, filepath.Join(spec.Dir, "upper")) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return true
		}
	}
	return false
}

// clock is a clock that tests advance.
type clock struct {
	cloud.Clock
	now func() time.Time
}

func (c clock) Now() time.Time                                   { return c.now() }
func (c clock) Sleep(ctx context.Context, _ time.Duration) error { return context.Cause(ctx) }

// TestStartForgets checks that a start deletes the instances that ended long ago, and what is
// kept of deregistered images that nothing was made from.
func TestStartForgets(t *testing.T) {
	dir := t.TempDir()
	rows := func(table string) int {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(dir, "ec2", table, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	var stopped, recent, parent string
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		client, ctx := s.EC2("default", "us-east-1"), t.Context()
		img, unused := made(t, client, "parent"), made(t, client, "unused")
		parent, stopped = *img.ImageId, *run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId
		for _, id := range []*string{img.ImageId, unused.ImageId} {
			got[*ec2.DeregisterImageOutput](t)(client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: id}))
		}
		recent = *run(t, client, ec2.RunInstancesInput{}).InstanceId
		got[*ec2.TerminateInstancesOutput](t)(client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{recent}}))
		await(t, client, recent, types.InstanceStateNameTerminated)
		if ended, graves := rows("instances"), rows("deregistered-images"); ended < 2 || graves != 2 {
			t.Errorf("%d instances and %d deregistered images", ended, graves)
		}
	})
	before := rows("instances")
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		if n := rows("instances"); n != before {
			t.Errorf("%d instances of %d are left at once", n, before)
		}
	})
	later := clock{now: func() time.Time { return time.Now().Add(2 * time.Hour) }}
	serveOnce(t, cloud.Options{Dir: dir, Clock: later}, func(s *cloudtest.Server) {
		if _, err := os.Stat(filepath.Join(dir, "ec2", "instances", recent+".json")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("an instance that ended two hours ago: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "ec2", "instances", stopped+".json")); err != nil {
			t.Errorf("an instance that did not end: %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, "ec2", "deregistered-images", parent+".json")); err != nil || rows("deregistered-images") != 1 {
			t.Errorf("the image of an instance: %v; %d images are kept", err, rows("deregistered-images"))
		}
	})
}
