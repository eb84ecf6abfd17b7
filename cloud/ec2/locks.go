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

// lockState returns the state of a snapshot's lock; empty if it was never locked.
func (r *snapshot) lockState(now time.Time) types.LockState {
	l := r.Lock
	switch {
	case l == nil:
		return ""
	case !now.Before(*l.LockExpiresOn):
		return types.LockStateExpired
	case l.CoolOffPeriodExpiresOn != nil && now.Before(*l.CoolOffPeriodExpiresOn):
		return types.LockStateComplianceCooloff
	}
	return l.LockState
}

// checkLock reports a snapshot whose lock prevents its deletion.
func (s *state) checkLock(r *snapshot) error {
	if state := r.lockState(s.opts.Clock.Now()); state != "" && state != types.LockStateExpired {
		return wire.Errorf("SnapshotLocked", "The snapshot %s is locked (%s) until %s and cannot be deleted.", *r.SnapshotId, state, r.Lock.LockExpiresOn.UTC().Format(timeForm))
	}
	return nil
}

// LockSnapshot prevents a snapshot from being deleted for a time. After its cooling-off
// period, a lock in compliance mode can only be extended.
func (s *state) LockSnapshot(ctx context.Context, in *ec2.LockSnapshotInput) (*ec2.LockSnapshotOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	now := s.now()
	l, err := newLock(in, now)
	if err != nil {
		return nil, err
	}
	if r.lockState(now) == types.LockStateCompliance && (in.LockMode != types.LockModeCompliance || in.CoolOffPeriod != nil || !l.LockExpiresOn.After(*r.Lock.LockExpiresOn)) {
		return nil, wire.Errorf("OperationNotPermitted", "The snapshot %s is locked in compliance mode and its cooling-off period is over: the lock can only be extended.", *r.SnapshotId)
	}
	l.SnapshotId, l.OwnerId = r.SnapshotId, r.OwnerId
	if err := s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) { r.Lock = l }); err != nil {
		return nil, err
	}
	r, _ = s.snapshots.Get(*r.SnapshotId)
	out := &ec2.LockSnapshotOutput{}
	copyFields(out, *r.Lock)
	out.LockState = r.lockState(now)
	return out, nil
}

// newLock returns the lock that a request asks for.
func newLock(in *ec2.LockSnapshotInput, now time.Time) (*types.LockedSnapshotsInfo, error) {
	l := &types.LockedSnapshotsInfo{LockCreatedOn: &now, LockDurationStartTime: &now, LockState: types.LockState(in.LockMode), CoolOffPeriod: in.CoolOffPeriod}
	switch days, hours := aws.ToInt32(in.LockDuration), aws.ToInt32(in.CoolOffPeriod); {
	case in.LockDuration != nil && in.ExpirationDate != nil:
		return nil, wire.Errorf("InvalidParameterCombination", "Specify either LockDuration or ExpirationDate.")
	case in.CoolOffPeriod != nil && in.LockMode != types.LockModeCompliance:
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter CoolOffPeriod requires the lock mode compliance.")
	case in.CoolOffPeriod != nil && (hours < 1 || hours > 72):
		return nil, invalidValue("Value ( %d ) for parameter CoolOffPeriod is invalid. Expecting a value between 1 and 72.", hours)
	case in.LockDuration != nil && (days < 1 || days > 36500):
		return nil, invalidValue("Value ( %d ) for parameter LockDuration is invalid. Expecting a value between 1 and 36500.", days)
	case in.ExpirationDate != nil && in.ExpirationDate.Before(now.AddDate(0, 0, 1)):
		return nil, invalidValue("The expiration date must be at least a day from now.")
	case in.LockDuration != nil:
		l.LockDuration, l.LockExpiresOn = in.LockDuration, aws.Time(now.AddDate(0, 0, int(days)))
	case in.ExpirationDate != nil:
		l.LockExpiresOn = in.ExpirationDate
		l.LockDuration = aws.Int32(int32(in.ExpirationDate.Sub(now).Hours() / 24))
	default:
		return nil, missing("LockDuration")
	}
	if in.CoolOffPeriod != nil {
		l.CoolOffPeriodExpiresOn = aws.Time(now.Add(time.Duration(*in.CoolOffPeriod) * time.Hour))
	}
	return l, nil
}

// UnlockSnapshot removes a lock in governance mode, or one whose cooling-off period is not
// over.
func (s *state) UnlockSnapshot(ctx context.Context, in *ec2.UnlockSnapshotInput) (*ec2.UnlockSnapshotOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	switch r.lockState(s.opts.Clock.Now()) {
	case "", types.LockStateExpired:
		return nil, wire.Errorf("IncorrectState", "The snapshot %s is not locked.", *r.SnapshotId)
	case types.LockStateCompliance:
		return nil, wire.Errorf("OperationNotPermitted", "The snapshot %s is locked in compliance mode and its cooling-off period is over: it cannot be unlocked.", *r.SnapshotId)
	}
	return &ec2.UnlockSnapshotOutput{SnapshotId: r.SnapshotId}, s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) { r.Lock = nil })
}

