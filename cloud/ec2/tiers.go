package ec2

import (
	"context"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// tiering is the last move of a snapshot into or out of the archive. Its current state is
// derived from the time.
type tiering struct {
	Move          string // one of the constants below
	Started, Done time.Time
	Failed        string     // why it will fail; empty if it will not
	Archived      *time.Time // when the last archival was complete
	Days          int32      // length of a temporary restore, from its completion
}

const (
	archival         = "archival"
	temporaryRestore = "temporary-restore"
	permanentRestore = "permanent-restore"
)

// maxRestoreDays is the longest temporary restore of a snapshot, in days.
const maxRestoreDays = 180

// under reports whether the move is in progress.
func (t *tiering) under(now time.Time) bool { return t != nil && now.Before(t.Done) }

// done reports whether the move has completed successfully.
func (t *tiering) done(now time.Time) bool { return !t.under(now) && t.Failed == "" }

// expiry returns when a temporary restore ends; nil if there is none.
func (t *tiering) expiry() *time.Time {
	if t.Move != temporaryRestore {
		return nil
	}
	return aws.Time(t.Done.AddDate(0, 0, int(t.Days)))
}

// restored reports whether the snapshot is in the archive and temporarily usable.
func (t *tiering) restored(now time.Time) bool {
	return t != nil && t.Move == temporaryRestore && t.done(now) && now.Before(*t.expiry())
}

// archived reports whether the snapshot is in the archive and cannot be used.
func (r *snapshot) archived(now time.Time) bool {
	t := r.Tiering
	if t == nil || t.Archived == nil || now.Before(*t.Archived) {
		return false
	}
	return !t.restored(now) && (t.Move != permanentRestore || !t.done(now))
}

// tier returns the snapshot's storage tier.
func (r *snapshot) tier(now time.Time) types.StorageTier {
	if r.archived(now) {
		return types.StorageTierArchive
	}
	return types.StorageTierStandard
}

// checkTier reports a snapshot that cannot be used because it is in the archive.
func (s *state) checkTier(r *snapshot) error {
	if r.archived(s.opts.Clock.Now()) {
		return wire.Errorf("IncorrectState", "Snapshot '%s' is archived. Restore it with RestoreSnapshotTier and try again.", *r.SnapshotId)
	}
	return nil
}

// checkImageTier returns an error for a snapshot that an available image cannot have, because it
// is archived or is being archived.
func (s *state) checkImageTier(id string) error {
	r, ok := s.snapshots.Get(id)
	if !ok {
		return nil
	}
	if now := s.opts.Clock.Now(); r.Tiering.under(now) && r.Tiering.Move == archival {
		return wire.Errorf("IncorrectState", "Snapshot '%s' is being archived. Restore it with RestoreSnapshotTier when it is, and try again.", id)
	}
	return s.checkTier(r)
}

// permissionsOf returns a snapshot's permissions to create volumes. An archived snapshot
// is not shared.
func (s *state) permissionsOf(r *snapshot) []types.CreateVolumePermission {
	if r.archived(s.opts.Clock.Now()) {
		return nil
	}
	return r.Permissions
}

// checkMove reports a snapshot that is being moved.
func (s *state) checkMove(r *snapshot) error {
	if r.Tiering.under(s.opts.Clock.Now()) {
		return wire.Errorf("IncorrectState", "The %s of the snapshot '%s' is in progress.", r.Tiering.Move, *r.SnapshotId)
	}
	return nil
}

// move starts to move a snapshot, and returns the start time.
func (s *state) move(ctx context.Context, r *snapshot, t tiering) (started time.Time, err error) {
	t.Started = s.now()
	t.Done = t.Started.Add(min(later(stuck(ctx), s.delays().Snapshot), 100*365*24*time.Hour)) // "for ever" is limited to a century
	if err := failing(ctx); err != nil {
		t.Failed = wire.AsError(err).Message
	}
	switch was := r.Tiering; {
	case t.Move != archival:
		t.Archived = was.Archived
	case t.Failed == "":
		t.Archived = &t.Done
	}
	return t.Started, s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) {
		r.Tiering = &t
		if t.Move != archival { // keep the permissions it had before
			r.Permissions = nil
		}
	})
}

