package cloud_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestAutoScaling checks that groups and launch configurations survive a restart, refer
// only to what exists, and belong to their account, and that a refresh takes time and
// changes its group.
func TestAutoScaling(t *testing.T) {
	var ahead atomic.Int64
	dir := t.TempDir()
	options := cloud.Options{Dir: dir, Delays: cloud.Delays{Launch: 10 * time.Second}, Clock: clock{now: func() time.Time { return time.Unix(1_800_000_000+ahead.Load(), 0) }}}
	group, zones := aws.String("web"), []string{"us-east-1a"}
	byName := &types.LaunchTemplateSpecification{LaunchTemplateName: aws.String("web")}
	var ami, template string
	t.Run("make", func(t *testing.T) {
		s := cloudtest.Start(t, options)
		machines, ctx := s.EC2("default", "us-east-1"), t.Context()
		client := autoscaling.NewFromConfig(s.Config("default", "us-east-1"))
		ami = source(t, machines)
		made, err := machines.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: group, LaunchTemplateData: requestData(ami)})
		if err != nil {
			t.Fatal(err)
		}
		template = *made.LaunchTemplate.LaunchTemplateId
		launch := func(name, image string) error {
			_, err := client.CreateLaunchConfiguration(ctx, &autoscaling.CreateLaunchConfigurationInput{LaunchConfigurationName: &name, ImageId: &image, InstanceType: aws.String("t3.micro")})
			return err
		}
		create := func(name string, change func(*autoscaling.CreateAutoScalingGroupInput)) error {
			in := &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: aws.Int32(0), MaxSize: aws.Int32(2), AvailabilityZones: zones}
			change(in)
			_, err := client.CreateAutoScalingGroup(ctx, in)
			return err
		}
		for i, test := range []struct {
			err  error
			want string
		}{
			{launch("old", ami), ""},
			{launch("old", ami), "AlreadyExists"},
			{launch("lost", "ami-0123456789abcdef0"), "ValidationError"},
			{create("web", func(in *autoscaling.CreateAutoScalingGroupInput) {
				in.LaunchTemplate = byName
				in.Tags = []types.Tag{{Key: aws.String("team"), Value: aws.String("web")}}
			}), ""},
			{create("web", func(in *autoscaling.CreateAutoScalingGroupInput) { in.LaunchTemplate = byName }), "AlreadyExists"},
			{create("nothing", func(*autoscaling.CreateAutoScalingGroupInput) {}), "ValidationError"},
			{create("nowhere", func(in *autoscaling.CreateAutoScalingGroupInput) {
				in.LaunchTemplate, in.AvailabilityZones = byName, nil
			}), "ValidationError"},
			{create("small", func(in *autoscaling.CreateAutoScalingGroupInput) {
				in.LaunchTemplate, in.DesiredCapacity = byName, aws.Int32(3)
			}), "ValidationError"},
			{create("lost", func(in *autoscaling.CreateAutoScalingGroupInput) {
				in.LaunchTemplate = &types.LaunchTemplateSpecification{LaunchTemplateId: &template, Version: aws.String("2")}
			}), "ValidationError"},
			{create("missing", func(in *autoscaling.CreateAutoScalingGroupInput) { in.LaunchConfigurationName = aws.String("missing") }), "ValidationError"},
			{create("old", func(in *autoscaling.CreateAutoScalingGroupInput) { in.LaunchConfigurationName = aws.String("old") }), ""},
			{create("mixed", func(in *autoscaling.CreateAutoScalingGroupInput) {
				in.MixedInstancesPolicy = &types.MixedInstancesPolicy{LaunchTemplate: &types.LaunchTemplate{LaunchTemplateSpecification: byName,
					Overrides: []types.LaunchTemplateOverrides{{InstanceType: aws.String("t3.micro"), ImageId: &ami}, {InstanceType: aws.String("t3.small"), LaunchTemplateSpecification: byName}}}}
			}), ""},
		} {
			if code(test.err) != test.want {
				t.Errorf("%d: %v, want %q", i, test.err, test.want)
			}
		}
		if _, err := client.DeleteLaunchConfiguration(ctx, &autoscaling.DeleteLaunchConfigurationInput{LaunchConfigurationName: aws.String("old")}); code(err) != "ResourceInUse" {
			t.Errorf("delete a launch configuration in use: %v", err)
		}
		for profile, want := range map[string]int{"default": 3, "other": 0} {
			out, err := autoscaling.NewFromConfig(s.Config(profile, "us-east-1")).DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{})
			if err != nil || len(out.AutoScalingGroups) != want {
				t.Errorf("%s: %v, %v; want %d groups", profile, out, err, want)
			}
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		s := cloudtest.Start(t, options)
		ctx := t.Context()
		client := endpointClient(t, s)
		old, err := client.DescribeLaunchConfigurations(ctx, &autoscaling.DescribeLaunchConfigurationsInput{})
		if err != nil || len(old.LaunchConfigurations) != 1 || *old.LaunchConfigurations[0].ImageId != ami {
			t.Errorf("launch configurations: %v, %v", old, err)
		}
		pages := autoscaling.NewDescribeAutoScalingGroupsPaginator(client, &autoscaling.DescribeAutoScalingGroupsInput{MaxRecords: aws.Int32(2)})
		var names []string
		for pages.HasMorePages() {
			out, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range out.AutoScalingGroups {
				names = append(names, *g.AutoScalingGroupName)
			}
		}
		if fmt.Sprint(names) != "[mixed old web]" {
			t.Errorf("groups %v", names)
		}
		tagged, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{Filters: []types.Filter{{Name: aws.String("tag:team"), Values: []string{"web"}}}})
		if err != nil || len(tagged.AutoScalingGroups) != 1 || *tagged.AutoScalingGroups[0].LaunchTemplate.LaunchTemplateId != template {
			t.Fatalf("groups by tag: %v, %v", tagged, err)
		}
		mixed, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"mixed", "missing"}})
		if err != nil || len(mixed.AutoScalingGroups) != 1 {
			t.Fatalf("groups by name: %v, %v", mixed, err)
		}
		policy := mixed.AutoScalingGroups[0].MixedInstancesPolicy.LaunchTemplate
		if *policy.Overrides[0].ImageId != ami || *policy.Overrides[1].LaunchTemplateSpecification.LaunchTemplateId != template || *policy.LaunchTemplateSpecification.LaunchTemplateName != "web" {
			t.Errorf("the policy is %+v", policy)
		}

		refreshes(t, client, s.EC2("default", "us-east-1"), &ahead, template)
		_, err = client.UpdateAutoScalingGroup(ctx, &autoscaling.UpdateAutoScalingGroupInput{AutoScalingGroupName: group, LaunchConfigurationName: aws.String("old"), MaxSize: aws.Int32(5)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"web"}})
		if err != nil || out.AutoScalingGroups[0].LaunchTemplate != nil || *out.AutoScalingGroups[0].MaxSize != 5 {
			t.Errorf("the updated group: %+v, %v", out, err)
		}
		for _, want := range []string{"", "ValidationError"} {
			if _, err := client.DeleteAutoScalingGroup(ctx, &autoscaling.DeleteAutoScalingGroupInput{AutoScalingGroupName: group}); code(err) != want {
				t.Errorf("delete the group: %v, want %q", err, want)
			}
		}
	})
}

