package ec2

import (
	"cmp"
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// RequestSpotInstances launches spot instances and returns the requests that they fulfil,
// shown as open. If an instance cannot be launched, the call fails at once: no request
// waits for capacity.
func (s *Service) RequestSpotInstances(ctx context.Context, in *ec2.RequestSpotInstancesInput) (*ec2.RequestSpotInstancesOutput, error) {
	if err := unsupported(in, "AvailabilityZoneGroup", "BlockDurationMinutes", "LaunchGroup", "ValidFrom", "ValidUntil"); err != nil {
		return nil, err
	}
	spec := in.LaunchSpecification
	count := int32(1)
	if in.InstanceCount != nil {
		count = *in.InstanceCount
	}
	switch {
	case spec == nil:
		return nil, missing("LaunchSpecification")
	case cmp.Or(in.Type, types.SpotInstanceTypeOneTime) != types.SpotInstanceTypeOneTime:
		return nil, wire.Errorf("Unsupported", "The embedded cloud supports only Spot requests of the type one-time.")
	case in.InstanceInterruptionBehavior != "" && in.InstanceInterruptionBehavior != types.InstanceInterruptionBehaviorTerminate:
		return nil, wire.Errorf("Unsupported", "The embedded cloud can only terminate Spot Instances that it interrupts.")
	}
	launch := &ec2.RunInstancesInput{MinCount: &count, MaxCount: &count, DryRun: in.DryRun, ClientToken: in.ClientToken, SecurityGroups: spec.SecurityGroups,
		InstanceMarketOptions: &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot, SpotOptions: &types.SpotMarketOptions{MaxPrice: in.SpotPrice}},
		TagSpecifications:     in.TagSpecifications}
	copyFields(launch, *spec)
	if spec.Monitoring != nil {
		launch.Monitoring = spec.Monitoring
	}
	if p := spec.Placement; p != nil {
		launch.Placement = &types.Placement{AvailabilityZone: p.AvailabilityZone, GroupName: p.GroupName, Tenancy: p.Tenancy}
	}
	if p := spec.IamInstanceProfile; p != nil {
		launch.IamInstanceProfile = p
	}
	if _, err := tagsFor(in.TagSpecifications, kindSpot.resource); err != nil {
		return nil, err
	}
	made, err := s.run(ctx, "RequestSpotInstances", launch, nil)
	if err != nil {
		return nil, err
	}
	out := &ec2.RequestSpotInstancesOutput{SpotInstanceRequests: []types.SpotInstanceRequest{}}
	c := wire.CallerFrom(ctx)
	return out, s.update(func(st *state) error {
		for _, r := range st.spots.of(c) {
			if !slices.ContainsFunc(made.Instances, func(i types.Instance) bool { return *i.InstanceId == aws.ToString(r.InstanceId) }) {
				continue
			}
			err := st.spots.Edit(*r.SpotInstanceRequestId, func(r *spotRequest) {
				r.LaunchSpecification = &types.LaunchSpecification{}
				copyFields(r.LaunchSpecification, *spec)
				r.LaunchSpecification.UserData = nil // EC2 omits it too
			})
			if err != nil {
				return err
			}
			v := r.SpotInstanceRequest
			v.State, v.InstanceId = types.SpotInstanceStateOpen, nil
			v.Status = &types.SpotInstanceStatus{Code: aws.String("pending-evaluation"), Message: aws.String("Your Spot request has been submitted for review, and is pending evaluation."), UpdateTime: r.CreateTime}
			out.SpotInstanceRequests = append(out.SpotInstanceRequests, v)
		}
		return nil
	})
}