// ModifySnapshotTier archives a snapshot. It cannot be used until it is restored.
func (s *state) ModifySnapshotTier(ctx context.Context, in *ec2.ModifySnapshotTierInput) (*ec2.ModifySnapshotTierOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	now := s.opts.Clock.Now()
	switch {
	case in.StorageTier == "":
		return nil, missing("StorageTier")
	case in.StorageTier != types.TargetStorageTierArchive:
		return nil, invalidValue("Value (%s) for parameter StorageTier is invalid. It must be archive.", in.StorageTier)
	case r.State != types.SnapshotStateCompleted:
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is not 'completed'.", *r.SnapshotId)
	case r.archived(now):
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is archived already.", *r.SnapshotId)
	case r.Tiering.restored(now):
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is restored temporarily, and archived again on %s.", *r.SnapshotId, r.Tiering.expiry().Format(timeForm))
	}
	if err := s.checkMove(r); err != nil {
		return nil, err
	}
	for _, id := range s.images.IDs() {
		if img := s.images.Rows[id]; img.has(*r.SnapshotId) && img.State != types.ImageStateDisabled {
			return nil, wire.Errorf("InvalidSnapshot.InUse", "The snapshot %s is currently in use by %s", *r.SnapshotId, id)
		}
	}
	started, err := s.move(ctx, r, tiering{Move: archival})
	return &ec2.ModifySnapshotTierOutput{SnapshotId: r.SnapshotId, TieringStartTime: &started}, err
}

// RestoreSnapshotTier restores an archived snapshot, permanently or for a number of days,
// or changes the duration of a temporary restore.
func (s *state) RestoreSnapshotTier(ctx context.Context, in *ec2.RestoreSnapshotTierInput) (*ec2.RestoreSnapshotTierOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	permanent, days, now := aws.ToBool(in.PermanentRestore), aws.ToInt32(in.TemporaryRestoreDays), s.opts.Clock.Now()
	switch {
	case permanent && in.TemporaryRestoreDays != nil:
		return nil, wire.Errorf("InvalidParameterCombination", "Specify either PermanentRestore or TemporaryRestoreDays.")
	case !permanent && in.TemporaryRestoreDays == nil:
		return nil, missing("TemporaryRestoreDays")
	case !permanent && (days < 1 || days > maxRestoreDays):
		return nil, invalidValue("Value ( %d ) for parameter TemporaryRestoreDays is invalid. Expecting a value between 1 and %d.", days, maxRestoreDays)
	}
	if err := s.checkMove(r); err != nil {
		return nil, err
	}
	restored := r.Tiering.restored(now)
	if !restored && !r.archived(now) {
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is not archived.", *r.SnapshotId)
	}
	out := &ec2.RestoreSnapshotTierOutput{SnapshotId: r.SnapshotId, IsPermanentRestore: &permanent}
	t := tiering{Move: permanentRestore}
	if !permanent {
		t.Move, t.Days, out.RestoreDuration = temporaryRestore, days, &days
	}
	if restored { // already restored
		at := s.now()
		err := s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) {
			t.Started, t.Done, t.Archived = at, at, r.Tiering.Archived
			r.Tiering = &t
		})
		return out, err
	}
	started, err := s.move(ctx, r, t)
	out.RestoreStartTime = &started
	return out, err
}

var tierFilters = filters{{"last-tiering-operation", "LastTieringOperationStatus"}, {"snapshot-id", "SnapshotId"}, {"volume-id", "VolumeId"}}

// DescribeSnapshotTierStatus shows the tiers of the caller's snapshots and the state of
// their last moves.
func (s *state) DescribeSnapshotTierStatus(ctx context.Context, in *ec2.DescribeSnapshotTierStatusInput) (*ec2.DescribeSnapshotTierStatusOutput, error) {
	rows := []types.SnapshotTierStatus{}
	for _, r := range s.snapshots.of(wire.CallerFrom(ctx)) {
		rows = append(rows, r.tierStatus(s.opts.Clock.Now()))
	}
	rows, next, err := list(s, kindSnapshot.with(tierFilters), query{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, rows)
	return &ec2.DescribeSnapshotTierStatusOutput{SnapshotTierStatuses: rows, NextToken: next}, err
}

func (r *snapshot) tierStatus(now time.Time) types.SnapshotTierStatus {
	out := types.SnapshotTierStatus{SnapshotId: r.SnapshotId, OwnerId: r.OwnerId, VolumeId: r.VolumeId, Status: r.State, StorageTier: r.tier(now), Tags: r.Tags}
	t := r.Tiering
	if t == nil {
		return out
	}
	state, percent := "-completed", int32(100)
	switch {
	case t.under(now):
		state, percent = "-in-progress", int32(now.Sub(t.Started)*100/t.Done.Sub(t.Started))
	case t.Failed != "":
		state, percent = "-failed", 0
		out.LastTieringOperationStatusDetail = &t.Failed
	case t.restored(now):
		out.RestoreExpiryTime = t.expiry()
	}
	out.LastTieringStartTime, out.LastTieringProgress = &t.Started, &percent
	out.LastTieringOperationStatus = types.TieringOperationStatus(t.Move + state)
	if t.Archived != nil && !now.Before(*t.Archived) {
		out.ArchivalCompleteTime = t.Archived
	}
	return out
}
