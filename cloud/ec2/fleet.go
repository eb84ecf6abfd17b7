package ec2

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sort"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// spotRequest is the one-time request that a spot instance fulfils.
type spotRequest struct {
	Region  string
	Account string
	types.SpotInstanceRequest
}

// fleet is a fleet of type instant that has launched what it could. Fleets requested
// without a client token are not stored.
type fleet struct {
	ID        string
	Region    string
	Account   string
	Token     string // the request's client token; Request is its fingerprint
	Request   string
	Errors    []types.CreateFleetError
	Instances []types.CreateFleetInstance
}

// CreateFleet launches the instances of a fleet of type instant at once. It tries the
// pools (combinations of instance type and zone or subnet) in order of priority, then in
// the given order. Errors of a pool are listed in the answer. A request whose client token
// was used before launches nothing and gets the same answer again.
func (s *Service) CreateFleet(ctx context.Context, in *ec2.CreateFleetInput) (*ec2.CreateFleetOutput, error) {
	c := wire.CallerFrom(ctx)
	if in.Type != types.FleetTypeInstant {
		return nil, wire.Errorf("Unsupported", "The embedded cloud supports only fleets of the type instant.")
	}
	if _, err := tagsFor(in.TagSpecifications, "fleet", kindInstance.resource, kindVolume.resource); err != nil {
		return nil, err
	}
	target := aws.ToInt32(in.TargetCapacitySpecification.TotalTargetCapacity)
	if target < 1 || target > 100 {
		return nil, wire.Errorf("InvalidTargetCapacitySpecification", "The total target capacity must be from 1 to 100, not %d.", target)
	}
	s.launchingFleet.Lock()
	defer s.launchingFleet.Unlock()
	out, err := try(s, func(st *state) (*ec2.CreateFleetOutput, error) { return st.repeatedFleet(c, in) })
	if out != nil || err != nil {
		return out, err
	}
	if out, err = s.launchFleet(ctx, in, target); err != nil || aws.ToString(in.ClientToken) == "" {
		return out, err
	}
	return out, s.update(func(st *state) error {
		return st.fleets.Put(*out.FleetId, &fleet{*out.FleetId, c.Region, c.Account, *in.ClientToken, fingerprint(in), out.Errors, out.Instances})
	})
}

// repeatedFleet returns the answer to a request whose client token was seen before, or nil.
func (s *state) repeatedFleet(c wire.Caller, in *ec2.CreateFleetInput) (*ec2.CreateFleetOutput, error) {
	token := aws.ToString(in.ClientToken)
	switch {
	case s.closed:
		return nil, errClosed
	case token == "":
		return nil, nil
	}
	for _, f := range s.fleets.of(c) {
		switch {
		case f.Token != token:
		case f.Request != fingerprint(in):
			return nil, errTokenMisused()
		default:
			return &ec2.CreateFleetOutput{FleetId: &f.ID, Errors: f.Errors, Instances: f.Instances}, nil
		}
	}
	return nil, nil
}

// launchFleet launches up to target instances in the first pool that has capacity.
func (s *Service) launchFleet(ctx context.Context, in *ec2.CreateFleetInput, target int32) (*ec2.CreateFleetOutput, error) {
	c := wire.CallerFrom(ctx)
	out := &ec2.CreateFleetOutput{FleetId: aws.String(newID("fleet")), Errors: []types.CreateFleetError{}, Instances: []types.CreateFleetInstance{}}
	spot := in.TargetCapacitySpecification.DefaultTargetCapacityType == types.DefaultTargetCapacityTypeSpot
	lifecycle := types.InstanceLifecycleOnDemand
	if spot {
		lifecycle = types.InstanceLifecycleSpot
	}
	for _, p := range pools(in.LaunchTemplateConfigs) {
		launch := &ec2.RunInstancesInput{MinCount: aws.Int32(1), MaxCount: &target, InstanceType: p.over.InstanceType, TagSpecifications: instanceTags(in.TagSpecifications)}
		if err := p.into(launch); err != nil {
			return nil, err
		}
		var system []types.Tag
		err := s.update(func(st *state) (err error) {
			launch, system, err = st.templated(c, p.template, launch)
			return err
		})
		if err != nil {
			return nil, err
		}
		if id := aws.ToString(p.over.SubnetId); id != "" && len(launch.NetworkInterfaces) > 0 {
			launch.SubnetId, launch.NetworkInterfaces[0].SubnetId = nil, &id
		}
		launch.InstanceMarketOptions = nil
		if spot {
			launch.InstanceMarketOptions = &types.InstanceMarketOptionsRequest{MarketType: types.MarketTypeSpot}
		}
		shown := &types.LaunchTemplateAndOverridesResponse{
			LaunchTemplateSpecification: &types.FleetLaunchTemplateSpecification{LaunchTemplateId: p.template.LaunchTemplateId, LaunchTemplateName: p.template.LaunchTemplateName, Version: p.template.Version},
			Overrides:                   &types.FleetLaunchTemplateOverrides{InstanceType: p.over.InstanceType, SubnetId: p.over.SubnetId, AvailabilityZone: p.over.AvailabilityZone},
		}
		made, err := s.run(ctx, "CreateFleet", launch, append(system, types.Tag{Key: aws.String(reservedTags + "ec2:fleet-id"), Value: out.FleetId}))
		if errors.Is(err, errClosed) {
			return nil, err
		}
		if err != nil {
			e := wire.AsError(err)
			out.Errors = append(out.Errors, types.CreateFleetError{ErrorCode: &e.Code, ErrorMessage: &e.Message, Lifecycle: lifecycle, LaunchTemplateAndOverrides: shown})
			continue
		}
		fleet := types.CreateFleetInstance{InstanceType: launch.InstanceType, Lifecycle: lifecycle, LaunchTemplateAndOverrides: shown}
		for _, i := range made.Instances {
			fleet.InstanceIds = append(fleet.InstanceIds, *i.InstanceId)
		}
		out.Instances = append(out.Instances, fleet)
		return out, nil
	}
	return out, nil
}

