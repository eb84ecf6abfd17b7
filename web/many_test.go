package web

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/internal/local"
	"bake/internal/turns"
)

// TestMany: in a browser, with BAKE_TEST_CONSOLE, lists of a thousand instances and of hundreds of
// images take one call for each page. The machines run nothing.
func TestMany(t *testing.T) {
	const instances, images = 1000, 300
	turns.Skip(t, 3) // in a browser it is two minutes of a busy processor
	s, browse := browser(t)
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bases, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ExecutableUsers: []string{"all"}})
	if err != nil {
		t.Fatal(err)
	}
	for range instances / 100 {
		if _, err := client.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: bases.Images[0].ImageId, InstanceType: types.InstanceTypeT3Micro, MinCount: aws.Int32(100), MaxCount: aws.Int32(100)}); err != nil {
			t.Fatal(err)
		}
	}
	settle := func() { // for a list is fetched again when something changes
		pending := &ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-state-name"), Values: []string{"pending"}}}}
		for {
			out, err := client.DescribeInstances(ctx, pending)
			if err != nil {
				t.Fatal(err)
			}
			if len(out.Reservations) == 0 {
				return
			}
			time.Sleep(200 * time.Millisecond) // other tests run beside this
		}
	}
	settle()
	browse("many.mjs", "instances")
	volume, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String("us-east-1a"), Size: aws.Int32(1)})
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId})
	if err != nil {
		t.Fatal(err)
	}
	if err := ec2.NewSnapshotCompletedWaiter(client).Wait(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*snapshot.SnapshotId}}, time.Minute); err != nil {
		t.Fatal(err)
	}
	for n := range images {
		if _, err := client.RegisterImage(ctx, &ec2.RegisterImageInput{
			Name: aws.String(fmt.Sprintf("web-%06d", n)), RootDeviceName: aws.String("/dev/xvda"), Architecture: types.ArchitectureValuesX8664,
			BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: snapshot.SnapshotId}}},
		}); err != nil {
			t.Fatal(err)
		}
	}
	browse("many.mjs", "images")
}

// TestFaults: in a browser, a page shows the available parts of an incomplete answer, and does not
// wait for the answer for another page.
func TestFaults(t *testing.T) {
	_, browse := browser(t)
	browse("faults.mjs")
}

// browser opens a console on a cloud whose machines run nothing, and returns a function that runs
// a program of e2e/ on it. Without a browser the test is skipped.
func browser(t *testing.T) (s *cloudtest.Server, browse func(program string, args ...string)) {
	t.Helper()
	modules := os.Getenv("BAKE_TEST_CONSOLE")
	if modules == "" {
		t.Skip("scripts/console tests with a browser")
	}
	s = cloudtest.Start(t, cloud.Options{})
	key := s.Credentials()[0]
	c := New(Options{
		Endpoint: s.URL, Accounts: []Account{{key.Account, key.Profile, key.AccessKeyID, key.SecretAccessKey}}, Region: "us-east-1",
		Changes: s.Watch, Calls: func() []local.Call { return nil }, Runs: runs(t),
	})
	server := httptest.NewServer(c)
	t.Cleanup(server.Close)
	return s, func(program string, args ...string) {
		t.Helper()
		node := exec.CommandContext(t.Context(), "node", append([]string{"e2e/" + program, server.URL + c.path + "?token=" + c.token}, args...)...)
		node.Env = append(os.Environ(), "CONSOLE_MODULES="+modules)
		out, err := node.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Error(err)
		}
	}
}
