package cloud_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/machine"
	"bake/cloud/machine/machinetest"
)

// commands is a cloud whose machines understand a few scripts.
type commands struct {
	*cloudtest.Server
	t       *testing.T
	ssm     *ssm.Client
	ec2     *ec2.Client
	mu      sync.Mutex
	most    int // the largest number of concurrent scripts
	running int

	rebooted int // runs of a script that asks for reboots
}

func newCommands(t *testing.T, dir string) *commands {
	c := &commands{t: t}
	c.Server = cloudtest.Start(t, cloud.Options{Dir: dir, Driver: &machinetest.Driver{Exec: c.exec}})
	c.ssm, c.ec2 = ssm.NewFromConfig(c.Config("default", "us-east-1")), c.EC2("default", "us-east-1")
	return c
}

// exec simulates scripts on a machine.
func (c *commands) exec(ctx context.Context, spec machine.Spec, command machine.Command) (int, error) {
	c.mu.Lock()
	c.running++
	c.most = max(c.most, c.running)
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.running--
		c.mu.Unlock()
	}()
	switch script := strings.TrimSuffix(string(command.Script), "\n"); script {
	case "forever":
		fmt.Fprint(command.Stdout, "begun")
		<-ctx.Done()
		return 0, context.Cause(ctx)
	case "fail":
		return 3, nil
	case "reboot":
		fmt.Fprintln(command.Stdout, "run")
		return 194, nil
	case "reboot twice":
		c.mu.Lock()
		c.rebooted++
		n := c.rebooted
		c.mu.Unlock()
		fmt.Fprintln(command.Stdout, "run", n)
		if n < 3 {
			return 194, nil
		}
		return 0, nil
	case "reboot when it is terminated":
		if _, err := c.ec2.TerminateInstances(context.WithoutCancel(ctx), &ec2.TerminateInstancesInput{InstanceIds: []string{spec.ID}}); err != nil { // ends this command too
			return 1, err
		}
		return 194, nil
	case "lost":
		return 0, machine.ErrEnded
	case "complain":
		fmt.Fprint(command.Stderr, strings.Repeat("e", 40000))
		return 3, nil
	case "meet": // meets another script
		for ctx.Err() == nil {
			c.mu.Lock()
			met := c.most > 1
			c.mu.Unlock()
			if met {
				return 0, nil
			}
			time.Sleep(time.Millisecond)
		}
		return 1, nil
	case "much":
		fmt.Fprint(command.Stdout, strings.Repeat("é", 40000), "\xff")
		fmt.Fprint(command.Stderr, strings.Repeat("e", 40000))
		return 0, nil
	default:
		fmt.Fprintf(command.Stdout, "%s in %s on %s", script, command.Dir, spec.ID)
		fmt.Fprint(command.Stderr, "to stderr")
		return 0, nil
	}
}

// launch launches instances with or without an instance profile.
func (c *commands) launch(n int32, profile bool, tags ...string) []string {
	c.t.Helper()
	in := ec2.RunInstancesInput{ImageId: aws.String(source(c.t, c.ec2)), MinCount: &n, MaxCount: &n, InstanceType: types.InstanceTypeT3Micro}
	if profile {
		name, client := aws.String("managed"), iamClient(c.t, c.Server, "default")
		_, _ = client.CreateRole(c.t.Context(), &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(trustEC2)}) // it exists already the second time
		_, _ = client.CreateInstanceProfile(c.t.Context(), &iam.CreateInstanceProfileInput{InstanceProfileName: name})
		_, _ = client.AddRoleToInstanceProfile(c.t.Context(), &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name})
		in.IamInstanceProfile = &types.IamInstanceProfileSpecification{Name: name}
	}
	if len(tags) > 0 {
		in.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeInstance, Tags: []types.Tag{{Key: aws.String("role"), Value: &tags[0]}, {Key: aws.String("Name"), Value: aws.String("n")}}}}
	}
	out, err := c.ec2.RunInstances(c.t.Context(), &in)
	if err != nil {
		c.t.Fatal(err)
	}
	var ids []string
	for _, i := range out.Instances {
		await(c.t, c.ec2, *i.InstanceId, types.InstanceStateNameRunning)
		ids = append(ids, *i.InstanceId)
	}
	slices.Sort(ids)
	return ids
}

func shell(script string, ids ...string) *ssm.SendCommandInput {
	return &ssm.SendCommandInput{DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: ids, Parameters: map[string][]string{"commands": {script}, "workingDirectory": {"/srv"}}}
}

