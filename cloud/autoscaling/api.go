package autoscaling

import (
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// actions returns the actions that the service answers; wire/genmodel reads them from here.
func (s *Service) actions() wire.Actions {
	return wire.Actions{
		"CreateAutoScalingGroup":       wire.Answer(s.CreateAutoScalingGroup),
		"CreateLaunchConfiguration":    wire.Answer(s.CreateLaunchConfiguration),
		"DeleteAutoScalingGroup":       wire.Answer(durable.Action(s.guarded, (*state).DeleteAutoScalingGroup)),
		"DeleteLaunchConfiguration":    wire.Answer(durable.Action(s.guarded, (*state).DeleteLaunchConfiguration)),
		"DescribeAutoScalingGroups":    wire.Answer(durable.Action(s.guarded, (*state).DescribeAutoScalingGroups)),
		"DescribeInstanceRefreshes":    wire.Answer(durable.Action(s.guarded, (*state).DescribeInstanceRefreshes)),
		"DescribeLaunchConfigurations": wire.Answer(durable.Action(s.guarded, (*state).DescribeLaunchConfigurations)),
		"StartInstanceRefresh":         wire.Answer(s.StartInstanceRefresh),
		"UpdateAutoScalingGroup":       wire.Answer(s.UpdateAutoScalingGroup),
	}
}