// pool is a combination of instance type and place in which a fleet may launch.
type pool struct {
	template *types.LaunchTemplateSpecification
	over     types.FleetLaunchTemplateOverridesRequest
}

func pools(configs []types.FleetLaunchTemplateConfigRequest) (out []pool) {
	for _, config := range configs {
		if config.LaunchTemplateSpecification == nil {
			continue
		}
		spec := config.LaunchTemplateSpecification
		template := &types.LaunchTemplateSpecification{LaunchTemplateId: spec.LaunchTemplateId, LaunchTemplateName: spec.LaunchTemplateName, Version: spec.Version}
		if len(config.Overrides) == 0 {
			out = append(out, pool{template: template})
		}
		for _, over := range config.Overrides {
			out = append(out, pool{template, over})
		}
	}
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i], out[j]
		return cmp.Compare(aws.ToFloat64(a.over.Priority), aws.ToFloat64(b.over.Priority)) < 0
	})
	return out
}

// into sets the pool's place in a launch request.
func (p pool) into(launch *ec2.RunInstancesInput) error {
	if id := aws.ToString(p.over.SubnetId); id != "" {
		if err := kindSubnet.check(id); err != nil {
			return err
		}
		launch.SubnetId = &id
	}
	if zone := aws.ToString(p.over.AvailabilityZone); zone != "" {
		launch.Placement = &types.Placement{AvailabilityZone: &zone}
	}
	if id := aws.ToString(p.over.ImageId); id != "" {
		launch.ImageId = &id
	}
	return nil
}

// instanceTags returns the tags of a fleet request that apply to its instances.
func instanceTags(specs []types.TagSpecification) []types.TagSpecification {
	return slices.DeleteFunc(slices.Clone(specs), func(t types.TagSpecification) bool { return t.ResourceType == "fleet" })
}

// requestSpot creates the spot request that an instance fulfils.
func (s *state) requestSpot(instance string, options *types.SpotMarketOptions, tags []types.Tag) error {
	row, _ := s.instances.Get(instance)
	id := newID("sir")
	var price *string
	if options != nil {
		price = options.MaxPrice
	}
	r := &spotRequest{Region: row.Region, Account: row.OwnerId, SpotInstanceRequest: types.SpotInstanceRequest{
		SpotInstanceRequestId: &id, CreateTime: row.LaunchTime, InstanceId: row.InstanceId, Type: types.SpotInstanceTypeOneTime,
		State: types.SpotInstanceStateActive, SpotPrice: price, Tags: tags, LaunchedAvailabilityZone: row.Placement.AvailabilityZone,
		ProductDescription: types.RIProductDescriptionLinuxUnix, InstanceInterruptionBehavior: types.InstanceInterruptionBehaviorTerminate,
		Status: &types.SpotInstanceStatus{Code: aws.String("fulfilled"), Message: aws.String("Your Spot request is fulfilled."), UpdateTime: row.LaunchTime},
	}}
	if err := s.spots.Put(id, r); err != nil {
		return err
	}
	return s.instances.Edit(instance, func(r *instanceRow) {
		r.InstanceLifecycle, r.SpotInstanceRequestId = types.InstanceLifecycleTypeSpot, &id
	})
}

// spotView returns the current state of a request: it closes when its instance ends.
func (s *state) spotView(r *spotRequest) types.SpotInstanceRequest {
	v := r.SpotInstanceRequest
	in, ok := s.instances.Get(aws.ToString(v.InstanceId))
	if (!ok || in.Ended != nil) && v.State == types.SpotInstanceStateActive {
		v.State = types.SpotInstanceStateClosed
		v.Status = &types.SpotInstanceStatus{Code: aws.String("instance-terminated-by-user"), Message: aws.String("Your Spot Instance was terminated."), UpdateTime: v.CreateTime}
		if ok && in.StateReason != nil && aws.ToString(in.StateReason.Code) == reasonSpot.code {
			v.Status.Code, v.Status.Message = aws.String("instance-terminated-no-capacity"), aws.String("Your Spot Instance was terminated because there is no longer enough Spot capacity available.")
		}
	}
	return v
}