// DescribeLockedSnapshots shows the locks of the caller's snapshots, including expired
// ones.
func (s *state) DescribeLockedSnapshots(ctx context.Context, in *ec2.DescribeLockedSnapshotsInput) (*ec2.DescribeLockedSnapshotsOutput, error) {
	c := wire.CallerFrom(ctx)
	for _, id := range in.SnapshotIds {
		if _, err := s.findSnapshot(c, &id); err != nil {
			return nil, err
		}
	}
	var rows []types.LockedSnapshotsInfo
	for _, r := range s.snapshots.of(c) {
		if r.Lock != nil && (len(in.SnapshotIds) == 0 || slices.Contains(in.SnapshotIds, *r.SnapshotId)) {
			l := *r.Lock
			l.LockState = r.lockState(s.opts.Clock.Now())
			rows = append(rows, l)
		}
	}
	k := kindSnapshot.with(filters{{"lock-state", "LockState"}})
	if err := checkMax(in.MaxResults, k.min, k.max); err != nil {
		return nil, err
	}
	rows, next, err := listed(k, query{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, rows)
	return &ec2.DescribeLockedSnapshotsOutput{Snapshots: rows, NextToken: next}, err
}

// DescribeFastSnapshotRestores returns nothing: snapshots are always restored at once
// here.
func (s *state) DescribeFastSnapshotRestores(_ context.Context, in *ec2.DescribeFastSnapshotRestoresInput) (*ec2.DescribeFastSnapshotRestoresOutput, error) {
	if err := checkMax(in.MaxResults, 0, 200); err != nil {
		return nil, err
	}
	names := filters{{"availability-zone", "AvailabilityZone"}, {"availability-zone-id", "AvailabilityZoneId"}, {"owner-id", "OwnerId"}, {"snapshot-id", "SnapshotId"}, {"state", "State"}}
	rows, err := apply(names, in.Filters, []types.DescribeFastSnapshotRestoreSuccessItem{})
	return &ec2.DescribeFastSnapshotRestoresOutput{FastSnapshotRestores: rows}, err
}

// ResetSnapshotAttribute removes all permissions of a snapshot.
func (s *state) ResetSnapshotAttribute(ctx context.Context, in *ec2.ResetSnapshotAttributeInput) (*ec2.ResetSnapshotAttributeOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	if in.Attribute != types.SnapshotAttributeNameCreateVolumePermission {
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. It cannot be reset.", in.Attribute)
	}
	return &ec2.ResetSnapshotAttributeOutput{}, s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) { r.Permissions = nil })
}

// CancelImageLaunchPermission removes the caller's account from the launch permissions of
// an image. Permissions for the caller's organization cannot be cancelled.
func (s *state) CancelImageLaunchPermission(ctx context.Context, in *ec2.CancelImageLaunchPermissionInput) (*ec2.CancelImageLaunchPermissionOutput, error) {
	c := wire.CallerFrom(ctx)
	img, err := s.findImage(c, c.Region, in.ImageId)
	if err != nil {
		return nil, err
	}
	own := samePermission(types.LaunchPermission{UserId: &c.Account})
	if *img.OwnerId == c.Account || !slices.ContainsFunc(img.LaunchPermissions, own) {
		return nil, wire.Errorf("InvalidRequest", "The image '%s' is not shared with the account %s itself.", *img.ImageId, c.Account)
	}
	return &ec2.CancelImageLaunchPermissionOutput{Return: aws.Bool(true)}, s.images.Edit(*img.ImageId, func(img *image) {
		img.LaunchPermissions = slices.DeleteFunc(img.LaunchPermissions, own)
	})
}

// CopySnapshotInput is the SDK's struct, with a parameter that other clients send with a
// signed URL.
type CopySnapshotInput struct {
	ec2.CopySnapshotInput
	DestinationRegion *string
}

