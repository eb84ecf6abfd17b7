package cloud_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

func TestFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "rehearsal.json")
	err := os.WriteFile(file, []byte(`{"faults": {"rules": [
		{"action": "DescribeRegions", "nth": 2, "code": "RequestLimitExceeded"},
		{"action": "RunInstances", "calls": 1, "code": "InsufficientInstanceCapacity"},
		{"action": "RunInstances", "nth": 2, "effect": "hide", "times": 2},
		{"action": "CreateImage", "effect": "fail", "message": "the snapshot failed"}]}}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	rehearsal, err := cloud.LoadRehearsal(file)
	if err != nil {
		t.Fatal(err)
	}
	s := cloudtest.Start(t, cloud.Options{Delays: rehearsal.Delays, Faults: rehearsal.Faults})
	client := s.EC2("default", "us-east-1")
	ctx := t.Context()
	for i, want := range []string{"", "RequestLimitExceeded", ""} {
		if _, err := client.DescribeRegions(ctx, &ec2.DescribeRegionsInput{}); code(err) != want {
			t.Errorf("call %d: %v, want %q", i+1, err, want)
		}
	}
	in := &ec2.RunInstancesInput{ImageId: aws.String(source(t, client)), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)}
	if _, err := client.RunInstances(ctx, in); code(err) != "InsufficientInstanceCapacity" {
		t.Errorf("capacity: %v", err)
	}
	out, err := client.RunInstances(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	id := *out.Instances[0].InstanceId
	for i, want := range []string{"InvalidInstanceID.NotFound", "InvalidInstanceID.NotFound", ""} {
		if _, err := client.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}}); code(err) != want {
			t.Errorf("describe %d: %v, want %q", i+1, err, want)
		}
	}
	await(t, client, id, types.InstanceStateNameRunning)
	made, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("failing")})
	if err != nil {
		t.Fatal(err)
	}
	var img types.Image
	eventually(t, "the image to fail", func() bool {
		out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*made.ImageId}})
		if err != nil {
			t.Fatal(err)
		}
		img = out.Images[0]
		return img.State == types.ImageStateFailed
	})
	if !strings.Contains(*img.StateReason.Message, "the snapshot failed") {
		t.Errorf("reason: %s", *img.StateReason.Message)
	}
	snap, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	if err != nil || len(snap.Snapshots) != 1 || snap.Snapshots[0].State != types.SnapshotStateError {
		t.Errorf("snapshots: %v, %v", snap, err)
	}
}

// TestLooks checks that rules do not apply to the reads of a client that only looks, but
// do apply to its changes, and to clients that claim to look without the secret.
func TestLooks(t *testing.T) {
	faults := new(cloud.Faults)
	err := json.Unmarshal([]byte(`{"rules": [{"action": "Describe*", "nth": 2, "code": "RequestLimitExceeded"},
		{"action": "CreateSecurityGroup", "effect": "hide"}, {"action": "CreateKeyPair", "nth": 1, "code": "RequestLimitExceeded"}]}`), faults)
	if err != nil {
		t.Fatal(err)
	}
	s := cloudtest.Start(t, cloud.Options{Faults: faults})
	header, value := s.Looks()
	looking := func(value string) func(*ec2.Options) {
		return func(o *ec2.Options) { o.APIOptions = append(o.APIOptions, smithyhttp.AddHeaderValue(header, value)) }
	}
	client, looks, ctx := s.EC2("default", "us-east-1"), looking(value), t.Context()
	group, err := client.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web")})
	if err != nil {
		t.Fatal(err)
	}
	one := &ec2.DescribeSecurityGroupsInput{GroupIds: []string{*group.GroupId}}
	for range 3 { // it sees the same as others
		if _, err := client.DescribeSecurityGroups(ctx, one, looks); code(err) != "InvalidGroup.NotFound" {
			t.Errorf("who looks: %v", err)
		}
	}
	for i, want := range []string{"InvalidGroup.NotFound", "RequestLimitExceeded", ""} {
		if _, err := client.DescribeSecurityGroups(ctx, one); code(err) != want {
			t.Errorf("call %d: %v, want %q", i+1, err, want)
		}
	}
	if _, err := client.CreateKeyPair(ctx, &ec2.CreateKeyPairInput{KeyName: aws.String("key")}, looks); code(err) != "RequestLimitExceeded" {
		t.Errorf("a change: %v", err)
	}
	_, counts := faults.Rules()
	if _, err := client.DescribeKeyPairs(ctx, &ec2.DescribeKeyPairsInput{}, looking("guessed")); err != nil {
		t.Error(err)
	}
	if _, after := faults.Rules(); after[0].Seen != counts[0].Seen+1 {
		t.Error("a guessed header has kept a call from being counted")
	}
}

// TestNoBase checks that an instance whose base cannot be made ends with the reason, and
// that the launch itself does not wait.
func TestNoBase(t *testing.T) {
	images := cloudtest.NewImages(t.TempDir())
	release := make(chan struct{})
	images.EnsureError = func(ctx context.Context, base string) error {
		select {
		case <-release:
			return errors.New("the mirror cannot be reached: use another")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s := cloudtest.Start(t, cloud.Options{Images: images})
	client := s.EC2("default", "us-east-1")
	launch := func() string {
		out, err := client.RunInstances(t.Context(), &ec2.RunInstancesInput{ImageId: aws.String(source(t, client)), InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1)})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Instances[0].InstanceId
	}
	// Termination does not wait for the base either.
	early := launch()
	if in := describe(t, client, early); in.State.Name != types.InstanceStateNamePending {
		t.Errorf("the instance is %s", in.State.Name)
	}
	if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{early}}); err != nil {
		t.Fatal(err)
	}
	await(t, client, early, types.InstanceStateNameTerminated)

	id := launch()
	close(release)
	in := await(t, client, id, types.InstanceStateNameTerminated)
	if *in.StateReason.Code != "Server.InternalError" || !strings.Contains(*in.StateReason.Message, "the mirror cannot be reached") {
		t.Errorf("reason: %s", *in.StateReason.Message)
	}
}

// TestForgotten checks that a terminated instance is described for an hour.
func TestForgotten(t *testing.T) {
	var ahead atomic.Int64
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}})
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	if _, err := client.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
		t.Fatal(err)
	}
	await(t, client, id, types.InstanceStateNameTerminated)
	ahead.Store(int64(59 * time.Minute))
	await(t, client, id, types.InstanceStateNameTerminated)
	ahead.Store(int64(61 * time.Minute))
	if _, err := client.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{InstanceIds: []string{id}}); code(err) != "InvalidInstanceID.NotFound" {
		t.Errorf("an hour later: %v", err)
	}
}

// TestPlaceOfMistakes checks that an error in a file is reported with its line.
func TestPlaceOfMistakes(t *testing.T) {
	for text, want := range map[string]string{
		"{\n\"faults\": {\"rules\": [\n{\"code\": \"X\"},\n{\n\"service\": \"ec2\",\n\"code\": \"X\",\n\"action\": \"RunInstance\"\n}\n]}}": `r.json:7: rule 2: no action of the local cloud's ec2 matches "RunInstance" (did you mean "RunInstances"?)`,
		"{\"faults\": {\"rules\": [\n{\"code\": \"X\",\n\"service\": \"ec\"}]}}":                                                            `r.json:3: rule 1: there is no service "ec"`,
		"{\"faults\": {\"rules\": [\n{\"effect\": \"hang\",\n\"after\": \"soon\"}]}}":                                                       `r.json:3: rule 1: after: "soon" is not a duration`,
		"{\"faults\": {\"rules\": [\n{\n\"effect\": \"delay\"}]}}":                                                                          `r.json:2: rule 1: the effect delay needs "for"`,
	} {
		name := filepath.Join(t.TempDir(), "r.json")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := cloud.LoadRehearsal(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot  %v\nwant %s", text, err, want)
		}
	}
	if _, err := cloud.LoadRehearsal(t.TempDir()); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a folder: %v", err)
	}
}
