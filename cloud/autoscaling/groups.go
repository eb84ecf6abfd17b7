package autoscaling

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud/api/autoscaling"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// groupsOf returns the caller's groups.
func (s *state) groupsOf(c wire.Caller) (out []*group) {
	for _, g := range s.groups.All() {
		if g.Account == c.Account && g.Region == c.Region {
			out = append(out, g)
		}
	}
	return out
}

// find returns the caller's group with that name, and its id.
func (s *state) find(c wire.Caller, name string) (*group, string, error) {
	id := durable.NameID(c.Account, c.Region, name)
	if g, ok := s.groups.Get(id); ok {
		return g, id, nil
	}
	return nil, "", invalid("AutoScalingGroup name not found - AutoScalingGroup '%s' not found", name)
}

// CreateAutoScalingGroup stores a group. It launches no instances.
func (s *Service) CreateAutoScalingGroup(ctx context.Context, in *autoscaling.CreateAutoScalingGroupInput) (*autoscaling.CreateAutoScalingGroupOutput, error) {
	c, name := wire.CallerFrom(ctx), aws.ToString(in.AutoScalingGroupName)
	if err := checkName("autoScalingGroupName", name); err != nil {
		return nil, err
	}
	if in.InstanceId != nil {
		return nil, invalid("The embedded cloud cannot create groups from instances: specify a LaunchTemplate, a MixedInstancesPolicy or a LaunchConfigurationName.")
	}
	if aws.ToString(in.VPCZoneIdentifier) == "" && len(in.AvailabilityZones)+len(in.AvailabilityZoneIds) == 0 {
		return nil, invalid("At least one Availability Zone or VPC Subnet is required.")
	}
	row := &group{Account: c.Account, Region: c.Region, AutoScalingGroup: autoscaling.AutoScalingGroup{
		DefaultCooldown: aws.Int32(300), HealthCheckType: aws.String("EC2"), HealthCheckGracePeriod: aws.Int32(0),
		NewInstancesProtectedFromScaleIn: aws.Bool(false), TerminationPolicies: []string{"Default"},
		ServiceLinkedRoleARN: aws.String("arn:aws:iam::" + c.Account + ":role/aws-service-role/autoscaling.amazonaws.com/AWSServiceRoleForAutoScaling"),
	}}
	if err := recast(in, &row.AutoScalingGroup); err != nil {
		return nil, err
	}
	row.CreatedTime, row.AutoScalingGroupARN = aws.Time(s.opts.Now().UTC()), arn(c, "autoScalingGroup", name)
	if row.DesiredCapacity == nil {
		row.DesiredCapacity = row.MinSize
	}
	for i := range row.Tags {
		t := &row.Tags[i]
		t.ResourceId, t.ResourceType = &name, aws.String("auto-scaling-group")
		if t.PropagateAtLaunch == nil {
			t.PropagateAtLaunch = aws.Bool(false)
		}
	}
	sort.Slice(row.Tags, func(i, j int) bool { return aws.ToString(row.Tags[i].Key) < aws.ToString(row.Tags[j].Key) })
	if err := s.checkTemplates(ctx, specsOf(row.LaunchTemplate, row.MixedInstancesPolicy), false); err != nil {
		return nil, err
	}
	return &autoscaling.CreateAutoScalingGroupOutput{}, s.guarded.Update(func(st *state) error {
		id := durable.NameID(c.Account, c.Region, name)
		if _, ok := st.groups.Get(id); ok {
			return wire.Errorf("AlreadyExists", "AutoScalingGroup by this name already exists - A group with the name %s already exists", name)
		}
		if err := st.check(row); err != nil {
			return err
		}
		return st.groups.Put(id, row)
	})
}