// send sends a command and waits until it is in one of the states.
func (c *commands) send(in *ssm.SendCommandInput, until ...ssmtypes.CommandStatus) ssmtypes.Command {
	c.t.Helper()
	out, err := c.ssm.SendCommand(c.t.Context(), in)
	if err != nil {
		c.t.Fatal(err)
	}
	return c.until(*out.Command.CommandId, until...)
}

func (c *commands) until(id string, until ...ssmtypes.CommandStatus) (found ssmtypes.Command) {
	c.t.Helper()
	eventually(c.t, fmt.Sprintf("%s is %s", id, until), func() bool {
		list, err := c.ssm.ListCommands(c.t.Context(), &ssm.ListCommandsInput{CommandId: &id})
		if err != nil || len(list.Commands) != 1 {
			c.t.Fatalf("%v: %+v", err, list)
		}
		found = list.Commands[0]
		return slices.Contains(until, found.Status)
	})
	return found
}

func (c *commands) invocation(id, instance string) *ssm.GetCommandInvocationOutput {
	c.t.Helper()
	out, err := c.ssm.GetCommandInvocation(c.t.Context(), &ssm.GetCommandInvocationInput{CommandId: &id, InstanceId: &instance})
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func TestRunCommand(t *testing.T) {
	c := newCommands(t, t.TempDir())
	ids := c.launch(1, true)
	id := ids[0]
	done := c.send(shell("hello", id), ssmtypes.CommandStatusSuccess)
	if done.TargetCount != 1 || done.CompletedCount != 1 || done.ErrorCount != 0 || *done.StatusDetails != "Success" || *done.MaxConcurrency != "50" || *done.MaxErrors != "0" || done.InstanceIds[0] != id {
		t.Errorf("the command is %+v", done)
	}
	if got := done.ExpiresAfter.Sub(*done.RequestedDateTime).Hours(); got != 2 {
		t.Errorf("it expires after %v hours", got)
	}
	v := c.invocation(*done.CommandId, id)
	if *v.StandardOutputContent != "hello in /srv on "+id || *v.StandardErrorContent != "to stderr" || v.ResponseCode != 0 || v.Status != "Success" || *v.PluginName != "aws:runShellScript" || *v.ExecutionStartDateTime == "" || !strings.HasPrefix(*v.ExecutionElapsedTime, "PT") {
		t.Errorf("the invocation is %+v", v)
	}

	failed := c.invocation(*c.send(shell("fail", id), ssmtypes.CommandStatusFailed).CommandId, id)
	if failed.ResponseCode != 3 || failed.Status != "Failed" || !strings.HasSuffix(*failed.StandardErrorContent, "failed to run commands: exit status 3") {
		t.Errorf("the failed invocation is %+v", failed)
	}
	if v := c.invocation(*c.send(shell("complain", id), ssmtypes.CommandStatusFailed).CommandId, id); len(*v.StandardErrorContent) != 8000 || !strings.HasSuffix(*v.StandardErrorContent, "e\nfailed to run commands: exit status 3") {
		t.Errorf("the end of much standard error is %q", (*v.StandardErrorContent)[7900:])
	}
	much := c.invocation(*c.send(shell("much", id), ssmtypes.CommandStatusSuccess).CommandId, id)
	if out, errs := *much.StandardOutputContent, *much.StandardErrorContent; len(out) != 24000 || strings.Trim(out, "é") != "" || len(errs) != 8000 {
		t.Errorf("%d and %d bytes of output", len(out), len(errs))
	}
	long := shell("forever", id)
	long.Parameters["executionTimeout"] = []string{"1"}
	late := c.invocation(*c.send(long, ssmtypes.CommandStatusTimedOut).CommandId, id)
	if late.Status != "TimedOut" || *late.StatusDetails != "ExecutionTimedOut" || late.ResponseCode != -1 || *late.StandardOutputContent != "begun" {
		t.Errorf("the late invocation is %+v", late)
	}

	list, err := c.ssm.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{Details: true, MaxResults: aws.Int32(2)})
	if err != nil || len(list.CommandInvocations) != 2 || list.NextToken == nil || *list.CommandInvocations[0].CommandId != *late.CommandId {
		t.Fatalf("%v: %+v", err, list)
	}
	if p := list.CommandInvocations[1].CommandPlugins; len(p) != 1 || !strings.HasPrefix(*p[0].Output, "éé") || len(*p[0].Output) > 2500 {
		t.Errorf("details: %+v", p)
	}
	rest, err := c.ssm.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{NextToken: list.NextToken})
	if err != nil || len(rest.CommandInvocations) != 3 || len(rest.CommandInvocations[0].CommandPlugins) != 0 {
		t.Errorf("the rest: %v: %+v", err, rest)
	}
	for key, want := range map[ssmtypes.CommandFilterKey][2]string{
		ssmtypes.CommandFilterKeyStatus: {"Failed", "2"}, ssmtypes.CommandFilterKeyExecutionStage: {"Executing", "0"},
		ssmtypes.CommandFilterKeyInvokedAfter: {"2020-01-01T00:00:00Z", "5"}, ssmtypes.CommandFilterKeyInvokedBefore: {"2020-01-01T00:00:00Z", "0"},
	} {
		out, err := c.ssm.ListCommands(t.Context(), &ssm.ListCommandsInput{Filters: []ssmtypes.CommandFilter{{Key: key, Value: &want[0]}}})
		if err != nil || fmt.Sprint(len(out.Commands)) != want[1] {
			t.Errorf("%s: %v, %d commands", key, err, len(out.Commands))
		}
	}
	details := []ssmtypes.CommandFilter{{Key: ssmtypes.CommandFilterKeyStatus, Value: aws.String("ExecutionTimedOut")}}
	if out, err := c.ssm.ListCommands(t.Context(), &ssm.ListCommandsInput{Filters: details}); err != nil || len(out.Commands) != 1 {
		t.Errorf("by details: %v, %+v", err, out)
	}
	if out, err := c.ssm.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{Filters: details}); err != nil || len(out.CommandInvocations) != 1 {
		t.Errorf("by details: %v, %+v", err, out)
	}
}