// endpointClient finds the service as users do, by the environment variable.
func endpointClient(t *testing.T, s *cloudtest.Server) *autoscaling.Client {
	t.Helper()
	t.Setenv("AWS_ENDPOINT_URL_AUTO_SCALING", s.URL)
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", s.CredentialsFile())
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_CA_BUNDLE", "")
	c, err := config.LoadDefaultConfig(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return autoscaling.NewFromConfig(c, func(o *autoscaling.Options) { o.HTTPClient = s.Config("default", "us-east-1").HTTPClient })
}

// refreshes refreshes the group web to a new version of its template.
func refreshes(t *testing.T, client *autoscaling.Client, machines *ec2.Client, ahead *atomic.Int64, template string) {
	t.Helper()
	ctx, group := context.WithoutCancel(t.Context()), aws.String("web")
	if _, err := machines.CreateLaunchTemplateVersion(ctx, &ec2.CreateLaunchTemplateVersionInput{LaunchTemplateId: &template, LaunchTemplateData: requestData("resolve:ssm:/missing")}); err != nil {
		t.Fatal(err)
	}
	start := func(version string, rollback bool) error {
		in := &autoscaling.StartInstanceRefreshInput{AutoScalingGroupName: group, Preferences: &types.RefreshPreferences{AutoRollback: &rollback}}
		if version != "" {
			in.DesiredConfiguration = &types.DesiredConfiguration{LaunchTemplate: &types.LaunchTemplateSpecification{LaunchTemplateId: &template, Version: &version}}
		}
		_, err := client.StartInstanceRefresh(ctx, in)
		return err
	}
	for i, test := range []struct {
		err  error
		want string
	}{
		{start("", true), "ValidationError"},
		{start("$Latest", true), "ValidationError"},
		{start("2", false), "ValidationError"}, // the template's parameter does not exist
		{start("1", true), ""},
		{start("1", false), "InstanceRefreshInProgress"},
	} {
		if code(test.err) != test.want {
			t.Errorf("refresh %d: %v, want %q", i, test.err, test.want)
		}
	}
	for _, step := range []struct {
		second int64
		want   types.InstanceRefreshStatus
	}{{0, types.InstanceRefreshStatusPending}, {5, types.InstanceRefreshStatusInProgress}, {11, types.InstanceRefreshStatusSuccessful}} {
		ahead.Store(step.second)
		out, err := client.DescribeInstanceRefreshes(ctx, &autoscaling.DescribeInstanceRefreshesInput{AutoScalingGroupName: group})
		if err != nil || len(out.InstanceRefreshes) != 1 || out.InstanceRefreshes[0].Status != step.want {
			t.Errorf("after %d s: %+v, %v; want %s", step.second, out, err, step.want)
		}
	}
	out, err := client.DescribeAutoScalingGroups(ctx, &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"web"}})
	if err != nil || aws.ToString(out.AutoScalingGroups[0].LaunchTemplate.Version) != "1" {
		t.Errorf("the refreshed group: %+v, %v", out, err)
	}
	if err := start("", false); err != nil {
		t.Errorf("a refresh after the first: %v", err)
	}
}
