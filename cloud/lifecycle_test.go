package cloud_test

import (
	"bake/cloud/machine/machinetest"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
)

// eventually waits until check returns true, or fails the test.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !check(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("in vain waited for: %s", what)
		}
	}
}

// source returns the AMI of the store's publication.
func source(t *testing.T, client *ec2.Client) string {
	t.Helper()
	out, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
	if err != nil {
		t.Fatal(err)
	}
	return *out.Images[0].ImageId
}

// run launches one instance and waits until it runs.
func run(t *testing.T, client *ec2.Client, in ec2.RunInstancesInput) types.Instance {
	t.Helper()
	if in.ImageId == nil {
		in.ImageId = aws.String(source(t, client))
	}
	if in.MinCount == nil {
		in.MinCount, in.MaxCount = aws.Int32(1), aws.Int32(1)
	}
	if in.InstanceType == "" {
		in.InstanceType = types.InstanceTypeT3Micro
	}
	out, err := client.RunInstances(t.Context(), &in)
	if err != nil {
		t.Fatal(err)
	}
	return await(t, client, *out.Instances[0].InstanceId, types.InstanceStateNameRunning)
}

func describe(t *testing.T, client *ec2.Client, id string) types.Instance {
	t.Helper()
	out, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil {
		t.Fatal(err)
	}
	return out.Reservations[0].Instances[0]
}

// await waits until the instance is in the state.
func await(t *testing.T, client *ec2.Client, id string, state types.InstanceStateName) types.Instance {
	t.Helper()
	var in types.Instance
	eventually(t, id+" "+string(state), func() bool {
		in = describe(t, client, id)
		return in.State.Name == state
	})
	return in
}

func TestBake(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()

	in := run(t, client, ec2.RunInstancesInput{})
	id := *in.InstanceId
	if in.PublicIpAddress == nil || in.PrivateIpAddress == nil {
		t.Fatalf("the instance has no addresses: %v, %v", in.PublicIpAddress, in.PrivateIpAddress)
	}
	if spec := s.Driver.Machine(id).Spec(); spec.User != "admin" || !spec.First || len(spec.Layers) != 1 {
		t.Errorf("spec = user %q, first %v, layers %v", spec.User, spec.First, spec.Layers)
	}

	if _, err := client.StopInstances(ctx, &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	if in := await(t, client, id, types.InstanceStateNameStopped); in.PublicIpAddress != nil || *in.StateReason.Code != "Client.UserInitiatedShutdown" {
		t.Errorf("stopped: public address %v, reason %v", in.PublicIpAddress, *in.StateReason.Code)
	}
	if err := writeDisk(s, id, "index.html"); err != nil {
		t.Fatal(err)
	}
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("web")})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, client, *made.ImageId)
	if *img.OwnerId != "123456789012" || *img.SourceInstanceId != id || len(img.BlockDeviceMappings) != 1 {
		t.Errorf("image = %+v", img)
	}

	two := run(t, client, ec2.RunInstancesInput{ImageId: made.ImageId})
	if spec := s.Driver.Machine(*two.InstanceId).Spec(); len(spec.Layers) != 2 || spec.User != "admin" {
		t.Errorf("an instance of the image has layers %v, user %q", spec.Layers, spec.User)
	}
	if _, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id, *two.InstanceId}}); err != nil {
		t.Fatal(err)
	}
	await(t, client, id, types.InstanceStateNameTerminated)
	await(t, client, *two.InstanceId, types.InstanceStateNameTerminated)
	volumes, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{})
	if err != nil || len(volumes.Volumes) != 0 {
		t.Errorf("volumes left: %v, %v", volumes.Volumes, err)
	}
}

func TestMachineDecides(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	address := *describe(t, client, id).PublicIpAddress

	first := s.Driver.Machine(id)
	first.End(machine.Exit{Reason: machine.Reboot})
	eventually(t, "the machine to start again", func() bool { m := s.Driver.Machine(id); return m != nil && m != first })
	if in := describe(t, client, id); in.State.Name != types.InstanceStateNameRunning || *in.PublicIpAddress != address {
		t.Errorf("after a reboot: %s, %s; want running, %s", in.State.Name, *in.PublicIpAddress, address)
	}
	if spec := s.Driver.Machine(id).Spec(); spec.First {
		t.Error("the second boot is called the first")
	}

	s.Driver.Machine(id).End(machine.Exit{Reason: machine.PowerOff})
	if in := await(t, client, id, types.InstanceStateNameStopped); *in.StateReason.Code != "Client.InstanceInitiatedShutdown" {
		t.Errorf("reason = %s", *in.StateReason.Code)
	}

	id = *run(t, client, ec2.RunInstancesInput{InstanceInitiatedShutdownBehavior: types.ShutdownBehaviorTerminate}).InstanceId
	s.Driver.Machine(id).End(machine.Exit{Reason: machine.PowerOff})
	await(t, client, id, types.InstanceStateNameTerminated)

	id = *run(t, client, ec2.RunInstancesInput{}).InstanceId
	s.Driver.Machine(id).End(machine.Exit{Reason: machine.Crashed, Err: context.DeadlineExceeded})
	if in := await(t, client, id, types.InstanceStateNameStopped); *in.StateReason.Code != "Server.InternalError" {
		t.Errorf("reason = %s", *in.StateReason.Code)
	}
}

// Launching an image for a processor whose programs this host cannot run fails at once;
// otherwise the machine's spec names the processor.
func TestProcessor(t *testing.T) {
	for _, lacks := range [][]string{nil, {"arm64"}} {
		s := cloudtest.Start(t, cloud.Options{Driver: &machinetest.Driver{Lacks: lacks}})
		s.Images.Publish(cloud.Publication{Owner: "136693071363", Name: "for-arm", Architecture: "arm64", Created: time.Now(), Base: "debian-12", User: "admin"})
		client := s.EC2("default", "us-east-1")
		found, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{Filters: []types.Filter{{Name: aws.String("architecture"), Values: []string{"arm64"}}}})
		if err != nil || len(found.Images) != 1 {
			t.Fatalf("DescribeImages = %+v, %v, want one image for arm64", found, err)
		}
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: found.Images[0].ImageId, InstanceType: types.InstanceTypeT4gMicro, MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		if lacks != nil {
			if code(err) != "Unsupported" || !strings.Contains(err.Error(), "no emulator for arm64") {
				t.Error(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		await(t, client, *out.Instances[0].InstanceId, types.InstanceStateNameRunning)
		if specs := s.Driver.Specs(); len(specs) != 1 || specs[0].Arch != "arm64" {
			t.Errorf("%+v", specs)
		}
	}
}
