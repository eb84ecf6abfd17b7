package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/internal/imagetag"
	"bake/step"
)

// The outcomes of removing an image.
const (
	Removed    = "removed"    // and its snapshots, except those of other images
	Disabled   = "disabled"   // it cannot be launched
	Deprecated = "deprecated" // others no longer find it
	InUsed     = "in-use"     // nothing has changed
	Gone       = "gone"       // another process removed it first
	Failed     = "failed"     // the image is still there, or some of its snapshots are
)

// Removal is the outcome of removing or retiring one image.
type Removal struct {
	Image   Image    `json:"image"`
	Outcome string   `json:"outcome"`
	Uses    []Use    `json:"uses,omitempty"`
	Deleted []string `json:"snapshots_deleted"`
	Kept    []string `json:"snapshots_kept,omitempty"` // of which other images consist, too
	Left    []string `json:"snapshots_left,omitempty"` // that could not be deleted
	Shared  []string `json:"shared,omitempty"`         // with whom the image was shared before it was disabled
	Error   string   `json:"error,omitempty"`
}

// InUseError is the error of images that are not removed because they are in use.
type InUseError struct {
	Images []Image
	uses   Uses
}

func (e *InUseError) Error() string {
	var b strings.Builder
	for n, i := range e.Images {
		if n > 0 {
			b.WriteByte('\n')
		}
		fmt.Fprintf(&b, "image %s (%s) in %s is in use:", i.ID, i.Name, i.Region)
		for _, u := range e.uses[i.ID] {
			if !u.Warning {
				b.WriteString("\n  " + u.String())
			}
		}
	}
	return b.String()
}

// Advice returns what the user can do about it.
func (e *InUseError) Advice() string {
	text := "Nothing that is in use was removed. First have its users use another image"
	guards := map[string]bool{}
	for _, i := range e.Images {
		for _, u := range e.uses[i.ID] {
			if !u.Warning {
				guards[u.Guard] = true
			}
		}
	}
	return text + ", or do without guards: -ignore-guard=" + strings.Join(slices.Sorted(maps.Keys(guards)), ",")
}

// SnapshotsLeftError is the error of an image that was deregistered although not all of its
// snapshots were deleted.
type SnapshotsLeftError struct {
	image     Image
	snapshots []string
	err       error
}

func (e *SnapshotsLeftError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "image %s in %s was deregistered, but not all of its snapshots were deleted: %s", e.image.ID, e.image.Region, e.err)
	for _, id := range e.snapshots {
		fmt.Fprintf(&b, "\n  aws ec2 delete-snapshot --region %s --snapshot-id %s", e.image.Region, id)
	}
	return b.String()
}

func (e *SnapshotsLeftError) Unwrap() error { return e.err }

// Remover removes images, as a task whose ledger records what remains if bake is killed.
type Remover struct {
	Account   *Account
	Scope     *step.Scope
	Guards    Guards
	OnRemoval func(Removal) // called once for each image; may be nil

	home     *Account              // that has entered Account; nil: it is that one
	tolerant bool                  // what is in use by now is no error of Prune
	scans    map[string]cachedScan // by region
}

// handle enables the scope to finish incomplete removals.
func (r *Remover) handle() {
	home := r.Account
	if r.home != nil {
		home = r.home
	}
	r.Scope.Handle(ownership.Prefix, destroy.For(home.session))
}