// UpdateAutoScalingGroup changes the fields that the request sets. A group has exactly one of
// launch template, mixed instances policy and launch configuration, so setting one clears the
// others.
func (s *Service) UpdateAutoScalingGroup(ctx context.Context, in *autoscaling.UpdateAutoScalingGroupInput) (*autoscaling.UpdateAutoScalingGroupOutput, error) {
	if err := s.checkTemplates(ctx, specsOf(in.LaunchTemplate, in.MixedInstancesPolicy), false); err != nil {
		return nil, err
	}
	sources := 0
	for _, given := range []bool{in.LaunchTemplate != nil, in.MixedInstancesPolicy != nil, in.LaunchConfigurationName != nil} {
		if given {
			sources++
		}
	}
	return &autoscaling.UpdateAutoScalingGroupOutput{}, s.guarded.Update(func(st *state) error {
		_, id, err := st.find(wire.CallerFrom(ctx), aws.ToString(in.AutoScalingGroupName))
		if err != nil {
			return err
		}
		return st.groups.Change(id, func(g *group) error {
			if sources > 0 {
				g.LaunchTemplate, g.MixedInstancesPolicy, g.LaunchConfigurationName = nil, nil, nil
			}
			if err := recast(in, &g.AutoScalingGroup); err != nil {
				return err
			}
			if in.DesiredCapacity == nil { // keep it within the bounds
				g.DesiredCapacity = aws.Int32(min(max(*g.DesiredCapacity, *g.MinSize), *g.MaxSize))
			}
			return st.check(g)
		})
	})
}

// check reports an invalid group.
func (s *state) check(g *group) error {
	sources := 0
	for _, given := range []bool{g.LaunchTemplate != nil, g.MixedInstancesPolicy != nil, g.LaunchConfigurationName != nil} {
		if given {
			sources++
		}
	}
	least, most, want := *g.MinSize, *g.MaxSize, *g.DesiredCapacity
	switch {
	case sources != 1:
		return invalid("Valid requests must contain either LaunchTemplate, LaunchConfigurationName, InstanceId or MixedInstancesPolicy parameter.")
	case least < 0:
		return invalid("Min bound, %d, must be greater than or equal to 0", least)
	case least > most:
		return invalid("Max bound, %d, must be greater than or equal to min bound, %d", most, least)
	case want < least || want > most:
		return invalid("Desired capacity:%d must be between the specified min size:%d and max size:%d", want, least, most)
	case g.MixedInstancesPolicy != nil && (g.MixedInstancesPolicy.LaunchTemplate == nil || g.MixedInstancesPolicy.LaunchTemplate.LaunchTemplateSpecification == nil):
		return invalid("A launch template must be specified in the mixed instances policy.")
	case g.LaunchConfigurationName != nil:
		if _, ok := s.configurations.Get(durable.NameID(g.Account, g.Region, *g.LaunchConfigurationName)); !ok {
			return invalid("Launch configuration name not found - A launch configuration with the name: %s does not exist", *g.LaunchConfigurationName)
		}
	}
	return nil
}

// specsOf returns the launch templates that a group refers to.
func specsOf(template *autoscaling.LaunchTemplateSpecification, mixed *autoscaling.MixedInstancesPolicy) (out []*autoscaling.LaunchTemplateSpecification) {
	if template != nil {
		out = append(out, template)
	}
	if mixed == nil || mixed.LaunchTemplate == nil {
		return out
	}
	if spec := mixed.LaunchTemplate.LaunchTemplateSpecification; spec != nil {
		out = append(out, spec)
	}
	for _, o := range mixed.LaunchTemplate.Overrides {
		if o.LaunchTemplateSpecification != nil {
			out = append(out, o.LaunchTemplateSpecification)
		}
	}
	return out
}

