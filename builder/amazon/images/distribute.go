package images

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/ownership"
	"bake/internal/imagetag"
	"bake/step"
)

// PlaceError is the error of one of several places that an image is distributed to.
type PlaceError struct {
	account, region string // no region: the account as a whole
	err             error
}

func (e *PlaceError) Error() string {
	if e.region == "" {
		return fmt.Sprintf("account %s: %s", e.account, e.err)
	}
	return fmt.Sprintf("account %s, %s: %s", e.account, e.region, e.err)
}
func (e *PlaceError) Unwrap() error { return e.err }

// placing collects the results of distributing images to several places.
type placing struct {
	mu   sync.Mutex
	done []builder.Placement
	errs []error
}

func (p *placing) add(at builder.Placement, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.errs = append(p.errs, &PlaceError{at.Account, at.Region, cause(err)})
		return
	}
	p.done = append(p.done, at)
}

// result returns the placements in the order of accounts and regions, the account own
// first.
func (p *placing) result(ctx context.Context, own string) ([]builder.Placement, error) {
	sort.Slice(p.done, func(i, j int) bool {
		a, b := p.done[i], p.done[j]
		if (a.Account == own) != (b.Account == own) {
			return a.Account == own
		}
		return a.Account+a.Region < b.Account+b.Region
	})
	sort.Slice(p.errs, func(i, j int) bool { return p.errs[i].Error() < p.errs[j].Error() })
	if cause := context.Cause(ctx); cause != nil {
		return p.done, cause
	}
	return p.done, errors.Join(p.errs...)
}

// Distribute implements [builder.Distributor].
func (o *Distributor) Distribute(ctx context.Context, s *step.Scope, images map[string]string) ([]builder.Placement, error) {
	s.Handle(ownership.Prefix, destroy.For(o.own.session))
	p := &placing{}
	own, err := o.inRegions(ctx, s, images, p)
	if err != nil {
		return nil, err
	}
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	for _, region := range slices.Sorted(maps.Keys(own)) {
		if len(o.to.Regions) > 0 && !slices.Contains(o.to.Regions, region) {
			continue
		}
		i := own[region]
		if !o.to.Copy && len(o.accounts()) > 0 {
			each.Go(func() error {
				o.shareIn(ctx, s, i, p)
				return nil
			})
			continue
		}
		each.Go(func() error { // one account after the other: they share the permissions of one image
			for _, account := range o.accounts() {
				at := builder.Placement{Account: account, Region: region}
				made, err := step.Do(ctx, s, fmt.Sprintf("copy the image in %s to account %s", region, account), func(ctx context.Context) (Image, error) {
					return o.copyTo(ctx, s, i, account)
				})
				at.ID = made.ID
				p.add(at, err)
			}
			return nil
		})
	}
	_ = each.Wait() // the errors are in p
	return p.result(ctx, o.own.ID)
}

// inRegions ensures that the image exists in each region of the own account, by copying it
// from another region.
func (o *Distributor) inRegions(ctx context.Context, s *step.Scope, images map[string]string, p *placing) (map[string]Image, error) {
	own := map[string]Image{}
	for _, region := range slices.Sorted(maps.Keys(images)) {
		found, err := o.own.byID(ctx, region, images[region])
		if err == nil && len(found) == 0 {
			err = fmt.Errorf("there is no image %s in %s any more", images[region], region)
		}
		if err == nil {
			err = o.own.whole(ctx, region, images[region])
		}
		if err != nil {
			return nil, err
		}
		own[region] = found[0]
		p.add(builder.Placement{Account: o.own.ID, Region: region, ID: images[region]}, nil)
	}
	from, ok := own[o.own.home()]
	if !ok {
		for _, region := range slices.Sorted(maps.Keys(own)) {
			from, ok = own[region], true
			break
		}
	}
	if !ok {
		return nil, errors.New("there is no image to distribute")
	}
	missing := slices.Compact(slices.Sorted(slices.Values(o.to.Regions)))
	missing = slices.DeleteFunc(missing, func(region string) bool { _, there := own[region]; return there })
	var each errgroup.Group
	var mu sync.Mutex
	for _, region := range missing {
		each.Go(func() error {
			c := o.copier(o.own, s, from, region)
			made, err := step.Do(ctx, s, "copy the image to "+region, func(ctx context.Context) (Image, error) { return c.only(ctx) })
			at := builder.Placement{Account: o.own.ID, Region: region, ID: made.ID}
			if err == nil {
				at.Resource = c.owner.Resource(ownership.Image, made.ID, region, ownership.WithName, made.Name)
				at.Resource.ID = made.ID
				mu.Lock()
				own[region] = made
				mu.Unlock()
			}
			p.add(at, err)
			return nil
		})
	}
	_ = each.Wait() // the errors are in p
	return own, context.Cause(ctx)
}