// TestRunCommandReboots checks that a script that ends with the status 194 runs again
// after a reboot, and that its output is that of all runs.
func TestRunCommandReboots(t *testing.T) {
	c := newCommands(t, t.TempDir())
	id := c.launch(1, true)[0]
	starts := func() (n int) {
		for _, spec := range c.Driver.Specs() {
			if spec.ID == id {
				n++
			}
		}
		return n
	}
	before := starts()
	v := c.invocation(*c.send(shell("reboot twice", id), ssmtypes.CommandStatusSuccess).CommandId, id)
	if v.ResponseCode != 0 || *v.StandardOutputContent != "run 1\nrun 2\nrun 3\n" || *v.StandardErrorContent != "" {
		t.Errorf("the invocation is %+v", v)
	}
	if n := starts() - before; n != 2 {
		t.Errorf("the machine was started %d times more", n)
	}
	before = starts()
	if v := c.invocation(*c.send(shell("reboot", id), ssmtypes.CommandStatusFailed).CommandId, id); v.ResponseCode != 194 || !strings.HasSuffix(*v.StandardErrorContent, "after 16 runs") || strings.Count(*v.StandardOutputContent, "run\n") != 16 {
		t.Errorf("one that asks for a reboot whenever it runs: %+v", v)
	}
	if n := starts() - before; n != 15 {
		t.Errorf("the machine was started %d times more for 16 runs", n)
	}
	await(t, c.ec2, id, types.InstanceStateNameRunning)
	lost := c.invocation(*c.send(shell("reboot when it is terminated", id), ssmtypes.CommandStatusFailed).CommandId, id)
	if *lost.StatusDetails != "Undeliverable" {
		t.Errorf("one whose instance is no more: %+v", lost)
	}

	id = c.launch(1, true)[0]
	profiles, err := c.ec2.DescribeIamInstanceProfileAssociations(t.Context(), &ec2.DescribeIamInstanceProfileAssociationsInput{Filters: []types.Filter{{Name: aws.String("instance-id"), Values: []string{id}}}})
	if err != nil || len(profiles.IamInstanceProfileAssociations) != 1 {
		t.Fatalf("DescribeIamInstanceProfileAssociations = %+v, %v, want one", profiles, err)
	}
	c.Driver.StartError = func(machine.Spec) error {
		_, err := c.ec2.DisassociateIamInstanceProfile(t.Context(), &ec2.DisassociateIamInstanceProfileInput{AssociationId: profiles.IamInstanceProfileAssociations[0].AssociationId})
		return err
	}
	lost = c.invocation(*c.send(shell("reboot", id), ssmtypes.CommandStatusFailed).CommandId, id)
	if *lost.StatusDetails != "Undeliverable" || *lost.StandardOutputContent != "run\n" {
		t.Errorf("one whose instance has lost its profile: %+v", lost)
	}
}