// Remove deregisters images and deletes their snapshots. If one of them belongs to another
// account or is in use, Remove changes nothing: the error is an *[InUseError]. Otherwise
// the error joins the errors of the images that could not be removed.
func (r *Remover) Remove(ctx context.Context, images []Image) error {
	images = unique(slices.Clone(images)) // one can be named in several ways
	for _, i := range images {
		if err := r.Account.owns(i); err != nil {
			return err
		}
	}
	uses := r.Account.Uses(ctx, images, r.Guards)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if used := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return !InUse(uses[i.ID]) }); len(used) > 0 {
		for _, i := range used {
			r.report(Removal{Image: i, Outcome: InUsed, Uses: uses[i.ID]})
		}
		return &InUseError{used, uses}
	}
	for _, i := range images {
		for _, u := range uses[i.ID] { // warnings
			r.Scope.Warn(ctx, "%s (%s) in %s: %s", i.ID, i.Name, i.Region, u)
		}
	}
	var errs []error
	for _, i := range images {
		if err := r.one(ctx, i, PlanRemove); err != nil {
			errs = append(errs, err)
		}
		if context.Cause(ctx) != nil {
			break
		}
	}
	return errors.Join(errs...)
}

// owns returns an error if the account does not own an image and so cannot remove it.
func (a *Account) owns(i Image) error {
	if i.Owner != a.ID {
		return fmt.Errorf("image %s (%s) in %s belongs to account %s; only its owner can remove it, and these credentials are for account %s", i.ID, i.Name, i.Region, i.Owner, a.ID)
	}
	return nil
}

func (r *Remover) report(done Removal) {
	if done.Deleted == nil {
		done.Deleted = []string{}
	}
	if r.OnRemoval != nil {
		r.OnRemoval(done)
	}
}

// one removes one image, or carries out another planned action, unless the image is in use
// by now.
func (r *Remover) one(ctx context.Context, i Image, action string) error {
	r.handle()
	return step.Run(ctx, r.Scope, fmt.Sprintf("%s image %s (%s) in %s", action, i.ID, i.Name, i.Region), func(ctx context.Context) error {
		done := Removal{Image: i}
		err := r.act(ctx, &done, action)
		if err != nil && done.Outcome == "" {
			done.Outcome = Failed
		}
		if err != nil {
			done.Error = err.Error()
		}
		r.report(done)
		return err
	})
}

// act carries out the planned action on an image.
func (r *Remover) act(ctx context.Context, done *Removal, action string) error {
	i := done.Image
	found, err := r.Account.byID(ctx, i.Region, i.ID)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		done.Outcome = Gone
		return nil
	}
	fresh := found[0]
	if disabled := string(types.ImageStateDisabled); (fresh.State == disabled) != (i.State == disabled) {
		return fmt.Errorf("image %s in %s was %s, and is %s now: nothing is done to it", i.ID, i.Region, i.State, fresh.State)
	}
	// It may have been tagged, launched or put into a channel since it was planned.
	if uses := needed(action, r.uses(ctx, fresh)); InUse(uses) {
		if err := context.Cause(ctx); err != nil {
			return err // this is why the guards could not decide
		}
		done.Outcome, done.Uses = InUsed, uses
		return &InUseError{found, Uses{i.ID: uses}}
	}
	switch action {
	case PlanDeprecate:
		if err = r.deprecate(ctx, fresh); err == nil {
			done.Outcome = Deprecated
		}
	case PlanDisable:
		if err = r.disable(ctx, done, fresh); err == nil {
			done.Outcome = Disabled
		}
	default:
		err = r.remove(ctx, done, fresh)
	}
	return err
}

// remove deregisters an image and deletes its snapshots.
func (r *Remover) remove(ctx context.Context, done *Removal, i Image) error {
	snapshots := i.Snapshots()
	owned := destroy.SnapshotsOf(r.Account.session, i.Region, i.ID, snapshots)
	owned.Build = r.Scope.Build
	if len(snapshots) > 0 {
		if err := r.Scope.Ledger.Intend(owned); err != nil {
			return fmt.Errorf("recording the snapshots of the image: %w", err)
		}
	}
	results, err := r.deregister(ctx, i)
	if err != nil {
		return err
	}
	if len(snapshots) > 0 {
		if err := r.Scope.Ledger.Created(owned.Key, i.ID); err != nil {
			return fmt.Errorf("recording that the image is deregistered: %w", err)
		}
	}
	if err := r.snapshots(ctx, done, snapshots, results); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause // the end of the task deletes them
		}
		return &SnapshotsLeftError{i, done.Left, err}
	}
	done.Outcome = Removed
	if len(snapshots) == 0 {
		return nil
	}
	return r.Scope.Ledger.Gone(owned.Key)
}