// copier copies an image of the own account to a region of an account.
func (o *Distributor) copier(to *Account, s *step.Scope, from Image, region string) *copier {
	return &copier{
		Account: to, scope: s, from: from, owner: &ownership.Owner{Session: to.session, Run: s.Run.ID, ID: ownership.NewID()},
		CopyOptions: CopyOptions{To: []string{region}, Name: from.Name, Keys: o.keys(region), Tags: plainTags(from.Tags)},
		unnamed:     "give the image another name, or remove that one",
	}
}

func (o *Distributor) keys(region string) map[string]string {
	if o.to.Keys[region] == "" {
		return nil
	}
	return map[string]string{region: o.to.Keys[region]}
}

// only makes the one requested copy, unless it exists.
func (c *copier) only(ctx context.Context) (Image, error) {
	existing, err := c.check(ctx)
	if err != nil {
		return Image{}, err
	}
	if len(existing) > 0 {
		i := existing[0]
		c.scope.Say(ctx, "Image %s in %s is already a copy of %s", i.ID, i.Region, c.from.ID)
		return i, c.missing(ctx, i)
	}
	made, err := c.copy(ctx, c.To[0])
	if err == nil {
		c.scope.Say(ctx, "Image %s (%s) in %s of account %s", made.ID, made.Name, made.Region, c.ID)
	}
	return made, err
}

// missing adds the tags that an existing copy lacks.
func (c *copier) missing(ctx context.Context, i Image) error {
	lacks := maps.Clone(c.tagsIn(i.Region))
	maps.DeleteFunc(lacks, func(k, v string) bool { return i.Tags[k] == v })
	if len(lacks) == 0 {
		return nil
	}
	_, err := access.Call(ctx, c.session.EC2(i.Region).CreateTags, &ec2.CreateTagsInput{Resources: []string{i.ID}, Tags: ownership.Tags(lacks)})
	return err
}

// copyTo copies an image of the own account to another account.
func (o *Distributor) copyTo(ctx context.Context, s *step.Scope, from Image, account string) (made Image, err error) {
	other, err := o.in(ctx, account)
	if err != nil {
		return Image{}, err
	}
	c := o.copier(other, s, from, from.Region)
	existing, err := c.taken(ctx, from.Region)
	if err != nil {
		return Image{}, err
	}
	if len(existing) == 0 {
		key, failed := o.permit(ctx, s, from, account)
		if failed != nil {
			return Image{}, failed
		}
		if key != "" {
			defer func() {
				err = errors.Join(err, s.Discard(ctx, func(r step.Resource) bool { return r.Key == key }))
			}()
		}
	}
	return c.only(ctx)
}

// permit allows an account to copy an image, and returns the key of the resource that the
// scope owns until the permission is revoked. It is empty if the account had the
// permission already.
func (o *Distributor) permit(ctx context.Context, s *step.Scope, i Image, account string) (string, error) {
	change := SharingChange{With: []string{account}, Snapshots: true}
	if err := o.own.ofManagedKey(ctx, i); err != nil {
		return "", err
	}
	shared, err := o.own.shared(ctx, i, change)
	if err != nil {
		return "", err
	}
	lacks := !shared.Before.has(account)
	for _, p := range shared.parts {
		lacks = lacks || !p.before.has(account)
	}
	if !lacks {
		return "", nil
	}
	// Existing permissions stay: missing ones are added, and revoked later.
	with := []string{ownership.WithGrantee, account}
	var parts []string
	for _, p := range shared.parts {
		if !p.before.has(account) {
			parts = append(parts, p.ID)
		}
	}
	if !shared.Before.has(account) {
		with = append(with, ownership.WithName, i.ID)
	}
	with = append(with, ownership.WithSnapshots, strings.Join(parts, ","))
	owner := &ownership.Owner{Session: o.own.session, Run: s.Run.ID, ID: ownership.NewID()}
	key := "permission of " + account + " for " + i.ID + " " + uuid.NewString()
	want := owner.Resource(ownership.Permission, key, i.Region, with...)
	return key, step.Run(ctx, s, "let account "+account+" copy "+i.ID, func(ctx context.Context) error {
		_, err := ownership.Acquire(ctx, s, "share", want, func(ctx context.Context) (string, struct{}, error) {
			return i.ID + " " + account, struct{}{}, o.own.share(ctx, &shared, change)
		})
		return err
	})
}

// ofManagedKey returns an error if an image cannot be shared because of its encryption
// key.
func (a *Account) ofManagedKey(ctx context.Context, i Image) error {
	s, err := a.shared(ctx, i, SharingChange{})
	if err != nil {
		return err
	}
	return a.shareable(ctx, i.Region, []Shared{s}, SharingChange{})
}

