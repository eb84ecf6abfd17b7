package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/names"
	"bake/internal/delay"
)

// SharingChange says which recipients images are to be shared with, or no longer shared
// with.
type SharingChange struct {
	With      []string // account IDs, and ARNs of organizations and organizational units
	Public    bool     // everybody
	All       bool     // for Unshare: all current recipients, instead of With and Public
	Snapshots bool     // the snapshots too, which accounts need to copy the image
	Copies    bool     // the copies of the image in the account's regions too

	// Guard, if not nil, is called before the change removes images from accounts that
	// have them.
	Guard func(ctx context.Context, losing []Shared, c SharingChange) error
}

// Check returns an error if the change itself is invalid.
func (c SharingChange) Check(account string) error {
	if len(c.With) == 0 && !c.Public && !c.All {
		return errors.New("say with whom: -with ACCOUNT,... or -public")
	}
	if c.All && (len(c.With) > 0 || c.Public) {
		return errors.New("-all already includes -with and -public")
	}
	for _, who := range c.With {
		organization := names.Organization.Has(who) || names.Unit.Has(who)
		switch {
		case who == account && account != "":
			return fmt.Errorf("-with=%s: that is the account of these credentials, which owns the image", who)
		case names.IsAccount(who):
		case !organization:
			return fmt.Errorf("-with=%s: it must be an account ID, which has 12 digits, or the ARN of an organization or organizational unit, such as arn:aws:organizations::123456789012:organization/o-a1b2c3d4e5", who)
		case c.Snapshots:
			return fmt.Errorf("-with=%s: AWS can share snapshots only with accounts, not with organizations; name the accounts that are to copy the image, or leave out -snapshots", who)
		}
	}
	return nil
}

// recipients returns all recipients in the change.
func (c SharingChange) recipients() []string {
	who := slices.Clone(c.With)
	if c.Public {
		who = append(who, Everybody)
	}
	slices.Sort(who)
	return slices.Compact(who)
}

// takes reports whether an account is expected to lose an image through the change. An
// account that is listed keeps it if only organizations, or the public, lose it.
func (c SharingChange) takes(before Sharing, account string) bool {
	from := c.recipients()
	if c.All || slices.Contains(from, account) {
		return true
	}
	return !slices.Contains(before.Accounts, account) && slices.ContainsFunc(from, func(who string) bool { return !names.IsAccount(who) })
}

// Shared is an image whose sharing was to be changed.
type Shared struct {
	Image   Image    `json:"image"`
	Before  Sharing  `json:"before"`
	After   Sharing  `json:"after"`
	Changed bool     `json:"changed"`
	Keys    []string `json:"kms_keys,omitempty"` // of the account; recipients need permission to use them

	parts []part
}

// part is a snapshot of an image, with whom it was shared.
type part struct {
	Snapshot
	before Sharing
}

// Share shares the image that ref names with further accounts. It detects what AWS would
// refuse, in any region, before it changes anything. Otherwise each image is shared
// completely or not at all. With an error, which joins a *[RegionError] for each image
// that was not shared, it returns the images that were.
func (a *Account) Share(ctx context.Context, ref string, c SharingChange) ([]Shared, error) {
	return a.changeSharing(ctx, ref, c, func(ctx context.Context, all []Shared) error {
		var errs []error
		for _, region := range regionsOf(imagesOf(all)) {
			errs = append(errs, a.shareable(ctx, region, all, c))
		}
		return errors.Join(errs...)
	}, a.share)
}

// Unshare stops sharing an image with some recipients, or with all. With an error, which
// joins a *[RegionError] for each image where that failed, it returns the others.
func (a *Account) Unshare(ctx context.Context, ref string, c SharingChange) ([]Shared, error) {
	return a.changeSharing(ctx, ref, c, func(ctx context.Context, all []Shared) error {
		var losing []Shared
		for _, s := range all {
			if len(c.from(s.Before)) > 0 || len(s.copiers(c)) > 0 {
				losing = append(losing, s)
			}
		}
		if c.Guard == nil || len(losing) == 0 {
			return nil
		}
		return c.Guard(ctx, losing, c)
	}, a.unshare)
}

