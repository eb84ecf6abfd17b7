package ec2

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// snapshot is a snapshot. It has the layers of its content, or the base that will provide
// them; a snapshot of a blank volume has neither.
type snapshot struct {
	Region string
	types.Snapshot
	Permissions []types.CreateVolumePermission
	Lock        *types.LockedSnapshotsInfo // as set when it was locked; see lockState
	Tiering     *tiering                   // nil means that it has always been in the standard tier

	Layers       []string // topmost first
	Base         string
	LoginUser    string
	Architecture types.ArchitectureValues
	RootDevice   string
	Whole        bool   // the content is present, whatever the state says
	ForImage     string // the image that it is made for, if any
}

// snapshotView returns the snapshot as DescribeSnapshots shows it to the caller.
func (s *state) snapshotView(c wire.Caller, r *snapshot) types.Snapshot {
	v := r.Snapshot
	v.Tags = s.tagsOn(c, *v.SnapshotId, *v.OwnerId, v.Tags)
	now := s.opts.Clock.Now()
	v.StorageTier = r.tier(now)
	if r.Tiering.restored(now) {
		v.RestoreExpiryTime = r.Tiering.expiry()
	}
	if v.State != types.SnapshotStatePending {
		return v
	}
	percent, working := s.progress.percent(*v.SnapshotId)
	if d := s.delays().Snapshot; d > 0 && !working {
		percent = int32(min(99, now.Sub(*v.StartTime)*100/d))
	}
	v.Progress = aws.String(strconv.Itoa(int(percent)) + "%")
	return v
}

// newSnapshot returns a new pending snapshot owned by the caller.
func (s *state) newSnapshot(c wire.Caller, size int32, description string, tags []types.Tag) *snapshot {
	return &snapshot{Region: c.Region, Snapshot: types.Snapshot{
		SnapshotId: aws.String(newID("snap")), OwnerId: &c.Account, State: types.SnapshotStatePending, Progress: aws.String("0%"),
		StartTime: aws.Time(s.opts.Clock.Now().UTC()), Description: &description, VolumeSize: &size, Encrypted: aws.Bool(false),
		StorageTier: types.StorageTierStandard, Tags: tags,
	}}
}

// ofVolume returns a new pending snapshot of the volume.
func (s *state) ofVolume(c wire.Caller, v *volumeRow, description string, tags []types.Tag) *snapshot {
	snap := s.newSnapshot(c, *v.Size, description, tags)
	snap.VolumeId, snap.Encrypted, snap.KmsKeyId = v.VolumeId, v.Encrypted, v.KmsKeyId
	snap.LoginUser = v.LoginUser
	if snap.LoginUser == "" && len(v.Attachments) > 0 {
		if row, ok := s.instances.Get(*v.Attachments[0].InstanceId); ok {
			snap.LoginUser = row.LoginUser
		}
	}
	return snap
}

// complete records that a snapshot has ended. err is the reason if it failed.
func (s *state) complete(id string, err error) error {
	return s.snapshots.Edit(id, func(r *snapshot) {
		if err != nil {
			r.State, r.StateMessage = types.SnapshotStateError, aws.String(wire.Message(err))
			return
		}
		r.State, r.Progress, r.CompletionTime = types.SnapshotStateCompleted, aws.String("100%"), aws.Time(s.now())
	})
}

func (s *state) CreateSnapshot(ctx context.Context, in *ec2.CreateSnapshotInput) (*ec2.CreateSnapshotOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	v, err := s.volumes.find(c, in.VolumeId)
	if err != nil {
		return nil, err
	}
	snap := s.ofVolume(c, v, aws.ToString(in.Description), tags[kindSnapshot.resource])
	if row := s.rootOf(v); row != nil {
		if err := capturable(row); err != nil {
			return nil, err
		}
		snap.describeRoot(row)
	}
	if err := s.snapshots.Put(*snap.SnapshotId, snap); err != nil {
		return nil, err
	}
	s.hide(ctx, *snap.SnapshotId)
	s.take(ctx, map[string]string{*v.VolumeId: *snap.SnapshotId})
	out := &ec2.CreateSnapshotOutput{}
	copyFields(out, snap.Snapshot)
	if out.Tags == nil { // unlike DescribeSnapshots, CreateSnapshot always sends them
		out.Tags = []types.Tag{}
	}
	return out, nil
}

