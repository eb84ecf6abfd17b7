package ec2

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// discarded is an image or a snapshot in the recycle bin.
type discarded struct {
	Image         *image
	Snapshot      *snapshot
	Entered, Exit time.Time
}

// whose returns the account and the region of the discarded resource.
func (d *discarded) whose() (account, region string) {
	if d.Image != nil {
		return *d.Image.OwnerId, d.Image.Region
	}
	return *d.Snapshot.OwnerId, d.Snapshot.Region
}

// discardImage deletes an image, or moves it to the recycle bin if there is one.
func (s *state) discardImage(id string) error {
	img, ok := s.images.Get(id)
	if whole := ok && (img.State == types.ImageStateAvailable || img.State == types.ImageStateDisabled); whole {
		if err := s.bin(id, &discarded{Image: img}); err != nil {
			return err
		}
	}
	return s.images.Drop(id)
}

// discardSnapshot is discardImage for a snapshot.
func (s *state) discardSnapshot(id string) error {
	if r, ok := s.snapshots.Get(id); ok && r.State == types.SnapshotStateCompleted {
		if err := s.bin(id, &discarded{Snapshot: r}); err != nil {
			return err
		}
	}
	return s.snapshots.Drop(id)
}

func (s *state) bin(id string, d *discarded) error {
	if s.opts.RecycleBin <= 0 {
		return nil
	}
	d.Entered = s.now()
	d.Exit = d.Entered.Add(s.opts.RecycleBin)
	return s.recycled.Put(id, d)
}

// binned returns the caller's resources in the recycle bin, after deleting those whose retention
// has ended.
func (s *state) binned(c wire.Caller) ([]*discarded, error) {
	for _, id := range s.recycled.IDs() {
		if s.opts.Clock.Now().Before(s.recycled.Rows[id].Exit) {
			continue
		}
		if err := s.recycled.Drop(id); err != nil {
			return nil, err
		}
		s.collect()
	}
	return s.recycled.of(c), nil
}

// ListImagesInRecycleBin lists the caller's images in the recycle bin.
func (s *state) ListImagesInRecycleBin(ctx context.Context, in *ec2.ListImagesInRecycleBinInput) (*ec2.ListImagesInRecycleBinOutput, error) {
	all, err := s.binned(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows := []types.ImageRecycleBinInfo{}
	for _, d := range all {
		if i := d.Image; i != nil {
			rows = append(rows, types.ImageRecycleBinInfo{ImageId: i.ImageId, Name: i.Name, Description: i.Description, RecycleBinEnterTime: &d.Entered, RecycleBinExitTime: &d.Exit})
		}
	}
	k := kindImage.with(nil)
	k.min, k.max = 1, 1000
	rows, next, err := list(s, k, query{ids: in.ImageIds, max: in.MaxResults, token: in.NextToken}, rows)
	return &ec2.ListImagesInRecycleBinOutput{Images: rows, NextToken: next}, err
}

// ListSnapshotsInRecycleBin lists the caller's snapshots in the recycle bin.
func (s *state) ListSnapshotsInRecycleBin(ctx context.Context, in *ec2.ListSnapshotsInRecycleBinInput) (*ec2.ListSnapshotsInRecycleBinOutput, error) {
	all, err := s.binned(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	rows := []types.SnapshotRecycleBinInfo{}
	for _, d := range all {
		if r := d.Snapshot; r != nil {
			rows = append(rows, types.SnapshotRecycleBinInfo{SnapshotId: r.SnapshotId, VolumeId: r.VolumeId, Description: r.Description, RecycleBinEnterTime: &d.Entered, RecycleBinExitTime: &d.Exit})
		}
	}
	rows, next, err := list(s, kindSnapshot, query{ids: in.SnapshotIds, max: in.MaxResults, token: in.NextToken}, rows)
	return &ec2.ListSnapshotsInRecycleBinOutput{Snapshots: rows, NextToken: next}, err
}

// recover returns the caller's resource in the recycle bin with that id.
func (s *state) recover(c wire.Caller, k *kind, id string) (*discarded, error) {
	if err := k.check(id); err != nil {
		return nil, err
	}
	all, err := s.binned(c)
	if err != nil {
		return nil, err
	}
	if d, ok := s.recycled.Get(id); ok && slices.Contains(all, d) {
		return d, nil
	}
	return nil, k.notFound(id)
}

// RestoreImageFromRecycleBin restores an image with its launch permissions. Its snapshots
// must be restored first.
func (s *state) RestoreImageFromRecycleBin(ctx context.Context, in *ec2.RestoreImageFromRecycleBinInput) (*ec2.RestoreImageFromRecycleBinOutput, error) {
	c, id := wire.CallerFrom(ctx), aws.ToString(in.ImageId)
	d, err := s.recover(c, kindImage, id)
	if err != nil {
		return nil, err
	}
	for _, snap := range d.Image.snapshotIDs() {
		if _, ok := s.snapshots.Get(snap); !ok {
			return nil, kindSnapshot.notFound(snap)
		}
		if d.Image.State != types.ImageStateDisabled {
			if err := s.checkImageTier(snap); err != nil {
				return nil, err
			}
		}
	}
	if other := s.images.named(c, *d.Image.Name); other != nil {
		return nil, wire.Errorf("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", *d.Image.Name, *other.ImageId)
	}
	if err := s.images.Put(id, d.Image); err != nil {
		return nil, err
	}
	if err := s.graves.Drop(id); err != nil {
		return nil, err
	}
	return &ec2.RestoreImageFromRecycleBinOutput{Return: aws.Bool(true)}, s.recycled.Drop(id)
}

// RestoreSnapshotFromRecycleBin restores a snapshot.
func (s *state) RestoreSnapshotFromRecycleBin(ctx context.Context, in *ec2.RestoreSnapshotFromRecycleBinInput) (*ec2.RestoreSnapshotFromRecycleBinOutput, error) {
	id := aws.ToString(in.SnapshotId)
	d, err := s.recover(wire.CallerFrom(ctx), kindSnapshot, id)
	if err != nil {
		return nil, err
	}
	if err := s.snapshots.Put(id, d.Snapshot); err != nil {
		return nil, err
	}
	out := &ec2.RestoreSnapshotFromRecycleBinOutput{}
	copyFields(out, d.Snapshot.Snapshot)
	return out, s.recycled.Drop(id)
}