// TestRunCommandReferences uses references to the Parameter Store in parameters.
func TestRunCommandReferences(t *testing.T) {
	c := newCommands(t, t.TempDir())
	id := c.launch(1, true)[0]
	for name, kind := range map[string]ssmtypes.ParameterType{"/app/name": ssmtypes.ParameterTypeString, "secret": ssmtypes.ParameterTypeSecureString} {
		if _, err := c.ssm.PutParameter(t.Context(), &ssm.PutParameterInput{Name: &name, Value: aws.String("{{ssm:secret}}"), Type: kind}); err != nil {
			t.Fatal(err)
		}
	}
	done := c.send(shell("echo {{ ssm:/app/name }} {{ssm:/app/name:1}} {{other}}", id), ssmtypes.CommandStatusSuccess)
	if v := c.invocation(*done.CommandId, id); !strings.HasPrefix(*v.StandardOutputContent, "echo {{ssm:secret}} {{ssm:secret}} {{other}} in") {
		t.Errorf("it ran %q", *v.StandardOutputContent)
	}
	if got := done.Parameters["commands"][0]; !strings.HasPrefix(got, "echo {{ ssm:/app/name }}") {
		t.Errorf("the command's parameter is %q", got)
	}
	for _, name := range []string{"secret", "absent", "/app/name:7"} {
		if _, err := c.ssm.SendCommand(t.Context(), shell("echo {{ssm:"+name+"}}", id)); code(err) != "InvalidParameters" || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunCommandRefusals(t *testing.T) {
	c := newCommands(t, t.TempDir())
	id, plain, stopped := c.launch(1, true)[0], c.launch(1, false)[0], c.launch(1, true)[0]
	if _, err := c.ec2.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{stopped}}); err != nil {
		t.Fatal(err)
	}
	await(t, c.ec2, stopped, types.InstanceStateNameStopped)
	for want, change := range map[string]func(*ssm.SendCommandInput){
		"InvalidDocument":         func(in *ssm.SendCommandInput) { in.DocumentName = aws.String("AWS-RunPowerShellScript") },
		"InvalidDocumentVersion":  func(in *ssm.SendCommandInput) { in.DocumentVersion = aws.String("7") },
		"InvalidInstanceId 1":     func(in *ssm.SendCommandInput) { in.InstanceIds = []string{plain} },
		"InvalidInstanceId 2":     func(in *ssm.SendCommandInput) { in.InstanceIds = []string{stopped} },
		"InvalidInstanceId 3":     func(in *ssm.SendCommandInput) { in.InstanceIds = []string{"i-0123456789abcdef0"} },
		"DuplicateInstanceId":     func(in *ssm.SendCommandInput) { in.InstanceIds = []string{id, id} },
		"InvalidParameters 1":     func(in *ssm.SendCommandInput) { delete(in.Parameters, "commands") },
		"InvalidParameters 2":     func(in *ssm.SendCommandInput) { in.Parameters["executionTimeout"] = []string{"0"} },
		"InvalidParameters 3":     func(in *ssm.SendCommandInput) { in.Parameters["other"] = []string{"0"} },
		"InvalidParameters 4":     func(in *ssm.SendCommandInput) { in.Parameters["workingDirectory"] = []string{} },
		"MaxDocumentSizeExceeded": func(in *ssm.SendCommandInput) { in.Parameters["commands"] = []string{strings.Repeat("x", 70000)} },
		"InvalidOutputFolder":     func(in *ssm.SendCommandInput) { in.OutputS3BucketName = aws.String("absent") },
		"InvalidNotificationConfig": func(in *ssm.SendCommandInput) {
			in.NotificationConfig = &ssmtypes.NotificationConfig{NotificationArn: aws.String("arn:aws:sns:us-east-1:123456789012:t")}
		},
		"InvalidRole":           func(in *ssm.SendCommandInput) { in.ServiceRoleArn = aws.String("arn:aws:iam::123456789012:role/r") },
		"ValidationException 1": func(in *ssm.SendCommandInput) { in.TimeoutSeconds = aws.Int32(5) },
		"ValidationException 2": func(in *ssm.SendCommandInput) { in.InstanceIds = nil },
		"ValidationException 5": func(in *ssm.SendCommandInput) { in.MaxConcurrency = aws.String("all") },
		"ValidationException 6": func(in *ssm.SendCommandInput) { in.MaxConcurrency = aws.String("0") },
		"ValidationException 7": func(in *ssm.SendCommandInput) { in.MaxErrors = aws.String("101%") },
		"ValidationException 8": func(in *ssm.SendCommandInput) { in.MaxErrors = aws.String("-1") },
		"ValidationException 3": func(in *ssm.SendCommandInput) {
			in.CloudWatchOutputConfig = &ssmtypes.CloudWatchOutputConfig{CloudWatchOutputEnabled: true}
		},
		"ValidationException 4": func(in *ssm.SendCommandInput) {
			in.InstanceIds, in.Targets = nil, []ssmtypes.Target{{Key: aws.String("resource-groups:Name"), Values: []string{"g"}}}
		},
	} {
		in := shell("hello", id)
		change(in)
		if _, err := c.ssm.SendCommand(t.Context(), in); code(err) != strings.Fields(want)[0] {
			t.Errorf("%s: %v", want, err)
		}
	}
	for want, err := range map[string]error{
		"InvocationDoesNotExist": second(c.ssm.GetCommandInvocation(t.Context(), &ssm.GetCommandInvocationInput{CommandId: aws.String("01234567-89ab-cdef-0123-456789abcdef"), InstanceId: &id})),
		"InvalidCommandId":       second(c.ssm.CancelCommand(t.Context(), &ssm.CancelCommandInput{CommandId: aws.String("01234567-89ab-cdef-0123-456789abcdef")})),
		"ValidationException":    second(c.ssm.ListCommands(t.Context(), &ssm.ListCommandsInput{Filters: []ssmtypes.CommandFilter{{Key: ssmtypes.CommandFilterKeyExecutionStage, Value: aws.String("Odd")}}})),
		"InvalidFilterKey ":      second(c.ssm.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{Filters: []ssmtypes.CommandFilter{{Key: ssmtypes.CommandFilterKeyExecutionStage, Value: aws.String("Complete")}}})),
		"InvalidFilterKey":       second(c.ssm.DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{Filters: []ssmtypes.InstanceInformationStringFilter{{Key: aws.String("Odd"), Values: []string{"x"}}}})),
	} {
		if code(err) != strings.TrimSpace(want) {
			t.Errorf("%s: %v", want, err)
		}
	}

	// All of Systems Manager agrees on which instances are managed.
	known, err := c.ssm.DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, i := range known.InstanceInformationList {
		got[*i.InstanceId] = string(i.PingStatus)
	}
	if len(got) != 2 || got[id] != "Online" || got[stopped] != "ConnectionLost" {
		t.Errorf("known are %v", got)
	}
	online, err := c.ssm.DescribeInstanceInformation(t.Context(), &ssm.DescribeInstanceInformationInput{InstanceInformationFilterList: []ssmtypes.InstanceInformationFilter{{Key: "PingStatus", ValueSet: []string{"Online"}}}})
	if err != nil || len(online.InstanceInformationList) != 1 {
		t.Errorf("online: %v: %+v", err, online)
	}
	for instance, want := range map[string]ssmtypes.ConnectionStatus{id: "connected", plain: "notconnected", stopped: "notconnected"} {
		out, err := c.ssm.GetConnectionStatus(t.Context(), &ssm.GetConnectionStatusInput{Target: &instance})
		if err != nil || out.Status != want {
			t.Errorf("%s: %v, %+v", instance, err, out)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestRunCommandOnMany sends a command to the instances with a tag.
func TestRunCommandOnMany(t *testing.T) {
	c := newCommands(t, t.TempDir())
	ids := c.launch(4, true, "web")
	c.launch(1, true, "db")
	in := shell("meet")
	in.Targets = []ssmtypes.Target{{Key: aws.String("tag:role"), Values: []string{"web"}}}
	in.MaxConcurrency = aws.String("50%")
	done := c.send(in, ssmtypes.CommandStatusSuccess)
	if done.TargetCount != 4 || done.CompletedCount != 4 || c.most != 2 {
		t.Errorf("%d targets, %d at once", done.TargetCount, c.most)
	}
	in.Parameters["commands"], in.MaxConcurrency, in.MaxErrors = []string{"fail"}, aws.String("1"), aws.String("1")
	done = c.send(in, ssmtypes.CommandStatusFailed)
	list, err := c.ssm.ListCommandInvocations(t.Context(), &ssm.ListCommandInvocationsInput{CommandId: done.CommandId})
	if err != nil {
		t.Fatal(err)
	}
	details := ""
	for _, v := range slices.Backward(list.CommandInvocations) {
		details += *v.StatusDetails + " "
		if *v.InstanceName != "n" {
			t.Errorf("the instance's name is %q", *v.InstanceName)
		}
	}
	if details != "Failed Failed Terminated Terminated " || done.ErrorCount != 2 {
		t.Errorf("%d errors: %s", done.ErrorCount, details)
	}
	in.Parameters["commands"], in.MaxErrors = []string{"lost"}, aws.String("0")
	if lost := c.send(in, ssmtypes.CommandStatusFailed); *lost.StatusDetails != "Incomplete" || lost.ErrorCount != 0 || lost.CompletedCount != 4 {
		t.Errorf("on instances that end: %+v", lost)
	}
	in.Targets[0].Values, in.Parameters["commands"] = []string{"nobody"}, []string{"hello"}
	if none := c.send(in, ssmtypes.CommandStatusSuccess); *none.StatusDetails != "NoInstancesInTag" || none.TargetCount != 0 {
		t.Errorf("without targets: %+v", none)
	}

	// One runs while the others wait; one of those is cancelled, then all.
	in.Targets[0].Values, in.Parameters["commands"] = []string{"web"}, []string{"forever"}
	sent := c.send(in, ssmtypes.CommandStatusInProgress)
	for _, some := range [][]string{{ids[3]}, nil} {
		if _, err := c.ssm.CancelCommand(t.Context(), &ssm.CancelCommandInput{CommandId: sent.CommandId, InstanceIds: some}); err != nil {
			t.Fatal(err)
		}
	}
	done = c.until(*sent.CommandId, ssmtypes.CommandStatusCancelled)
	if v := c.invocation(*done.CommandId, ids[0]); v.Status != "Cancelled" || *v.StandardOutputContent != "begun" || done.CompletedCount != 4 {
		t.Errorf("cancelled: %+v", v)
	}
}

// TestRunCommandOutput stores the output in a bucket.
func TestRunCommandOutput(t *testing.T) {
	c := newCommands(t, t.TempDir())
	id := c.launch(1, true)[0]
	client := s3.NewFromConfig(c.Config("default", "us-east-1"), func(o *s3.Options) { o.UsePathStyle = true })
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("output")}); err != nil {
		t.Fatal(err)
	}
	in := shell("much", id)
	in.OutputS3BucketName, in.OutputS3KeyPrefix = aws.String("output"), aws.String("runs/")
	done := c.send(in, ssmtypes.CommandStatusSuccess)
	key := "runs/" + *done.CommandId + "/" + id + "/awsrunShellScript/0.awsrunShellScript/stdout"
	object, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("output"), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(object.Body)
	if err != nil || len(text) != 80001 {
		t.Errorf("%d bytes in the bucket, %v", len(text), err)
	}
	if v := c.invocation(*done.CommandId, id); !strings.HasSuffix(*v.StandardOutputUrl, "/output/"+key) || len(*v.StandardOutputContent) != 24000 {
		t.Errorf("the URL is %s", *v.StandardOutputUrl)
	}
}

