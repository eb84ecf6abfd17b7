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
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/internal/imagetag"
	"bake/step"
)

// location is an account in a region.
type location struct {
	*Account
	region string
}

// openAccount returns an account of the distribution, with the role there assumed, and the
// regions that it has enabled; nil if there is no role to assume in it.
func (o *Distributor) openAccount(ctx context.Context, account string) (*Account, []string, error) {
	a, err := o.in(ctx, account)
	if err != nil || a == nil {
		return nil, nil, err
	}
	regions, err := a.enabled(ctx)
	if err != nil {
		return nil, nil, &PlaceError{account: account, err: err}
	}
	return a, regions, nil
}

// locations returns all places that the distributor reaches: the regions of the distribution and of the
// account, in the account itself and in each account that there is a role for, as far as
// they are enabled there.
func (o *Distributor) locations(ctx context.Context) (all []location, err error) {
	regions := slices.Compact(slices.Sorted(slices.Values(slices.Concat(o.to.Regions, o.own.Regions))))
	for _, id := range append([]string{o.own.ID}, o.accounts()...) {
		if o.refused.has(id, "") {
			continue
		}
		a, enabled, err := o.openAccount(ctx, id)
		switch {
		case err != nil && o.refused.take(ctx, id, "", err):
			continue
		case err != nil:
			return nil, err
		case a == nil:
			continue
		}
		its := regions
		if a != o.own {
			its = slices.DeleteFunc(slices.Clone(regions), func(r string) bool { return !slices.Contains(enabled, r) })
		}
		for _, r := range its {
			if !o.refused.has(id, r) {
				all = append(all, location{a, r})
			}
		}
	}
	return all, nil
}

// histories returns the histories of a channel in all places that have it.
func (o *Distributor) histories(ctx context.Context, parameter string) (map[location][]Entry, error) {
	locations, err := o.locations(ctx)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	found := map[location][]Entry{}
	var each errgroup.Group
	each.SetLimit(regionsAtOnce)
	for _, at := range locations {
		each.Go(func() error {
			history, err := at.History(ctx, at.region, parameter)
			if err != nil && o.refused.take(ctx, at.ID, at.region, err) {
				return nil
			}
			if err != nil {
				return &PlaceError{at.ID, at.region, err}
			}
			mu.Lock()
			defer mu.Unlock()
			if len(history) > 0 {
				found[at] = history
			}
			return nil
		})
	}
	return found, each.Wait()
}

// ErrNoChannel is the error of a channel that names nothing.
var ErrNoChannel = errors.New("there is no channel")

// Named lists what a channel names, in all places that the distributor reaches. In none of its regions may
// it be missing in the own account, which is an [ErrNoChannel], and it must name one release
// everywhere.
func (o *Distributor) Named(ctx context.Context, parameter string) (all []builder.Placement, names string, err error) {
	histories, err := o.histories(ctx, parameter)
	if err != nil {
		return nil, "", err
	}
	releases := map[string]string{}
	for at, history := range histories {
		found, err := at.byID(ctx, at.region, history[0].Image)
		if err != nil {
			return nil, "", err
		}
		if len(found) == 0 {
			return nil, "", fmt.Errorf("the channel %s names %s in %s, which is not there for account %s", parameter, history[0].Image, at.region, at.ID)
		}
		releases[found[0].Name] = at.region
		all = append(all, builder.Placement{Account: at.ID, Region: at.region, ID: history[0].Image, Shared: found[0].Owner != at.ID})
	}
	for _, region := range o.to.Regions {
		if !slices.ContainsFunc(all, func(p builder.Placement) bool { return p.Account == o.own.ID && p.Region == region }) {
			return nil, "", fmt.Errorf("%w %s in %s", ErrNoChannel, parameter, region)
		}
	}
	if len(all) == 0 {
		return nil, "", fmt.Errorf("%w %s in %s", ErrNoChannel, parameter, strings.Join(o.own.Regions, ", "))
	}
	if len(releases) > 1 {
		return nil, "", fmt.Errorf("the channel %s names different images: %s. Promote or roll back until it does not", parameter, strings.Join(slices.Sorted(maps.Keys(releases)), ", "))
	}
	for name := range releases {
		names = name
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Account+all[i].Region < all[j].Account+all[j].Region })
	return all, names, nil
}

// candidate is an image that a channel has named before and that is still complete.
type candidate struct{ id, name, release string }

