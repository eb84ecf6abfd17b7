package ec2

import (
	"cmp"
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// ModifyVolume changes a volume's size, type and performance at once. A running machine
// sees the new size immediately.
func (s *state) ModifyVolume(ctx context.Context, in *ec2.ModifyVolumeInput) (*ec2.ModifyVolumeOutput, error) {
	c := wire.CallerFrom(ctx)
	v, err := s.volumes.find(c, in.VolumeId)
	if err != nil {
		return nil, err
	}
	if err := unsupported(in, "MultiAttachEnabled"); err != nil {
		return nil, err
	}
	before, after := v.Volume, v.Volume
	if in.VolumeType != "" && in.VolumeType != v.VolumeType {
		after.VolumeType, after.Iops, after.Throughput = in.VolumeType, nil, nil
	}
	if v.VolumeType == types.VolumeTypeGp2 { // its IOPS depend on the size
		after.Iops = nil
	}
	after.Size, after.Iops, after.Throughput = cmp.Or(in.Size, after.Size), cmp.Or(in.Iops, after.Iops), cmp.Or(in.Throughput, after.Throughput)
	if in.Size == nil && in.VolumeType == "" && in.Iops == nil && in.Throughput == nil {
		return nil, invalidValue("The request must contain at least one of the parameters Size, VolumeType, Iops and Throughput")
	}
	if *after.Size < *before.Size {
		return nil, invalidValue("New size cannot be smaller than existing size")
	}
	if err := checkVolume(&after); err != nil {
		return nil, err
	}
	now := s.now()
	m := types.VolumeModification{
		VolumeId: v.VolumeId, ModificationState: types.VolumeModificationStateCompleted, Progress: aws.Int64(100), StartTime: &now, EndTime: &now,
		OriginalSize: before.Size, OriginalVolumeType: before.VolumeType, OriginalIops: before.Iops, OriginalThroughput: before.Throughput, OriginalMultiAttachEnabled: before.MultiAttachEnabled,
		TargetSize: after.Size, TargetVolumeType: after.VolumeType, TargetIops: after.Iops, TargetThroughput: after.Throughput, TargetMultiAttachEnabled: before.MultiAttachEnabled,
	}
	dir := s.volumeDir(v)
	if root := s.rootOf(v); root != nil && root.State.Name == types.InstanceStateNameRunning {
		dir = s.machineDir(*root.InstanceId)
	}
	if dir != "" && *after.Size > *before.Size {
		if err := s.opts.Driver.GrowVolume(dir, int64(*after.Size)<<30); err != nil {
			return nil, err
		}
	}
	err = s.volumes.Edit(*v.VolumeId, func(v *volumeRow) {
		v.Size, v.VolumeType, v.Iops, v.Throughput = after.Size, after.VolumeType, after.Iops, after.Throughput
		v.Modified = &m
	})
	answer := m
	answer.ModificationState, answer.Progress, answer.EndTime = types.VolumeModificationStateModifying, aws.Int64(0), nil
	return &ec2.ModifyVolumeOutput{VolumeModification: &answer}, err
}

var modificationFilters = filters{
	{"modification-state", "ModificationState"}, {"original-iops", "OriginalIops"}, {"original-size", "OriginalSize"}, {"original-volume-type", "OriginalVolumeType"},
	{"originalMultiAttachEnabled", "OriginalMultiAttachEnabled"}, {"start-time", "StartTime"}, {"target-iops", "TargetIops"}, {"target-size", "TargetSize"},
	{"target-volume-type", "TargetVolumeType"}, {"targetMultiAttachEnabled", "TargetMultiAttachEnabled"}, {"volume-id", "VolumeId"},
}

// DescribeVolumesModifications lists the last modification of each modified volume.
func (s *state) DescribeVolumesModifications(ctx context.Context, in *ec2.DescribeVolumesModificationsInput) (*ec2.DescribeVolumesModificationsOutput, error) {
	c := wire.CallerFrom(ctx)
	rows := []types.VolumeModification{}
	for _, v := range s.volumes.of(c) {
		if v.Modified != nil {
			rows = append(rows, *v.Modified)
		}
	}
	for _, id := range in.VolumeIds {
		v, err := s.volumes.find(c, &id)
		if err != nil {
			return nil, err
		}
		if v.Modified == nil {
			return nil, wire.Errorf("InvalidVolumeModification.NotFound", "Modification for volume '%s' does not exist.", id)
		}
	}
	k := kindVolume.with(modificationFilters)
	k.set, k.min, k.max = "", 1, 500
	rows, next, err := list(s, k, query{in.VolumeIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeVolumesModificationsOutput{VolumesModifications: rows, NextToken: next}, err
}