// CreateSnapshots makes snapshots of the volumes of an instance at one point in time.
func (s *state) CreateSnapshots(ctx context.Context, in *ec2.CreateSnapshotsInput) (*ec2.CreateSnapshotsOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	if err := unsupported(in, "Location", "OutpostArn"); err != nil {
		return nil, err
	}
	spec := in.InstanceSpecification
	if spec == nil {
		return nil, missing("InstanceSpecification")
	}
	row, err := s.findInstance(c, spec.InstanceId)
	if err != nil {
		return nil, err
	}
	if err := capturable(row); err != nil {
		return nil, err
	}
	out := &ec2.CreateSnapshotsOutput{Snapshots: []types.SnapshotInfo{}}
	rows, made, err := s.ofInstance(c, in, row, tags[kindSnapshot.resource])
	if err != nil {
		return nil, err
	}
	for _, id := range spec.ExcludeDataVolumeIds {
		if !row.hasVolume(id) || row.root() != nil && *row.root().Ebs.VolumeId == id {
			return nil, invalidValue("The volume '%s' is not a data volume of the instance '%s'.", id, *row.InstanceId)
		}
	}
	if len(rows) == 0 {
		return nil, invalidValue("The instance '%s' has no volumes to take snapshots of.", *row.InstanceId)
	}
	for _, snap := range rows {
		info := types.SnapshotInfo{Tags: []types.Tag{}}
		copyFields(&info, snap.Snapshot)
		out.Snapshots = append(out.Snapshots, info)
		if err := s.snapshots.Put(*snap.SnapshotId, snap); err != nil {
			return nil, err
		}
		s.hide(ctx, *snap.SnapshotId)
	}
	s.take(ctx, made)
	return out, nil
}

// ofInstance returns new snapshots of the volumes of an instance that the request does not
// exclude, and their ids by volume.
func (s *state) ofInstance(c wire.Caller, in *ec2.CreateSnapshotsInput, row *instance, tags []types.Tag) (rows []*snapshot, made map[string]string, err error) {
	made = map[string]string{}
	for _, b := range row.BlockDeviceMappings {
		spec := in.InstanceSpecification
		id, root := *b.Ebs.VolumeId, *b.DeviceName == aws.ToString(row.RootDeviceName)
		if root && aws.ToBool(spec.ExcludeBootVolume) || !root && slices.Contains(spec.ExcludeDataVolumeIds, id) {
			continue
		}
		v, err := s.volumes.find(c, &id)
		if err != nil {
			return nil, nil, err
		}
		own := tags
		if in.CopyTagsFromSource == types.CopyTagsFromSourceVolume {
			if own, err = combined(v.Tags, own); err != nil {
				return nil, nil, err
			}
		}
		snap := s.ofVolume(c, v, aws.ToString(in.Description), own)
		if root {
			snap.describeRoot(row)
		}
		made[id], rows = *snap.SnapshotId, append(rows, snap)
	}
	return rows, made, nil
}

// take completes pending snapshots, given by volume.
func (s *state) take(ctx context.Context, snapshots map[string]string) {
	fail, taken := failing(ctx), moment(ctx)
	pending := later(stuck(ctx), s.delays().Snapshot)
	s.background(func(ctx context.Context, s *Service) {
		err := fail
		if err == nil {
			err = s.fill(ctx, snapshots, "", taken)
		} else {
			taken() // there is nothing to wait for
		}
		if wait := s.opts.Clock.Sleep(ctx, pending); wait != nil {
			return // the next Open completes them
		}
		for _, id := range snapshots {
			s.log(id, "complete", s.update(func(st *state) error { return st.complete(id, err) }))
		}
	})
}

// rootOf returns the instance whose root volume is v, or nil.
func (s *state) rootOf(v *volumeRow) *instance {
	if len(v.Attachments) == 0 {
		return nil
	}
	row, ok := s.instances.Get(*v.Attachments[0].InstanceId)
	if !ok || *v.Attachments[0].Device != aws.ToString(row.RootDeviceName) {
		return nil
	}
	return row
}

// describeRoot records in a snapshot of the root volume of row what is needed to boot from it.
func (r *snapshot) describeRoot(row *instance) {
	r.LoginUser, r.Architecture, r.RootDevice = row.LoginUser, row.Architecture, aws.ToString(row.RootDeviceName)
}