// Rollback makes a channel name its previous release, the same everywhere, and returns the
// name of its image. If to is an ID, the name of an image or the value of its tag
// bake:release, the channel goes back to that release, whenever it named it. Rollback
// skips images that are no longer complete, or are listed in without.
func (o *Distributor) Rollback(ctx context.Context, s *step.Scope, parameter, to, what string, without ...string) (release string, err error) {
	histories, err := o.histories(ctx, parameter)
	if err != nil {
		return "", err
	}
	if len(histories) == 0 {
		return "", fmt.Errorf("%w %s in %s", ErrNoChannel, parameter, strings.Join(o.own.Regions, ", "))
	}
	// The place that is written last decides: as long as it names the release that is left,
	// a rollback that was killed can be repeated.
	locations := o.inOrder(histories)
	last := locations[len(locations)-1]
	if to == "" {
		histories[last] = before(histories[last], without)
	}
	named := map[location][]candidate{}
	for _, at := range locations {
		if named[at], err = at.wholeOf(ctx, at.region, histories[at], without); err != nil {
			return "", err
		}
	}
	for _, c := range named[last] {
		if to != "" && !slices.ContainsFunc(locations, func(at location) bool {
			return slices.ContainsFunc(named[at], func(other candidate) bool {
				return other.name == c.name && slices.Contains([]string{other.id, other.name, other.release}, to)
			})
		}) {
			continue
		}
		var moves []*move
		for _, at := range locations {
			if i := slices.IndexFunc(named[at], func(other candidate) bool { return other.name == c.name }); i >= 0 {
				moves = append(moves, &move{Account: at.Account, region: at.region, parameter: parameter, image: named[at][i].id, why: line(s, what)})
			}
		}
		if len(moves) == len(locations) {
			return c.name, o.own.change(ctx, s, moves)
		}
	}
	if to != "" {
		return "", fmt.Errorf("the channel %s has never pointed to %s, or that release is no longer complete everywhere; 'bake images channel' shows its history", parameter, to)
	}
	return "", fmt.Errorf("the channel %s has no earlier image that is still complete everywhere", parameter)
}

// inOrder returns places in the order in which they are written: the other accounts, then
// the own one, its home region last.
func (o *Distributor) inOrder(histories map[location][]Entry) []location {
	all := slices.Collect(maps.Keys(histories))
	key := func(at location) string {
		own := at.ID == o.own.ID
		return fmt.Sprintf("%t %t %s %s", own, own && at.region == o.own.home(), at.ID, at.region) // false < true
	}
	sort.Slice(all, func(i, j int) bool { return key(all[i]) < key(all[j]) })
	return all
}

// before returns the images that a channel may go back to: those that it named before it
// first named its current image, so that two rollbacks do not return to the start. If the
// channel only has to leave some images, these are all the images that it has named;
// images that it was rolled back from come last.
func before(history []Entry, leave []string) []Entry {
	first := 0
	for n, e := range history {
		if e.Image == history[0].Image {
			first = n
		}
	}
	switch {
	case len(leave) == 0:
		return history[first+1:]
	case slices.Contains(leave, history[0].Image):
		return slices.Concat(history[first:], history[:first])
	}
	return history // its image may stay
}

// wholeOf returns the images of a history that are still complete, the newest first.
func (a *Account) wholeOf(ctx context.Context, region string, history []Entry, without []string) (all []candidate, err error) {
	seen := slices.Clone(without)
	for _, e := range history {
		if slices.Contains(seen, e.Image) {
			continue
		}
		seen = append(seen, e.Image)
		flaw, err := a.flaw(ctx, region, e.Image)
		if err != nil {
			return nil, &PlaceError{a.ID, region, err}
		}
		if flaw != "" {
			continue
		}
		found, err := a.byID(ctx, region, e.Image)
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			all = append(all, candidate{i.ID, i.Name, i.Tags[ReleaseTag]})
		}
	}
	return all, nil
}

