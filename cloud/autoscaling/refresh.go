package autoscaling

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/uuid"

	"bake/cloud/api/autoscaling"
	"bake/cloud/wire"
)

const (
	// pendingFor is how long a refresh is pending, even if all delays are zero: callers must not
	// rely on a refresh being complete at once.
	pendingFor = 500 * time.Millisecond
	// keptFor is how long Auto Scaling lists a refresh.
	keptFor = 42 * 24 * time.Hour
)

// status returns the current status of a refresh, which depends only on the time since its start.
func (s *state) status(r *refresh) autoscaling.InstanceRefreshStatus {
	switch passed := s.opts.Now().Sub(*r.StartTime); {
	case passed < pendingFor:
		return autoscaling.InstanceRefreshStatusPending
	case passed < pendingFor+s.opts.Refresh:
		return autoscaling.InstanceRefreshStatusInProgress
	}
	return autoscaling.InstanceRefreshStatusSuccessful
}

// refreshesOf returns the refreshes of a group.
func (s *state) refreshesOf(c wire.Caller, name string) (out []*refresh) {
	for _, r := range s.refreshes.All() {
		if r.Account == c.Account && r.Region == c.Region && *r.AutoScalingGroupName == name {
			out = append(out, r)
		}
	}
	return out
}

// settle applies the configurations of completed refreshes to their groups and deletes refreshes
// older than keptFor.
func (s *state) settle() (err error) {
	for _, id := range s.refreshes.IDs() {
		r := s.refreshes.Rows[id]
		switch {
		case s.opts.Now().Sub(*r.StartTime) > keptFor:
			err = errors.Join(err, s.refreshes.Drop(id))
		case !r.Applied && s.status(r) == autoscaling.InstanceRefreshStatusSuccessful:
			err = errors.Join(err, s.apply(r), s.refreshes.Edit(id, func(r *refresh) { r.Applied = true }))
		}
	}
	return err
}

// apply sets the configuration of a group to the desired configuration of its refresh.
func (s *state) apply(r *refresh) error {
	want := r.DesiredConfiguration
	if want == nil {
		return nil
	}
	_, id, err := s.find(wire.Caller{Account: r.Account, Region: r.Region}, *r.AutoScalingGroupName)
	if err != nil {
		return err
	}
	return s.groups.Edit(id, func(g *group) {
		g.LaunchTemplate, g.MixedInstancesPolicy, g.LaunchConfigurationName = want.LaunchTemplate, want.MixedInstancesPolicy, nil
	})
}