// fill captures the contents of volumes for snapshots, given by volume. It calls taken as soon as
// the volumes may change again, at the latest when it returns. The instance reboot, if not empty,
// is shut down for the capture. No layers are collected until the snapshots refer to them.
func (s *Service) fill(ctx context.Context, snapshots map[string]string, reboot string, taken func()) error {
	defer taken()
	release, err := s.opts.Images.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	layers, copied, err := s.capture(ctx, slices.Sorted(maps.Keys(snapshots)), reboot)
	taken()
	if err == nil && copied {
		err = s.opts.Images.Flush()
	}
	if err != nil {
		return err
	}
	return s.update(func(st *state) error {
		for volume, id := range snapshots {
			err := st.snapshots.Edit(id, func(r *snapshot) {
				r.Layers, r.Base, r.Whole = layers[volume].layers, layers[volume].base, true
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// momentary is like locked, for an action that takes snapshots. Unless the client gives up, it
// waits until the contents have been captured, however long that takes, so that the snapshots show
// the volumes at the time of the answer.
//
//go:noinline
func momentary[In, Out any](s *Service, action func(*state, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	do := locked(s, action)
	return func(ctx context.Context, in In) (Out, error) {
		taken := make(chan struct{})
		out, err := do(context.WithValue(ctx, momentKey{}, sync.OnceFunc(func() { close(taken) })), in)
		if err == nil {
			select {
			case <-taken:
			case <-ctx.Done():
			case <-s.ctx.Done():
			}
		}
		return out, err
	}
}

type momentKey struct{}

// moment returns the function to call when the snapshots of an action have been captured.
func moment(ctx context.Context) (taken func()) {
	if f, ok := ctx.Value(momentKey{}).(func()); ok {
		return f
	}
	return func() {}
}

// capturable reports an instance whose disk cannot be captured now.
func capturable(row *instance) error {
	switch row.state() {
	case types.InstanceStateNameRunning, types.InstanceStateNameStopped, types.InstanceStateNameStopping:
		return nil
	}
	return wire.Errorf("IncorrectInstanceState", "Instance is not in state 'running' or 'stopped': '%s' is %s.", *row.InstanceId, row.state())
}

// findSnapshot returns one of the caller's snapshots.
func (s *state) findSnapshot(c wire.Caller, id *string) (*snapshot, error) {
	r, err := s.snapshots.find(c, id)
	if err != nil {
		return nil, err
	}
	if *r.OwnerId != c.Account {
		return nil, wire.Errorf("AuthFailure", "You do not own the snapshot '%s'", *id)
	}
	return r, nil
}

func (s *state) DeleteSnapshot(ctx context.Context, in *ec2.DeleteSnapshotInput) (*ec2.DeleteSnapshotOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	for _, id := range s.images.IDs() {
		if s.images.Rows[id].has(*r.SnapshotId) {
			return nil, wire.Errorf("InvalidSnapshot.InUse", "The snapshot %s is currently in use by %s", *r.SnapshotId, id)
		}
	}
	if err := s.checkLock(r); err != nil {
		return nil, err
	}
	if err := s.dropShared(*r.SnapshotId, s.discardSnapshot); err != nil {
		return nil, err
	}
	s.collect()
	return &ec2.DeleteSnapshotOutput{}, nil
}

var snapshotFilters = filters{
	{"description", "Description"}, {"encrypted", "Encrypted"}, {"owner-alias", "OwnerAlias"}, {"owner-id", "OwnerId"}, {"progress", "Progress"},
	{"snapshot-id", "SnapshotId"}, {"start-time", "StartTime"}, {"status", "State"}, {"storage-tier", "StorageTier"}, {"transfer-type", ""},
	{"volume-id", "VolumeId"}, {"volume-size", "VolumeSize"},
}

// DescribeSnapshots describes snapshots, with sizes if they are completed.
func (s *Service) DescribeSnapshots(ctx context.Context, in *ec2.DescribeSnapshotsInput) (*ec2.DescribeSnapshotsOutput, error) {
	out, err := locked(s, (*state).DescribeSnapshots)(ctx, in)
	if err != nil {
		return nil, err
	}
	layers := view(s, func(st *state) map[string][]string {
		of := map[string][]string{}
		for _, snap := range out.Snapshots {
			if r, ok := st.snapshots.Get(*snap.SnapshotId); ok && r.Base == "" && r.State == types.SnapshotStateCompleted {
				of[*r.SnapshotId] = r.Layers
			}
		}
		return of
	})
	for i, snap := range out.Snapshots {
		of, ok := layers[*snap.SnapshotId]
		if !ok {
			continue // blank, or its base is not present yet
		}
		sizes, err := s.sizes(ctx, of)
		if err != nil {
			return nil, err
		}
		full := int64(0)
		for _, n := range sizes {
			full += n
		}
		out.Snapshots[i].FullSnapshotSizeInBytes = &full
	}
	return out, nil
}

// sizes returns the sizes of layers, in bytes.
func (s *Service) sizes(ctx context.Context, layers []string) ([]int64, error) {
	all := make([]int64, len(layers))
	for i, id := range layers {
		var err error
		if all[i], err = s.size(ctx, id); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// size returns the size of a layer, in bytes. Concurrent calls measure a layer only once.
func (s *Service) size(ctx context.Context, layer string) (int64, error) {
	if n, ok := s.measured.Load(layer); ok {
		return n.(int64), nil
	}
	select {
	case s.measuring <- struct{}{}:
		defer func() { <-s.measuring }()
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if n, ok := s.measured.Load(layer); ok {
		return n.(int64), nil
	}
	n, err := s.opts.Images.Size(ctx, layer)
	if err == nil && n > 0 {
		s.measured.Store(layer, n)
	}
	return n, err
}

func (s *state) DescribeSnapshots(ctx context.Context, in *ec2.DescribeSnapshotsInput) (*ec2.DescribeSnapshotsOutput, error) {
	c := wire.CallerFrom(ctx)
	var rows []types.Snapshot
	for _, r := range s.snapshots.All() {
		if r.Region != c.Region || !s.visible(r, c.Account) || !ownedBy(c, in.OwnerIds, *r.OwnerId, "") {
			continue
		}
		if len(in.RestorableByUserIds) > 0 && !slices.ContainsFunc(in.RestorableByUserIds, func(user string) bool {
			return s.visible(r, strings.Replace(user, "self", c.Account, 1))
		}) {
			continue
		}
		rows = append(rows, s.snapshotView(c, r))
	}
	rows, next, err := list(s, kindSnapshot, query{in.SnapshotIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeSnapshotsOutput{Snapshots: rows, NextToken: next}, err
}

// ownedBy reports whether the owner matches one of owners: account ids, aliases and
// "self". An empty list matches every owner.
func ownedBy(c wire.Caller, owners []string, owner, alias string) bool {
	return len(owners) == 0 || slices.ContainsFunc(owners, func(want string) bool {
		return want == owner || want == "self" && owner == c.Account || want == alias && alias != ""
	})
}

// maxSnapshotChanges is the largest number of permissions of a snapshot that a request can
// change.
const maxSnapshotChanges = 500

// defaultKey reports whether the snapshot is encrypted with the default EBS key.
func (r *snapshot) defaultKey() bool {
	return aws.ToBool(r.Encrypted) && defaultKey(*r.OwnerId, r.Region, aws.ToString(r.KmsKeyId))
}

func (s *state) ModifySnapshotAttribute(ctx context.Context, in *ec2.ModifySnapshotAttributeInput) (*ec2.ModifySnapshotAttributeOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	if in.Attribute != "" && in.Attribute != types.SnapshotAttributeNameCreateVolumePermission {
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. It cannot be modified.", in.Attribute)
	}
	add, remove, err := snapshotPermissions(in)
	switch {
	case err != nil:
		return nil, err
	case len(add) > 0 && len(remove) > 0:
		return nil, wire.Errorf("InvalidParameterCombination", "You can't add and remove permissions in the same request.")
	case len(add)+len(remove) > maxSnapshotChanges:
		return nil, invalidValue("A request can change at most %d permissions of a snapshot, not %d.", maxSnapshotChanges, len(add)+len(remove))
	}
	same := func(a types.CreateVolumePermission) func(types.CreateVolumePermission) bool {
		return func(b types.CreateVolumePermission) bool {
			return a.Group == b.Group && aws.ToString(a.UserId) == aws.ToString(b.UserId)
		}
	}
	if err := s.checkTier(r); err != nil {
		return nil, err
	}
	permissions := slices.Clone(r.Permissions)
	for _, p := range slices.Concat(add, remove) {
		if err := checkGrantee(aws.ToString(p.UserId), string(p.Group)); err != nil {
			return nil, err
		}
	}
	for _, p := range add {
		switch {
		case r.defaultKey():
			return nil, wire.Errorf("OperationNotPermitted", "Encrypted snapshots with EBS default key cannot be shared")
		case aws.ToBool(r.Encrypted) && p.Group != "":
			return nil, wire.Errorf("OperationNotPermitted", "Encrypted snapshots cannot be shared publicly")
		case p.Group != "" && s.settingsOf(*r.OwnerId, r.Region).SnapshotsPublic != "":
			return nil, wire.Errorf("OperationNotPermitted", "You can't publicly share this snapshot because block public access for snapshots is enabled for this account.")
		case !slices.ContainsFunc(permissions, same(p)):
			permissions = append(permissions, p)
		}
	}
	for _, p := range remove {
		permissions = slices.DeleteFunc(permissions, same(p))
	}
	return &ec2.ModifySnapshotAttributeOutput{}, s.snapshots.Edit(*r.SnapshotId, func(r *snapshot) { r.Permissions = permissions })
}

// snapshotPermissions returns the permissions that a request adds and removes, in either of its two
// forms.
func snapshotPermissions(in *ec2.ModifySnapshotAttributeInput) (add, remove []types.CreateVolumePermission, err error) {
	if m := in.CreateVolumePermission; m != nil {
		return m.Add, m.Remove, nil
	}
	var all []types.CreateVolumePermission
	for _, user := range in.UserIds {
		all = append(all, types.CreateVolumePermission{UserId: &user})
	}
	for _, group := range in.GroupNames {
		all = append(all, types.CreateVolumePermission{Group: types.PermissionGroup(group)})
	}
	switch in.OperationType {
	case types.OperationTypeAdd:
		return all, nil, nil
	case types.OperationTypeRemove:
		return nil, all, nil
	}
	return nil, nil, missing("OperationType")
}

// checkGrantee reports an invalid grantee: user must be an account id, or group must be
// "all".
func checkGrantee(user, group string) error {
	digits := strings.Trim(user, "0123456789") == ""
	switch {
	case group == "" && (len(user) != 12 || !digits):
		return wire.Errorf("InvalidAMIAttributeItemValue", `Invalid attribute item value "%s" for userId item type.`, user)
	case group != "" && group != "all":
		return wire.Errorf("InvalidAMIAttributeItemValue", `Invalid attribute item value "%s" for userGroup item type.`, group)
	}
	return nil
}

func (s *state) DescribeSnapshotAttribute(ctx context.Context, in *ec2.DescribeSnapshotAttributeInput) (*ec2.DescribeSnapshotAttributeOutput, error) {
	r, err := s.findSnapshot(wire.CallerFrom(ctx), in.SnapshotId)
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeSnapshotAttributeOutput{SnapshotId: r.SnapshotId}
	switch in.Attribute {
	case types.SnapshotAttributeNameCreateVolumePermission:
		out.CreateVolumePermissions = append([]types.CreateVolumePermission{}, s.permissionsOf(r)...)
	case types.SnapshotAttributeNameProductCodes:
		out.ProductCodes = []types.ProductCode{}
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// copyOf returns a new pending snapshot, owned by the caller, with the content of another.
func (s *state) copyOf(c wire.Caller, from *snapshot, description string, tags []types.Tag) *snapshot {
	snap := s.newSnapshot(c, *from.VolumeSize, description, tags)
	snap.VolumeId = aws.String("vol-ffffffff") // the value that EC2 shows for a copy
	snap.Encrypted, snap.KmsKeyId = from.Encrypted, from.KmsKeyId
	snap.Layers, snap.Base, snap.Whole = from.Layers, from.Base, true
	snap.LoginUser, snap.Architecture, snap.RootDevice = from.LoginUser, from.Architecture, from.RootDevice
	return snap
}

// copyDescription returns the description that EC2 gives a snapshot copied for an image.
func copyDescription(image, source, snapshot string, millis int64) string {
	return fmt.Sprintf("Copied for DestinationAmi %s from SourceAmi %s for SourceSnapshot %s. Task created on %d.", image, source, snapshot, millis)
}