// TestRunCommandEnds ends the instance, and then the cloud, during a command.
func TestRunCommandEnds(t *testing.T) {
	dir, killed := t.TempDir(), filepath.Join(t.TempDir(), "killed")
	var id, sent string
	t.Run("instance", func(t *testing.T) {
		c := newCommands(t, dir)
		id = c.launch(1, true)[0]
		ended := c.send(shell("forever", id), ssmtypes.CommandStatusInProgress)
		if _, err := c.ec2.StopInstances(t.Context(), &ec2.StopInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		c.until(*ended.CommandId, ssmtypes.CommandStatusFailed)
		if v := c.invocation(*ended.CommandId, id); *v.StatusDetails != "Undeliverable" || v.ResponseCode != -1 {
			t.Errorf("when its instance ended: %+v", v)
		}
		await(t, c.ec2, id, types.InstanceStateNameStopped)
		if _, err := c.ec2.StartInstances(t.Context(), &ec2.StartInstancesInput{InstanceIds: []string{id}}); err != nil {
			t.Fatal(err)
		}
		await(t, c.ec2, id, types.InstanceStateNameRunning)
		sent = *c.send(shell("forever", id), ssmtypes.CommandStatusInProgress).CommandId
		if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
	})
	for _, dir := range []string{dir, killed} {
		c := newCommands(t, dir)
		if v := c.invocation(sent, id); v.Status != "Failed" || *v.StatusDetails != "Undeliverable" {
			t.Errorf("after a restart: %+v", v)
		}
	}
}