// StartInstanceRefresh records a refresh. No instances are replaced, since groups have none. A
// group can have one refresh at a time.
func (s *Service) StartInstanceRefresh(ctx context.Context, in *autoscaling.StartInstanceRefreshInput) (*autoscaling.StartInstanceRefreshOutput, error) {
	c, name := wire.CallerFrom(ctx), aws.ToString(in.AutoScalingGroupName)
	p, err := preferences(in)
	if err != nil {
		return nil, err
	}
	var specs []*autoscaling.LaunchTemplateSpecification
	err = s.guarded.Update(func(st *state) error {
		if err := st.settle(); err != nil {
			return err
		}
		g, _, err := st.find(c, name)
		if err != nil {
			return err
		}
		for _, spec := range specsOf(g.LaunchTemplate, g.MixedInstancesPolicy) {
			specs = append(specs, &autoscaling.LaunchTemplateSpecification{LaunchTemplateId: spec.LaunchTemplateId, Version: spec.Version})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if want := in.DesiredConfiguration; want != nil {
		if (want.LaunchTemplate == nil) == (want.MixedInstancesPolicy == nil) {
			return nil, invalid("The desired configuration must contain either a launch template or a mixed instances policy.")
		}
		specs = specsOf(want.LaunchTemplate, want.MixedInstancesPolicy)
		if err := s.checkTemplates(ctx, specs, false); err != nil {
			return nil, err
		}
	}
	if err := s.checkTemplates(ctx, specs, true); err != nil { // the image ids must be resolvable now
		return nil, err
	}
	row := &refresh{Account: c.Account, Region: c.Region, InstanceRefresh: autoscaling.InstanceRefresh{
		InstanceRefreshId: aws.String(uuid.NewString()), AutoScalingGroupName: &name, StartTime: aws.Time(s.opts.Now().UTC()),
		Preferences: p, DesiredConfiguration: in.DesiredConfiguration, Strategy: autoscaling.RefreshStrategyRolling,
	}}
	if in.Strategy != "" {
		row.Strategy = in.Strategy
	}
	return &autoscaling.StartInstanceRefreshOutput{InstanceRefreshId: row.InstanceRefreshId}, s.guarded.Update(func(st *state) error {
		if _, _, err := st.find(c, name); err != nil {
			return err
		}
		for _, other := range st.refreshesOf(c, name) {
			if st.status(other) != autoscaling.InstanceRefreshStatusSuccessful {
				return wire.Errorf("InstanceRefreshInProgress", "An Instance Refresh is already in progress and blocks the execution of this Instance Refresh.")
			}
		}
		return st.refreshes.Put(*row.InstanceRefreshId, row)
	})
}

// preferences returns the preferences of a request, with Auto Scaling's defaults.
func preferences(in *autoscaling.StartInstanceRefreshInput) (*autoscaling.RefreshPreferences, error) {
	p := autoscaling.RefreshPreferences{}
	if in.Preferences != nil {
		p = *in.Preferences
	}
	if p.MinHealthyPercentage == nil {
		p.MinHealthyPercentage = aws.Int32(90)
	}
	if p.MaxHealthyPercentage == nil {
		p.MaxHealthyPercentage = aws.Int32(100)
	}
	if p.SkipMatching == nil {
		p.SkipMatching = aws.Bool(false)
	}
	if p.AutoRollback == nil {
		p.AutoRollback = aws.Bool(false)
	}
	least, most := *p.MinHealthyPercentage, *p.MaxHealthyPercentage
	switch {
	case least < 0 || least > 100:
		return nil, invalid("1 validation error detected: Value '%d' at 'preferences.minHealthyPercentage' failed to satisfy constraint: it must be between 0 and 100", least)
	case most < 100 || most > 200:
		return nil, invalid("1 validation error detected: Value '%d' at 'preferences.maxHealthyPercentage' failed to satisfy constraint: it must be between 100 and 200", most)
	case most-least > 100:
		return nil, invalid("The difference between MinHealthyPercentage and MaxHealthyPercentage cannot be greater than 100.")
	}
	if *p.AutoRollback {
		want := in.DesiredConfiguration
		if want == nil {
			return nil, invalid("AutoRollback requires a desired configuration.")
		}
		for _, spec := range specsOf(want.LaunchTemplate, want.MixedInstancesPolicy) {
			if v := aws.ToString(spec.Version); v == "" || v == "$Latest" || v == "$Default" {
				return nil, invalid("AutoRollback requires a desired configuration with a numeric launch template version.")
			}
		}
	}
	return &p, nil
}

// DescribeInstanceRefreshes lists the refreshes of a group, newest first.
func (s *state) DescribeInstanceRefreshes(ctx context.Context, in *autoscaling.DescribeInstanceRefreshesInput) (*autoscaling.DescribeInstanceRefreshesOutput, error) {
	if err := s.settle(); err != nil {
		return nil, err
	}
	c := wire.CallerFrom(ctx)
	if _, _, err := s.find(c, aws.ToString(in.AutoScalingGroupName)); err != nil {
		return nil, err
	}
	var rows []autoscaling.InstanceRefresh
	for _, r := range s.refreshesOf(c, *in.AutoScalingGroupName) {
		if len(in.InstanceRefreshIds) == 0 || slices.Contains(in.InstanceRefreshIds, *r.InstanceRefreshId) {
			rows = append(rows, s.shown(r))
		}
	}
	key := func(r autoscaling.InstanceRefresh) string {
		return fmt.Sprintf("%019d %s", math.MaxInt64-r.StartTime.UnixNano(), *r.InstanceRefreshId)
	}
	rows, next, err := pageOf(rows, key, nil, in.MaxRecords, in.NextToken)
	return &autoscaling.DescribeInstanceRefreshesOutput{InstanceRefreshes: rows, NextToken: next}, err
}

// shown returns a refresh with its current status.
func (s *state) shown(r *refresh) autoscaling.InstanceRefresh {
	out := r.InstanceRefresh
	out.InstancesToUpdate, out.PercentageComplete = aws.Int32(0), aws.Int32(0)
	if out.Status = s.status(r); out.Status == autoscaling.InstanceRefreshStatusSuccessful {
		out.PercentageComplete, out.EndTime = aws.Int32(100), aws.Time(r.StartTime.Add(pendingFor+s.opts.Refresh))
	}
	return out
}