// shareIn shares an image with all accounts, and gives it its tags there.
func (o *Distributor) shareIn(ctx context.Context, s *step.Scope, i Image, p *placing) {
	err := step.Run(ctx, s, "share the image in "+i.Region, func(ctx context.Context) error {
		if err := o.own.ofManagedKey(ctx, i); err != nil {
			return err
		}
		o.sharedTags(ctx, s, i)
		change := SharingChange{With: o.accounts(), Snapshots: true}
		shared, err := o.own.shared(ctx, i, change)
		if err != nil {
			return err
		}
		return o.own.share(ctx, &shared, change)
	})
	for _, account := range o.accounts() {
		at := builder.Placement{Account: account, Region: i.Region, ID: i.ID, Shared: true}
		if err == nil {
			p.add(at, o.tagIn(ctx, i, account))
			continue
		}
		p.add(at, err)
	}
}

// tagIn tags an image in an account that it is shared with: the owner's tags are not
// visible there.
func (o *Distributor) tagIn(ctx context.Context, i Image, account string) error {
	other, err := o.in(ctx, account)
	if err != nil || other == nil {
		return err
	}
	if err := other.visible(ctx, i.Region, i.ID); err != nil {
		return err
	}
	tags := plainTags(i.Tags)
	maps.DeleteFunc(tags, func(k, _ string) bool { return strings.HasPrefix(k, sharedTag) })
	if len(tags) == 0 {
		return nil
	}
	_, err = access.Call(ctx, other.session.EC2(i.Region).CreateTags, &ec2.CreateTagsInput{Resources: []string{i.ID}, Tags: ownership.Tags(tags)})
	return err
}

// sharedTag is the prefix of the keys of tags that are visible to the accounts that an
// image is shared with.
const sharedTag = "ec2:SharedTag/"

// sharedTags tags an image with those of its bake tags that other accounts should see, if
// the account is permitted to.
func (o *Distributor) sharedTags(ctx context.Context, s *step.Scope, i Image) {
	tags := map[string]string{}
	for k, v := range plainTags(i.Tags) {
		if strings.HasPrefix(k, "bake:") && i.Tags[sharedTag+k] != v {
			tags[sharedTag+k] = v
		}
	}
	if len(tags) == 0 {
		return
	}
	_, err := access.Call(ctx, o.own.session.EC2(i.Region).CreateTags, &ec2.CreateTagsInput{Resources: []string{i.ID}, Tags: ownership.Tags(tags)})
	if err != nil && context.Cause(ctx) == nil {
		s.Warn(ctx, "The tags of image %s in %s are not seen by those that it is shared with: %s", i.ID, i.Region, err)
	}
}

// visible waits until an image that was shared with the account is available to it.
func (a *Account) visible(ctx context.Context, region, id string) error {
	return a.session.Watch(2*time.Second, 2*time.Minute).Until(ctx, "image "+id+" in "+region+" to be visible in account "+a.ID, func(ctx context.Context) (bool, error) {
		found, err := a.byID(ctx, region, id)
		return len(found) > 0, err
	})
}

// RevokedTag is the tag of images that must not be used any more. Its value is the reason.
const RevokedTag = imagetag.Revoked

// whole returns an error if an image of the account, or one that is shared with it, cannot
// be shared in a region.
func (a *Account) whole(ctx context.Context, region, id string) error {
	flaw, err := a.flaw(ctx, region, id)
	if err == nil && flaw != "" {
		err = errors.New(flaw)
	}
	return err
}

// flaw returns why an image of the account, or one that is shared with it, cannot be
// shared in a region, or "" if it can. The error means that this could not be determined.
func (a *Account) flaw(ctx context.Context, region, id string) (string, error) {
	found, err := a.byID(ctx, region, id)
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return fmt.Sprintf("account %s has no image %s in %s, and none is shared with it", a.ID, id, region), nil
	}
	i := found[0]
	if i.State != string(types.ImageStateAvailable) {
		return fmt.Sprintf("image %s in %s is %s", id, region, i.State), nil
	}
	for _, tag := range []string{RevokedTag, sharedTag + RevokedTag, ownership.RejectedTag, ownership.QuarantineTag} {
		if why, ok := i.Tags[tag]; ok {
			return fmt.Sprintf("image %s in %s has the tag %s: %s", id, region, tag, why), nil
		}
	}
	if i.Owner != a.ID {
		return "", nil
	}
	parts, err := a.snapshots(ctx, i)
	if err != nil {
		return "", err
	}
	if len(parts) < len(i.Snapshots()) {
		return fmt.Sprintf("a snapshot of image %s in %s is missing", id, region), nil
	}
	for _, s := range parts {
		if s.State != string(types.SnapshotStateCompleted) {
			return fmt.Sprintf("snapshot %s of image %s in %s is %s", s.ID, id, region, s.State), nil
		}
	}
	return "", nil
}