// Approve records in the tags of an image and of its copies that the caller approves it for
// a channel. tag is the key. If some regions fail, it returns the approved images of the
// others with the error.
func (a *Account) Approve(ctx context.Context, ref, tag string, now time.Time) (all []Image, who string, err error) {
	i, err := a.One(ctx, ref)
	if err != nil {
		return nil, "", err
	}
	if i.Owner != a.ID {
		return nil, "", fmt.Errorf("image %s in %s belongs to account %s, which approves it", i.ID, i.Region, i.Owner)
	}
	if who, err = a.session.Caller(ctx); err != nil {
		return nil, "", err
	}
	regions, err := a.enabled(ctx)
	if err != nil {
		return nil, "", err
	}
	copies, err := a.release(ctx, i, regions)
	if cause := context.Cause(ctx); cause != nil {
		return nil, "", cause
	}
	value := []rune(who + " at " + now.UTC().Format(time.RFC3339))
	all, failed := a.tagAll(ctx, append([]Image{i}, copies...), map[string]string{tag: string(value[max(0, len(value)-tagValue):])})
	return all, who, joined([]error{err, failed})
}

// tagAll tags images of the account, and returns those that were tagged: a failing region
// does not affect the others.
func (a *Account) tagAll(ctx context.Context, all []Image, tags map[string]string) ([]Image, error) {
	return inRegions(ctx, regionsOf(all), func(ctx context.Context, region string) ([]Image, error) {
		in := slices.DeleteFunc(slices.Clone(all), func(i Image) bool { return i.Region != region })
		var ids []string
		for _, i := range in {
			ids = append(ids, i.ID)
		}
		if _, err := access.Call(ctx, a.session.EC2(region).CreateTags, &ec2.CreateTagsInput{Resources: ids, Tags: ownership.Tags(tags)}); err != nil {
			return nil, err
		}
		return in, nil
	})
}

// Revocation is the result of revoking one image.
type Revocation struct {
	Image    Image    `json:"image"`
	Disabled bool     `json:"disabled"`
	Channels []string `json:"channels,omitempty"` // that name it still
}