var spotFilters = filters{
	{"availability-zone-group", "AvailabilityZoneGroup"}, {"create-time", "CreateTime"}, {"fault-code", "Fault.Code"}, {"fault-message", "Fault.Message"},
	{"instance-id", "InstanceId"}, {"launch-group", "LaunchGroup"},
	{"launch.block-device-mapping.delete-on-termination", "LaunchSpecification.BlockDeviceMappings.Ebs.DeleteOnTermination"},
	{"launch.block-device-mapping.device-name", "LaunchSpecification.BlockDeviceMappings.DeviceName"},
	{"launch.block-device-mapping.snapshot-id", "LaunchSpecification.BlockDeviceMappings.Ebs.SnapshotId"},
	{"launch.block-device-mapping.volume-size", "LaunchSpecification.BlockDeviceMappings.Ebs.VolumeSize"},
	{"launch.block-device-mapping.volume-type", "LaunchSpecification.BlockDeviceMappings.Ebs.VolumeType"},
	{"launch.group-id", "LaunchSpecification.SecurityGroups.GroupId"}, {"launch.group-name", "LaunchSpecification.SecurityGroups.GroupName"},
	{"launch.image-id", "LaunchSpecification.ImageId"}, {"launch.instance-type", "LaunchSpecification.InstanceType"}, {"launch.kernel-id", "LaunchSpecification.KernelId"},
	{"launch.key-name", "LaunchSpecification.KeyName"}, {"launch.monitoring-enabled", "LaunchSpecification.Monitoring.Enabled"},
	{"launch.ramdisk-id", "LaunchSpecification.RamdiskId"}, {"launched-availability-zone", "LaunchedAvailabilityZone"},
	{"network-interface.addresses.primary", "LaunchSpecification.NetworkInterfaces.PrivateIpAddresses.Primary"},
	{"network-interface.delete-on-termination", "LaunchSpecification.NetworkInterfaces.DeleteOnTermination"},
	{"network-interface.description", "LaunchSpecification.NetworkInterfaces.Description"},
	{"network-interface.device-index", "LaunchSpecification.NetworkInterfaces.DeviceIndex"},
	{"network-interface.group-id", "LaunchSpecification.NetworkInterfaces.Groups"},
	{"network-interface.network-interface-id", "LaunchSpecification.NetworkInterfaces.NetworkInterfaceId"},
	{"network-interface.private-ip-address", "LaunchSpecification.NetworkInterfaces.PrivateIpAddress"},
	{"network-interface.subnet-id", "LaunchSpecification.NetworkInterfaces.SubnetId"},
	{"product-description", "ProductDescription"}, {"spot-instance-request-id", "SpotInstanceRequestId"}, {"spot-price", "SpotPrice"},
	{"state", "State"}, {"status-code", "Status.Code"}, {"status-message", "Status.Message"}, {"type", "Type"}, {"valid-from", "ValidFrom"}, {"valid-until", "ValidUntil"},
}

func (s *state) DescribeSpotInstanceRequests(ctx context.Context, in *ec2.DescribeSpotInstanceRequestsInput) (*ec2.DescribeSpotInstanceRequestsOutput, error) {
	var all []types.SpotInstanceRequest
	for _, r := range s.spots.of(wire.CallerFrom(ctx)) {
		all = append(all, s.spotView(r))
	}
	all, next, err := list(s, kindSpot, query{in.SpotInstanceRequestIds, in.Filters, in.MaxResults, in.NextToken}, all)
	return &ec2.DescribeSpotInstanceRequestsOutput{SpotInstanceRequests: all, NextToken: next}, err
}

// CancelSpotInstanceRequests cancels requests; their instances keep running.
func (s *state) CancelSpotInstanceRequests(ctx context.Context, in *ec2.CancelSpotInstanceRequestsInput) (*ec2.CancelSpotInstanceRequestsOutput, error) {
	rows, err := pick(s, kindSpot, in.SpotInstanceRequestIds, s.spots.of(wire.CallerFrom(ctx)))
	if err != nil {
		return nil, err
	}
	out := &ec2.CancelSpotInstanceRequestsOutput{CancelledSpotInstanceRequests: []types.CancelledSpotInstanceRequest{}}
	for _, r := range rows {
		err := s.spots.Edit(*r.SpotInstanceRequestId, func(r *spotRequest) { r.State = types.SpotInstanceStateCancelled })
		if err != nil {
			return nil, err
		}
		out.CancelledSpotInstanceRequests = append(out.CancelledSpotInstanceRequests, types.CancelledSpotInstanceRequest{
			SpotInstanceRequestId: r.SpotInstanceRequestId, State: types.CancelSpotInstanceRequestStateCancelled})
	}
	return out, nil
}
