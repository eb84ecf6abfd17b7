package autoscaling

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud/api/autoscaling"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// CreateLaunchConfiguration creates a launch configuration. Launch configurations are immutable.
func (s *Service) CreateLaunchConfiguration(ctx context.Context, in *autoscaling.CreateLaunchConfigurationInput) (*autoscaling.CreateLaunchConfigurationOutput, error) {
	c, name := wire.CallerFrom(ctx), aws.ToString(in.LaunchConfigurationName)
	if err := checkName("launchConfigurationName", name); err != nil {
		return nil, err
	}
	switch {
	case in.InstanceId != nil:
		return nil, invalid("The embedded cloud cannot create launch configurations from instances: specify an ImageId and an InstanceType.")
	case aws.ToString(in.ImageId) == "" || aws.ToString(in.InstanceType) == "":
		return nil, invalid("Valid requests must contain either the InstanceID parameter or both the ImageId and InstanceType parameters.")
	}
	if _, err := s.opts.EC2.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*in.ImageId}}); err != nil {
		return nil, invalid("Invalid AMI %s: %s", *in.ImageId, wire.AsError(err).Message)
	}
	row := &configuration{Account: c.Account, Region: c.Region}
	if err := recast(in, &row.LaunchConfiguration); err != nil {
		return nil, err
	}
	row.CreatedTime, row.LaunchConfigurationARN = aws.Time(s.opts.Now().UTC()), arn(c, "launchConfiguration", name)
	if row.InstanceMonitoring == nil {
		row.InstanceMonitoring = &autoscaling.InstanceMonitoring{Enabled: aws.Bool(true)}
	}
	if row.EbsOptimized == nil {
		row.EbsOptimized = aws.Bool(false)
	}
	return &autoscaling.CreateLaunchConfigurationOutput{}, s.guarded.Update(func(st *state) error {
		id := durable.NameID(c.Account, c.Region, name)
		if _, ok := st.configurations.Get(id); ok {
			return wire.Errorf("AlreadyExists", "Launch Configuration by this name already exists - A launch configuration already exists with the name %s", name)
		}
		return st.configurations.Put(id, row)
	})
}

// DeleteLaunchConfiguration deletes a launch configuration that no group uses.
func (s *state) DeleteLaunchConfiguration(ctx context.Context, in *autoscaling.DeleteLaunchConfigurationInput) (*autoscaling.DeleteLaunchConfigurationOutput, error) {
	c, name := wire.CallerFrom(ctx), aws.ToString(in.LaunchConfigurationName)
	id := durable.NameID(c.Account, c.Region, name)
	if _, ok := s.configurations.Get(id); !ok {
		return nil, invalid("Launch configuration name not found - Launch configuration %s not found", name)
	}
	for _, g := range s.groupsOf(c) {
		if aws.ToString(g.LaunchConfigurationName) == name {
			return nil, wire.Errorf("ResourceInUse", "Cannot delete launch configuration %s because it is attached to AutoScalingGroup %s", name, *g.AutoScalingGroupName)
		}
	}
	return &autoscaling.DeleteLaunchConfigurationOutput{}, s.configurations.Drop(id)
}

// DescribeLaunchConfigurations lists the caller's launch configurations, or only those that the
// request names. Unknown names are ignored.
func (s *state) DescribeLaunchConfigurations(ctx context.Context, in *autoscaling.DescribeLaunchConfigurationsInput) (*autoscaling.DescribeLaunchConfigurationsOutput, error) {
	c := wire.CallerFrom(ctx)
	var rows []autoscaling.LaunchConfiguration
	for _, row := range s.configurations.Rows {
		if row.Account == c.Account && row.Region == c.Region {
			rows = append(rows, row.LaunchConfiguration)
		}
	}
	rows, next, err := pageOf(rows, func(l autoscaling.LaunchConfiguration) string { return *l.LaunchConfigurationName }, in.LaunchConfigurationNames, in.MaxRecords, in.NextToken)
	return &autoscaling.DescribeLaunchConfigurationsOutput{LaunchConfigurations: rows, NextToken: next}, err
}