// CopySnapshot copies a snapshot from SourceRegion to the caller's region.
func (s *state) CopySnapshot(ctx context.Context, in *CopySnapshotInput) (*ec2.CopySnapshotOutput, error) {
	c, from, id := wire.CallerFrom(ctx), aws.ToString(in.SourceRegion), aws.ToString(in.SourceSnapshotId)
	tags, err := tagsFor(in.TagSpecifications, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	if err := needsEncrypted(in.KmsKeyId, in.Encrypted); err != nil {
		return nil, err
	}
	if m := in.CompletionDurationMinutes; m != nil {
		if err := checkDuration("CompletionDurationMinutes", int64(*m)); err != nil {
			return nil, err
		}
	}
	if _, ok := findRegion(from); !ok || partition(from) != partition(c.Region) {
		return nil, invalidValue("Invalid value '%s' for SourceRegion.", from)
	}
	if to := in.DestinationRegion; to != nil && *to != c.Region {
		return nil, invalidValue("Invalid value '%s' for DestinationRegion: a snapshot is copied into the region of the request, %s.", *to, c.Region)
	}
	if in.DestinationOutpostArn != nil || in.DestinationAvailabilityZone != nil {
		return nil, wire.Errorf("Unsupported", "The embedded cloud has neither Outposts nor Local Zones to copy snapshots to.")
	}
	if err := kindSnapshot.check(id); err != nil {
		return nil, err
	}
	source, ok := s.snapshots.Get(id)
	switch {
	case !ok || source.Region != from || !s.visible(source, c.Account):
		return nil, kindSnapshot.notFound(id)
	case source.State != types.SnapshotStateCompleted:
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is not 'completed'.", id)
	case s.checkTier(source) != nil:
		return nil, s.checkTier(source)
	case *source.OwnerId != c.Account && source.defaultKey():
		return nil, wire.Errorf("InvalidRequest", "You do not have permission to access the snapshot '%s': it is encrypted with the default key of its account.", id)
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	description := aws.ToString(in.Description)
	if description == "" {
		description = "[Copied " + id + " from " + from + "]"
	}
	snap := s.copyOf(c, source, description, tags[kindSnapshot.resource])
	if aws.ToBool(in.Encrypted) || aws.ToBool(source.Encrypted) || s.encrypts(c) {
		snap.Encrypted, snap.KmsKeyId = aws.Bool(true), aws.String(s.ebsKey(c, aws.ToString(in.KmsKeyId)))
	}
	if err := s.snapshots.Put(*snap.SnapshotId, snap); err != nil {
		return nil, err
	}
	made, fail, pending := *snap.SnapshotId, failing(ctx), later(stuck(ctx), s.opts.Delays.Snapshot)
	s.hide(ctx, made)
	s.background(func(ctx context.Context, s *Service) {
		if s.opts.Clock.Sleep(ctx, pending) == nil { // otherwise the next Open completes it
			s.log(made, "complete", s.update(func(st *state) error { return st.complete(made, fail) }))
		}
	})
	return &ec2.CopySnapshotOutput{SnapshotId: snap.SnapshotId, Tags: append([]types.Tag{}, snap.Tags...)}, nil
}

// checkDuration reports a number of minutes that a copy cannot be asked to take.
func checkDuration(parameter string, m int64) error {
	if m < 15 || m > 2880 || m%15 != 0 {
		return invalidValue("The value %d for %s is invalid. It must be a multiple of 15 between 15 and 2880.", m, parameter)
	}
	return nil
}

var kindFleet = &kind{prefix: "fleet", field: "FleetId", resource: "fleet", noun: "fleet", code: "InvalidFleetId",
	filters: filters{{"activity-status", "ActivityStatus"}, {"excess-capacity-termination-policy", "ExcessCapacityTerminationPolicy"}, {"fleet-state", "FleetState"},
		{"replace-unhealthy-instances", "ReplaceUnhealthyInstances"}, {"type", "Type"}}}

// DescribeFleets shows the fleets with those ids. All fleets here are of type instant,
// which are not shown unless their ids are given.
func (s *state) DescribeFleets(ctx context.Context, in *ec2.DescribeFleetsInput) (*ec2.DescribeFleetsOutput, error) {
	rows := []types.FleetData{}
	for _, f := range s.fleets.of(wire.CallerFrom(ctx)) {
		if !slices.Contains(in.FleetIds, f.ID) {
			continue
		}
		row := types.FleetData{FleetId: &f.ID, Type: types.FleetTypeInstant, FleetState: types.FleetStateCodeActive, ActivityStatus: types.FleetActivityStatusFulfilled, ClientToken: &f.Token}
		for _, i := range f.Instances {
			row.Instances = append(row.Instances, types.DescribeFleetsInstances{InstanceIds: i.InstanceIds, InstanceType: i.InstanceType,
				LaunchTemplateAndOverrides: i.LaunchTemplateAndOverrides, Lifecycle: i.Lifecycle, Platform: i.Platform})
		}
		for _, e := range f.Errors {
			row.Errors = append(row.Errors, types.DescribeFleetError(e))
		}
		rows = append(rows, row)
	}
	rows, next, err := list(s, kindFleet, query{in.FleetIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeFleetsOutput{Fleets: rows, NextToken: next}, err
}

// DescribeSpotFleetRequests returns nothing: there are no Spot Fleets here.
func (s *state) DescribeSpotFleetRequests(_ context.Context, in *ec2.DescribeSpotFleetRequestsInput) (*ec2.DescribeSpotFleetRequestsOutput, error) {
	if len(in.SpotFleetRequestIds) > 0 {
		return nil, wire.Errorf("InvalidSpotFleetRequestId.NotFound", "The spot fleet request ID '%s' does not exist.", in.SpotFleetRequestIds[0])
	}
	return &ec2.DescribeSpotFleetRequestsOutput{SpotFleetRequestConfigs: []types.SpotFleetRequestConfig{}}, nil
}