// changeSharing finds the images and their sharing, calls check with all of them, and then
// calls do for each.
func (a *Account) changeSharing(ctx context.Context, ref string, c SharingChange, check func(context.Context, []Shared) error, do func(context.Context, *Shared, SharingChange) error) ([]Shared, error) {
	if err := c.Check(a.ID); err != nil {
		return nil, err
	}
	image, err := a.One(ctx, ref)
	if err != nil {
		return nil, err
	}
	if image.Owner != a.ID {
		return nil, fmt.Errorf("image %s in %s belongs to account %s, and only that account can change who may use it; these credentials are for account %s", image.ID, image.Region, image.Owner, a.ID)
	}
	all := []Image{image}
	if c.Copies {
		copies, err := a.release(ctx, image, a.Regions)
		if err != nil {
			return nil, fmt.Errorf("looking for copies of the image: %w", err)
		}
		all = append(all, copies...)
	}
	shared, err := inRegions(ctx, regionsOf(all), func(ctx context.Context, region string) (in []Shared, err error) {
		for _, i := range all {
			if i.Region == region && err == nil {
				var s Shared
				s, err = a.shared(ctx, i, c)
				in = append(in, s)
			}
		}
		return in, err
	})
	if err == nil {
		err = check(ctx, shared)
	}
	if err != nil {
		return nil, err
	}
	return inRegions(ctx, regionsOf(all), func(ctx context.Context, region string) (done []Shared, err error) {
		var errs []error
		for _, s := range shared {
			if s.Image.Region != region {
				continue
			}
			if err := do(ctx, &s, c); err != nil {
				errs = append(errs, fmt.Errorf("image %s: %w", s.Image.ID, err))
				continue
			}
			done = append(done, s)
		}
		return done, errors.Join(errs...)
	})
}

func imagesOf(all []Shared) (out []Image) {
	for _, s := range all {
		out = append(out, s.Image)
	}
	return out
}

// shared queries the sharing of an image and, if the change concerns them, of its
// snapshots.
func (a *Account) shared(ctx context.Context, i Image, c SharingChange) (s Shared, err error) {
	s.Image = i
	if s.Before, err = a.Sharing(ctx, i); err != nil {
		return s, err
	}
	s.After = s.Before
	if !c.Snapshots && !i.encrypted() {
		return s, nil
	}
	parts, err := a.snapshots(ctx, i)
	if err != nil {
		return s, err
	}
	for _, p := range parts {
		one := part{Snapshot: p}
		if c.Snapshots {
			if one.before, err = a.snapshotSharing(ctx, i.Region, p.ID); err != nil {
				return s, err
			}
		}
		s.parts = append(s.parts, one)
		if p.Key != "" && !slices.Contains(s.Keys, p.Key) {
			s.Keys = append(s.Keys, p.Key)
		}
	}
	return s, nil
}

// shareable returns an error if AWS would refuse to share the images of a region.
func (a *Account) shareable(ctx context.Context, region string, all []Shared, c SharingChange) error {
	var errs []error
	refuse := func(i Image, format string, args ...any) {
		errs = append(errs, fmt.Errorf("image %s (%s) in %s cannot be shared: %s", i.ID, i.Name, region, fmt.Sprintf(format, args...)))
	}
	if c.Public {
		blocked, err := a.publicBlocked(ctx, region)
		if err != nil {
			return &RegionError{region, err}
		}
		if blocked {
			errs = append(errs, fmt.Errorf("images in %s cannot be made public: the account blocks public access to images there; to allow it: aws ec2 disable-image-block-public-access --region %s", region, region))
		}
	}
	managed := ""
	for _, s := range all {
		i := s.Image
		if i.Region != region {
			continue
		}
		if i.State != string(types.ImageStateAvailable) {
			refuse(i, "it is %s, and only images that are available can be shared", i.State)
		}
		if len(s.Keys) > 0 && managed == "" {
			var err error
			if managed, err = a.managedKey(ctx, region); err != nil {
				return &RegionError{region, err}
			}
		}
		for _, key := range s.Keys {
			if key == managed || access.ManagedKey(key) {
				refuse(i, "it is encrypted with the account's default key for EBS (%s), which no other account can use. Copy it with a customer managed key and share the copy: bake images copy %s -region %s -to %s -name NEW-NAME -kms-key KEY", key, i.ID, region, region)
			}
		}
		if !c.Public {
			continue
		}
		switch {
		case i.encrypted():
			refuse(i, "it is encrypted, and AWS does not allow encrypted images to be public; share it with accounts or organizations instead")
		case len(i.ProductCodes) > 0:
			refuse(i, "it has the product code %s of AWS Marketplace, and such images cannot be public", strings.Join(i.ProductCodes, ", "))
		case len(i.Watermarks) > 0:
			refuse(i, "it has the watermark %s, and such images cannot be public; to remove it: aws ec2 detach-image-watermark", strings.Join(i.Watermarks, ", "))
		}
	}
	return errors.Join(errs...)
}

