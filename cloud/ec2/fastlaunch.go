package ec2

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// EnableFastLaunch enables fast launch of an image. EC2 prepares Windows instances in
// advance; here no machines are prepared, and the state is enabled at once.
func (s *state) EnableFastLaunch(ctx context.Context, in *ec2.EnableFastLaunchInput) (*ec2.EnableFastLaunchOutput, error) {
	c := wire.CallerFrom(ctx)
	img, err := s.ownImage(c, in.ImageId)
	if err != nil {
		return nil, err
	}
	parallel, count := int32(6), int32(5)
	if in.MaxParallelLaunches != nil {
		parallel = *in.MaxParallelLaunches
	}
	if r := in.SnapshotConfiguration; r != nil && r.TargetResourceCount != nil {
		count = *r.TargetResourceCount
	}
	switch t := in.LaunchTemplate; {
	case img.State != types.ImageStateAvailable:
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not available: it is %s.", *img.ImageId, img.State)
	case aws.ToString(in.ResourceType) != "" && *in.ResourceType != string(types.FastLaunchResourceTypeSnapshot):
		return nil, invalidValue("Invalid value '%s' for resourceType.", *in.ResourceType)
	case parallel < 6:
		return nil, invalidValue("The value for maxParallelLaunches must be 6 or more, not %d.", parallel)
	case count < 1:
		return nil, invalidValue("The value for targetResourceCount must be 1 or more, not %d.", count)
	case t != nil && aws.ToString(t.Version) == "":
		return nil, missing("LaunchTemplate.Version")
	case t != nil && (t.LaunchTemplateId == nil) == (t.LaunchTemplateName == nil):
		return nil, wire.Errorf("InvalidParameterCombination", "Specify either the id or the name of the launch template.")
	case img.Platform != types.PlatformValuesWindows:
		return nil, wire.Errorf("UnsupportedOperation", "The image '%s' is not a Windows AMI. Fast launch is for Windows AMIs only.", *img.ImageId)
	}
	now := s.opts.Clock.Now().UTC().Truncate(time.Second)
	row := types.DescribeFastLaunchImagesSuccessItem{
		ImageId: img.ImageId, OwnerId: &c.Account, ResourceType: types.FastLaunchResourceTypeSnapshot,
		MaxParallelLaunches: &parallel, SnapshotConfiguration: &types.FastLaunchSnapshotConfigurationResponse{TargetResourceCount: &count},
		State: types.FastLaunchStateCodeEnabled, StateTransitionReason: aws.String("Client.UserInitiated"), StateTransitionTime: &now,
	}
	if t := in.LaunchTemplate; t != nil {
		row.LaunchTemplate = &types.FastLaunchLaunchTemplateSpecificationResponse{LaunchTemplateId: t.LaunchTemplateId, LaunchTemplateName: t.LaunchTemplateName, Version: t.Version}
	}
	out := &ec2.EnableFastLaunchOutput{ImageId: row.ImageId, OwnerId: row.OwnerId, ResourceType: row.ResourceType, LaunchTemplate: row.LaunchTemplate,
		MaxParallelLaunches: row.MaxParallelLaunches, SnapshotConfiguration: row.SnapshotConfiguration, State: types.FastLaunchStateCodeEnabling,
		StateTransitionReason: row.StateTransitionReason, StateTransitionTime: row.StateTransitionTime}
	return out, s.images.Edit(*img.ImageId, func(img *image) { img.FastLaunch = &row })
}

func (s *state) DisableFastLaunch(ctx context.Context, in *ec2.DisableFastLaunchInput) (*ec2.DisableFastLaunchOutput, error) {
	img, err := s.ownImage(wire.CallerFrom(ctx), in.ImageId)
	if err != nil {
		return nil, err
	}
	f := img.FastLaunch
	if f == nil {
		return nil, wire.Errorf("InvalidRequest", "Fast launch is not enabled for the image '%s'.", *img.ImageId)
	}
	out := &ec2.DisableFastLaunchOutput{ImageId: f.ImageId, OwnerId: f.OwnerId, ResourceType: f.ResourceType, LaunchTemplate: f.LaunchTemplate,
		MaxParallelLaunches: f.MaxParallelLaunches, SnapshotConfiguration: f.SnapshotConfiguration, State: types.FastLaunchStateCodeDisabling,
		StateTransitionReason: aws.String("Client.UserInitiated"), StateTransitionTime: aws.Time(s.now())}
	return out, s.images.Edit(*img.ImageId, func(img *image) { img.FastLaunch = nil })
}

func (s *state) DescribeFastLaunchImages(ctx context.Context, in *ec2.DescribeFastLaunchImagesInput) (*ec2.DescribeFastLaunchImagesOutput, error) {
	rows := []types.DescribeFastLaunchImagesSuccessItem{}
	for _, img := range s.images.of(wire.CallerFrom(ctx)) {
		if img.FastLaunch != nil {
			rows = append(rows, *img.FastLaunch)
		}
	}
	k := kindImage.with(filters{{"resource-type", "ResourceType"}, {"owner-id", "OwnerId"}, {"state", "State"}})
	rows, next, err := list(s, k, query{in.ImageIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeFastLaunchImagesOutput{FastLaunchImages: rows, NextToken: next}, err
}