// deregister deregisters an image, and returns what EC2 did with its snapshots, as far as
// it reports that. An error means that the image may still exist.
func (r *Remover) deregister(ctx context.Context, i Image) (map[string]types.SnapshotReturnCodes, error) {
	results := map[string]types.SnapshotReturnCodes{}
	out, err := access.Finish(ctx, r.Account.session.EC2(i.Region).DeregisterImage, &ec2.DeregisterImageInput{ImageId: &i.ID, DeleteAssociatedSnapshots: aws.Bool(true)})
	switch {
	case err == nil:
		for _, s := range out.DeleteSnapshotResults {
			results[aws.ToString(s.SnapshotId)] = s.ReturnCode
		}
		return results, nil
	case access.NotFound(err): // a repeated request, whose first answer was lost
		return results, nil
	case access.Refused(err):
		return nil, errors.Join(err, r.Scope.Ledger.Gone(i.ID))
	case context.Cause(ctx) != nil:
		return nil, err // the end of the task deletes the snapshots
	}
	left, lookErr := r.Account.byID(ctx, i.Region, i.ID)
	if lookErr != nil || len(left) > 0 {
		return nil, err
	}
	return results, nil // the answer was lost
}

// snapshots deletes those snapshots of a deregistered image that EC2 has not deleted.
func (r *Remover) snapshots(ctx context.Context, done *Removal, ids []string, results map[string]types.SnapshotReturnCodes) error {
	var errs []error
	for _, id := range ids {
		switch results[id] {
		case types.SnapshotReturnCodesSuccess:
			done.Deleted = append(done.Deleted, id)
			continue
		case types.SnapshotReturnCodesWarnSkipped:
			done.Kept = append(done.Kept, id)
			continue
		}
		switch deleted, err := destroy.Unmapped(ctx, r.Account.session, done.Image.Region, id, done.Image.ID); {
		case err != nil:
			done.Left = append(done.Left, id)
			errs = append(errs, fmt.Errorf("snapshot %s: %w", id, err))
		case deleted:
			done.Deleted = append(done.Deleted, id)
		default:
			done.Kept = append(done.Kept, id)
		}
	}
	return errors.Join(errs...)
}

// Named returns the account's own images in its regions that have this name, or whose tag
// bake:image has this value.
func (a *Account) Named(ctx context.Context, name string) ([]Image, error) {
	named, err := a.List(ctx, Query{Name: exactly(name)})
	if err != nil {
		return nil, err
	}
	tagged, err := a.List(ctx, Query{Filters: []Filter{{Name: "tag:" + ImageTag, Values: []string{exactly(name)}}}})
	if err != nil {
		return nil, err
	}
	all := unique(append(named, tagged...))
	if len(all) == 0 {
		return nil, &NotFoundError{name, a.Regions}
	}
	return all, nil
}

// The tags that record which image an image is a release of, and which release.
const (
	ImageTag   = imagetag.Image
	ReleaseTag = "bake:release"
)

// WithCopies returns images of the account together with their copies in its regions, as
// found by [Account.Release].
func (a *Account) WithCopies(ctx context.Context, images []Image) ([]Image, error) {
	all := slices.Clone(images)
	for _, i := range images {
		copies, err := a.release(ctx, i, a.Regions)
		if err != nil {
			return nil, err
		}
		all = append(all, copies...)
	}
	return unique(all), nil
}

// unique removes duplicates and sorts the images.
func unique(all []Image) []Image {
	sortImages(all)
	return slices.CompactFunc(all, func(a, b Image) bool { return a.ID == b.ID })
}