// checkTemplates reports launch templates that do not exist and, if resolve is set, those whose
// image ids cannot be resolved. It completes the ids and names in specs.
func (s *Service) checkTemplates(ctx context.Context, specs []*autoscaling.LaunchTemplateSpecification, resolve bool) error {
	for _, spec := range specs {
		if (aws.ToString(spec.LaunchTemplateId) == "") == (aws.ToString(spec.LaunchTemplateName) == "") && !resolve {
			return invalid("Valid requests must contain either launchTemplateId or LaunchTemplateName")
		}
		in := &ec2.DescribeLaunchTemplateVersionsInput{LaunchTemplateId: spec.LaunchTemplateId, Versions: []string{cmp.Or(aws.ToString(spec.Version), "$Default")}, ResolveAlias: &resolve}
		if spec.LaunchTemplateId == nil {
			in.LaunchTemplateName = spec.LaunchTemplateName
		}
		out, err := s.opts.EC2.DescribeLaunchTemplateVersions(ctx, in)
		if err != nil {
			return invalid("You must use a valid fully-formed launch template. %s", wire.AsError(err).Message)
		}
		v := out.LaunchTemplateVersions[0]
		spec.LaunchTemplateId, spec.LaunchTemplateName = v.LaunchTemplateId, v.LaunchTemplateName
	}
	return nil
}

// DeleteAutoScalingGroup deletes a group and its refreshes, unless deletion protection prevents it.
func (s *state) DeleteAutoScalingGroup(ctx context.Context, in *autoscaling.DeleteAutoScalingGroupInput) (*autoscaling.DeleteAutoScalingGroupOutput, error) {
	c := wire.CallerFrom(ctx)
	g, id, err := s.find(c, aws.ToString(in.AutoScalingGroupName))
	if err != nil {
		return nil, err
	}
	if p := g.DeletionProtection; p == autoscaling.DeletionProtectionPreventAllDeletion || p == autoscaling.DeletionProtectionPreventForceDeletion && aws.ToBool(in.ForceDelete) {
		return nil, wire.Errorf("ResourceInUse", "The AutoScalingGroup %s cannot be deleted: its deletion protection is %s.", *g.AutoScalingGroupName, p)
	}
	for _, r := range s.refreshesOf(c, *g.AutoScalingGroupName) {
		if err := s.refreshes.Drop(*r.InstanceRefreshId); err != nil {
			return nil, err
		}
	}
	return &autoscaling.DeleteAutoScalingGroupOutput{}, s.groups.Drop(id)
}

// DescribeAutoScalingGroups lists the caller's groups that match the filters, or only those that
// the request names. Unknown names are ignored.
func (s *state) DescribeAutoScalingGroups(ctx context.Context, in *autoscaling.DescribeAutoScalingGroupsInput) (*autoscaling.DescribeAutoScalingGroupsOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := s.settle(); err != nil {
		return nil, err
	}
	var rows []autoscaling.AutoScalingGroup
	for _, g := range s.groupsOf(c) {
		ok := true
		for _, f := range in.Filters {
			matches, err := admits(f, g.Tags)
			if err != nil {
				return nil, err
			}
			ok = ok && matches
		}
		if ok {
			shown := g.AutoScalingGroup
			shown.Instances = []autoscaling.Instance{}
			rows = append(rows, shown)
		}
	}
	rows, next, err := pageOf(rows, func(g autoscaling.AutoScalingGroup) string { return *g.AutoScalingGroupName }, in.AutoScalingGroupNames, in.MaxRecords, in.NextToken)
	return &autoscaling.DescribeAutoScalingGroupsOutput{AutoScalingGroups: rows, NextToken: next}, err
}

// admits reports whether one of a group's tags matches the filter.
func admits(f autoscaling.Filter, tags []autoscaling.TagDescription) (bool, error) {
	name := aws.ToString(f.Name)
	key, byKey := strings.CutPrefix(name, "tag:")
	if !byKey && name != "tag-key" && name != "tag-value" {
		return false, invalid("Filter type %s is not correct. Allowed Filter types are: tag-key tag-value tag:<key>", name)
	}
	return slices.ContainsFunc(tags, func(t autoscaling.TagDescription) bool {
		if name == "tag-key" {
			return slices.Contains(f.Values, aws.ToString(t.Key))
		}
		return (!byKey || aws.ToString(t.Key) == key) && slices.Contains(f.Values, aws.ToString(t.Value))
	}), nil
}