// ebsAlias names the key that AWS manages for EBS in an account.
const ebsAlias = "alias/aws/ebs"

// managedKey returns the ARN of the key that AWS manages for EBS in a region of the
// account. It is "none" if there is no such key yet, or if the query is not permitted:
// then AWS reports what cannot be shared.
func (a *Account) managedKey(ctx context.Context, region string) (string, error) {
	var out struct{ KeyMetadata struct{ Arn string } }
	err := a.session.KMS(region, "").Do(ctx, "DescribeKey", map[string]any{"KeyId": ebsAlias}, &out)
	switch {
	case access.Is(err, "NotFoundException"):
	case access.Is(err, "AccessDeniedException", "AccessDenied", "UnknownService", "UnknownOperationException") && context.Cause(ctx) == nil:
		a.warn(ctx, "Which key is the account's default key for EBS in %s is not known (%s): if the image is encrypted with it, AWS refuses to share it.", region, err)
	case err != nil:
		return "", err
	case out.KeyMetadata.Arn != "":
		return out.KeyMetadata.Arn, nil
	}
	return "none", nil
}

func (a *Account) warn(ctx context.Context, format string, args ...any) {
	if a.session.Cloud.Warn != nil {
		a.session.Cloud.Warn(ctx, format, args...)
	}
}

// publicBlocked reports whether the account blocks making further images public in a
// region.
func (a *Account) publicBlocked(ctx context.Context, region string) (bool, error) {
	out, err := access.Call(ctx, a.session.EC2(region).GetImageBlockPublicAccessState, &ec2.GetImageBlockPublicAccessStateInput{})
	if access.Is(err, "InvalidAction", "UnauthorizedOperation") || access.NotImplemented(err) {
		return false, nil // another EC2 may not have it, and AWS refuses what it blocks
	}
	if err != nil {
		return false, err
	}
	return aws.ToString(out.ImageBlockPublicAccessState) == string(types.ImageBlockPublicAccessEnabledStateBlockNewSharing), nil
}

// share shares an image and its snapshots, or reverts what it has shared. The snapshots
// come first: without the image they are useless.
func (a *Account) share(ctx context.Context, s *Shared, c SharingChange) error {
	var undo []func(context.Context) error
	try := func(do, back func(context.Context) error) error {
		err := s.did(do(ctx))
		if !access.Refused(err) {
			undo = append(undo, back)
		}
		return err
	}
	err := a.shareWhole(ctx, s, c, try)
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	for _, u := range slices.Backward(undo) {
		if failed := u(ctx); failed != nil {
			err = errors.Join(err, fmt.Errorf("taking back what was shared already: %w", failed))
		}
	}
	return err
}

// shareWhole makes all calls that share an image, each with try.
func (a *Account) shareWhole(ctx context.Context, s *Shared, c SharingChange, try func(do, back func(context.Context) error) error) error {
	for _, p := range s.parts {
		if !c.Snapshots {
			continue
		}
		for some := range slices.Chunk(slices.DeleteFunc(c.recipients(), p.before.has), snapshotChanges) {
			err := try(func(ctx context.Context) error { return a.modifySnapshot(ctx, s.Image.Region, p.ID, some, nil) },
				func(ctx context.Context) error { return a.modifySnapshot(ctx, s.Image.Region, p.ID, nil, some) })
			if err != nil {
				return fmt.Errorf("snapshot %s: %w", p.ID, err)
			}
		}
	}
	add := slices.DeleteFunc(c.recipients(), s.Before.has)
	if len(add) == 0 {
		return nil
	}
	err := try(func(ctx context.Context) error { return a.modifyImage(ctx, s.Image, add, nil) },
		func(ctx context.Context) error { return a.modifyImage(ctx, s.Image, nil, add) })
	if err != nil {
		return err
	}
	return a.settled(ctx, s, func(now Sharing) bool {
		return !slices.ContainsFunc(add, func(who string) bool { return !now.has(who) })
	})
}