// Revoke revokes an image everywhere: the image, its copies in all regions and in the
// accounts of the distribution and, with descendants, the images made from it. Channels go back
// to what they named before; then each image gets a tag that keeps it out of every
// channel, and is disabled. An image that a channel still names, because the channel has
// named no other before, is not disabled, and an error says so. Regions and accounts that
// fail are left out, and the error names them: nothing is disabled where the channels
// cannot be read. Revoke may be repeated.
func (o *Distributor) Revoke(ctx context.Context, s *step.Scope, ref, why string, descendants bool, now func() time.Time) ([]Revocation, error) {
	i, err := o.own.One(ctx, ref)
	if err != nil {
		return nil, err
	}
	if err := o.own.owns(i); err != nil {
		return nil, err
	}
	regions, err := o.own.enabled(ctx)
	if err != nil {
		return nil, err
	}
	o.own.Regions = regions // regardless of the place: an image is revoked everywhere
	o = &Distributor{own: o.own, to: o.to, role: o.role, refused: &refusals{of: map[string]bool{}}}
	copies, err := o.own.release(ctx, i, regions)
	o.leave(ctx, o.own, err)
	all := map[*Account][]Image{o.own: append([]Image{i}, copies...)}
	o.related(ctx, all, descendants)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	var ids []string
	for _, of := range all {
		for _, i := range of {
			ids = append(ids, i.ID)
		}
	}
	still, err := o.vacate(ctx, s, ids, ref+" revoked")
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if still == nil {
		err = fmt.Errorf("no image is disabled, because it is not known which channels name it; revoke the image again: %w", err)
	}
	errs := []error{err}
	var done []Revocation
	for a, of := range all {
		errs = append(errs, tagRevoked(ctx, s, a, of, shortened(now().UTC().Format(time.RFC3339)+" "+why))...)
		for _, i := range of {
			r := Revocation{Image: i, Channels: still[i.ID]}
			if !o.refused.has(a.ID, i.Region) && len(r.Channels) == 0 {
				remover := &Remover{Account: a, Scope: s, Guards: Guards{Now: now}}
				err := remover.disable(ctx, &Removal{Image: i}, i)
				r.Disabled = err == nil
				if err != nil {
					errs = append(errs, &PlaceError{a.ID, i.Region, fmt.Errorf("disabling image %s: %w", i.ID, err)})
				}
			}
			done = append(done, r)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return done, cause
	}
	key := func(i int) string { return done[i].Image.Owner + done[i].Image.Region + done[i].Image.ID }
	sort.Slice(done, func(i, j int) bool { return key(i) < key(j) })
	return done, errors.Join(append(errs, o.refused.errs...)...)
}

// tagRevoked tags the images of an account as revoked, with the reason.
func tagRevoked(ctx context.Context, s *step.Scope, a *Account, of []Image, why string) (errs []error) {
	_, err := a.tagAll(ctx, of, map[string]string{RevokedTag: why})
	for region, err := range refusing(err) {
		errs = append(errs, &PlaceError{a.ID, region, fmt.Errorf("tagging with %s: %w", RevokedTag, err)})
	}
	if _, err := a.tagAll(ctx, of, map[string]string{sharedTag + RevokedTag: why}); err != nil && context.Cause(ctx) == nil {
		s.Warn(ctx, "That the images of account %s are revoked is not seen by those that they are shared with: %s", a.ID, err)
	}
	return errs
}

// leave excludes the regions whose errors err joins.
func (o *Distributor) leave(ctx context.Context, a *Account, err error) {
	for region, err := range refusing(err) {
		o.refused.take(ctx, a.ID, region, err)
	}
}

// shortened cuts a text to the length of a tag value.
func shortened(text string) string {
	r := []rune(text)
	return string(r[:min(len(r), tagValue)])
}

// related adds to the images of each account their copies and, with descendants, the
// images made from them.
func (o *Distributor) related(ctx context.Context, all map[*Account][]Image, descendants bool) {
	regions := map[*Account][]string{}
	for _, id := range append([]string{o.own.ID}, o.accounts()...) {
		a, its, err := o.openAccount(ctx, id)
		if err != nil {
			o.refused.take(ctx, id, "", err)
		} else if a != nil {
			regions[a] = its
		}
	}
	known := map[string]bool{}
	var from []string
	for _, i := range all[o.own] {
		known[i.ID] = true
		from = append(from, i.ID)
	}
	for generation := 0; len(from) > 0 && generation < generations; generation++ {
		ids := from
		from = nil
		for a, its := range regions {
			for _, filter := range []string{"source-image-id", "tag:" + parentTag} {
				its = slices.DeleteFunc(slices.Clone(its), func(r string) bool { return o.refused.has(a.ID, r) })
				found, err := a.having(ctx, its, filter, ids)
				o.leave(ctx, a, err)
				for _, i := range found {
					if !known[i.ID] && (descendants || i.isCopy() && filter == "source-image-id") {
						known[i.ID] = true
						all[a], from = append(all[a], i), append(from, i.ID)
					}
				}
			}
		}
	}
}

// having lists the images whose attribute, named by a filter, has one of any number of
// values. If some regions fail, it returns the images of the others with the error.
func (a *Account) having(ctx context.Context, regions []string, filter string, values []string) (all []Image, err error) {
	for some := range slices.Chunk(values, filterValues) {
		found, failed := a.listIn(ctx, regions, Query{Filters: []Filter{{filter, some}}})
		all, err = append(all, found...), errors.Join(err, failed)
	}
	return all, err
}

// parentTag is the tag that records which image an image was made from.
const parentTag = imagetag.Parent

// vacate rolls back all channels that name one of the images. It returns, by image, the
// channels that still name one; these are not known for places that refused access.
func (o *Distributor) vacate(ctx context.Context, s *step.Scope, ids []string, what string) (still map[string][]string, err error) {
	locations, err := o.locations(ctx)
	if err != nil {
		return nil, err
	}
	still = map[string][]string{}
	var errs []error
	tried := map[string]bool{}
	for _, at := range locations {
		names, err := at.naming(ctx, at.region, ids)
		if err != nil && !o.refused.take(ctx, at.ID, at.region, err) {
			return nil, err
		}
		for name, image := range names {
			if !tried[name] {
				tried[name] = true
				if _, err := o.Rollback(ctx, s, name, "", what, ids...); err == nil {
					continue
				} else if cause := context.Cause(ctx); cause != nil {
					return nil, cause
				} else {
					errs = append(errs, fmt.Errorf("%w; have it name another image, or delete the parameter, and revoke the image again: until then it can be launched", err))
				}
			}
			still[image] = append(still[image], name)
		}
	}
	return still, errors.Join(errs...)
}

// naming returns the channels in a region that now name one of the images, with the ID of
// that image.
func (a *Account) naming(ctx context.Context, region string, ids []string) (map[string]string, error) {
	l := a.newUsageScan(region, nil, Guards{})
	names, _, err := l.parameters(ctx)
	if err != nil {
		return nil, err
	}
	values, err := l.values(ctx, names)
	all := map[string]string{}
	for _, name := range names {
		if image := values[name].Value; slices.Contains(ids, image) {
			all[name] = image
		}
	}
	return all, err
}