// undoTime is how long an incomplete change may take to revert, in addition to the time
// that a call in progress then has.
const undoTime = 30 * time.Second

// from returns the current recipients that the change removes.
func (c SharingChange) from(now Sharing) []string {
	if c.All {
		return now.all()
	}
	return slices.DeleteFunc(c.recipients(), func(who string) bool { return !now.has(who) })
}

// copiers returns the accounts that lose the snapshots of the image and never had the
// image itself: they may have made images of the snapshots.
func (s *Shared) copiers(c SharingChange) (who []string) {
	for _, p := range s.parts {
		who = append(who, slices.DeleteFunc(c.from(p.before), s.Before.has)...)
	}
	slices.Sort(who)
	return slices.Compact(who)
}

// did records the result of a call: even a failed call may have taken effect, since its
// response can be lost.
func (s *Shared) did(err error) error {
	s.Changed = s.Changed || !access.Refused(err)
	return err
}

// unshare stops sharing an image and its snapshots: the image first, because it is what
// matters.
func (a *Account) unshare(ctx context.Context, s *Shared, c SharingChange) error {
	if less := c.from(s.Before); len(less) > 0 {
		if err := s.did(a.modifyImage(ctx, s.Image, nil, less)); err != nil {
			return err
		}
		err := a.settled(ctx, s, func(now Sharing) bool { return !slices.ContainsFunc(less, now.has) })
		if err != nil {
			return err
		}
	}
	if !c.Snapshots {
		return nil
	}
	for _, p := range s.parts {
		for some := range slices.Chunk(c.from(p.before), snapshotChanges) {
			if err := s.did(a.modifySnapshot(ctx, s.Image.Region, p.ID, nil, some)); err != nil {
				return fmt.Errorf("snapshot %s: %w", p.ID, err)
			}
		}
	}
	return nil
}

// settled polls the sharing of the image until done returns true.
func (a *Account) settled(ctx context.Context, s *Shared, done func(Sharing) bool) error {
	for start, pause := time.Now(), 100*time.Millisecond; ; pause *= 2 {
		now, err := a.Sharing(ctx, s.Image)
		if err != nil {
			return err
		}
		if s.After = now; done(now) {
			return nil
		}
		if time.Since(start) > a.session.Pace.Visible {
			return fmt.Errorf("AWS accepted the change, but still says that the image is shared with %s", now)
		}
		if err := delay.For(ctx, pause); err != nil {
			return err
		}
	}
}

// modifyImage adds recipients to an image and removes others. It does not interrupt a call
// in progress when ctx ends: the call could take effect unnoticed, after one that reverts
// it.
func (a *Account) modifyImage(ctx context.Context, i Image, add, remove []string) error {
	m := &types.LaunchPermissionModifications{}
	for _, who := range add {
		m.Add = append(m.Add, permission(who))
	}
	for _, who := range remove {
		m.Remove = append(m.Remove, permission(who))
	}
	_, err := access.Through(ctx, a.session.EC2(i.Region).ModifyImageAttribute, &ec2.ModifyImageAttributeInput{ImageId: &i.ID, LaunchPermission: m})
	return err
}

// snapshotChanges is the maximum number of permissions of a snapshot that one request can
// change.
const snapshotChanges = 500

// modifySnapshot is modifyImage for a snapshot, and for at most snapshotChanges
// recipients.
func (a *Account) modifySnapshot(ctx context.Context, region, id string, add, remove []string) error {
	m := &types.CreateVolumePermissionModifications{}
	for _, who := range add {
		m.Add = append(m.Add, volumePermission(who))
	}
	for _, who := range remove {
		m.Remove = append(m.Remove, volumePermission(who))
	}
	_, err := access.Through(ctx, a.session.EC2(region).ModifySnapshotAttribute, &ec2.ModifySnapshotAttributeInput{SnapshotId: &id, CreateVolumePermission: m})
	return err
}
