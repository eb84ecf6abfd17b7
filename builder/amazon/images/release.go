package images

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// generations is how far the sources of an image are followed.
const generations = 20

// Ancestor is what an image was made from.
type Ancestor struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Name   string `json:"name,omitempty"` // absent if it cannot be seen: it is gone, or private
	Owner  string `json:"owner,omitempty"`
	Copied bool   `json:"copied"` // what was made from it is a copy; otherwise a machine of it was changed
}

// Lineage follows an image back to what it was made from, the nearest first, as far as
// that can be seen.
func (a *Account) Lineage(ctx context.Context, i Image) (all []Ancestor, err error) {
	seen := map[string]bool{i.ID: true}
	for range generations {
		if i.SourceImage == "" || seen[i.SourceImage] {
			return all, nil
		}
		seen[i.SourceImage] = true
		from := Ancestor{ID: i.SourceImage, Region: cmp.Or(i.SourceRegion, i.Region), Copied: i.IsCopy()}
		found, err := a.byID(ctx, from.Region, from.ID)
		if err != nil || len(found) == 0 {
			return append(all, from), err
		}
		i = found[0]
		from.Name, from.Owner = i.Name, i.Owner
		all = append(all, from)
	}
	return all, nil
}

// Release lists the copies of an image of the account in the regions, itself not among
// them: what was copied from it, or from what it is a copy of itself (if that is not the
// account's, only under the name of the account's own); and what has the same tags bake:image
// and bake:release. With an error there are those that were found nevertheless.
func (a *Account) Release(ctx context.Context, i Image, regions []string) ([]Image, error) {
	var errs []error
	answering := slices.Clone(regions)
	root, foreign, err := a.original(ctx, i)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil { // where its source was
		errs = append(errs, err)
	}
	family := map[string]Image{i.ID: i}
	keep := func(found []Image, err error, fits func(Image) bool) (news []string) {
		errs = append(errs, err)
		silent := refusing(err)
		answering = slices.DeleteFunc(answering, func(r string) bool { return silent[r] != nil })
		for _, c := range found {
			if _, known := family[c.ID]; !known && c.State != "failed" && fits(c) {
				family[c.ID] = c
				news = append(news, c.ID)
			}
		}
		return news
	}
	if image, release := i.Tags[ImageTag], i.Tags[ReleaseTag]; image != "" && release != "" {
		found, err := a.listIn(ctx, answering, Query{Filters: []Filter{{"tag:" + ImageTag, []string{exactly(image)}}, {"tag:" + ReleaseTag, []string{exactly(release)}}}})
		keep(found, err, func(Image) bool { return true })
	}
	if slices.Contains(regions, root.Region) {
		keep([]Image{root}, nil, func(Image) bool { return true })
	}
	from := slices.Compact([]string{root.ID, i.ID})
	if foreign != "" {
		from = append(from, foreign)
	}
	for len(from) > 0 && context.Cause(ctx) == nil {
		found, err := a.listIn(ctx, answering, Query{Filters: []Filter{{"source-image-id", from}}})
		from = keep(found, err, func(c Image) bool {
			// Of somebody else's image there may be copies for many purposes.
			return c.IsCopy() && (c.SourceImage != foreign || c.Name == root.Name)
		})
	}
	delete(family, i.ID)
	var all []Image
	for _, c := range family {
		all = append(all, c)
	}
	Sort(all)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return all, joined(errs)
}

// joined joins errors of regions, one of each.
func joined(errs []error) error {
	known := map[string]bool{}
	return errors.Join(slices.DeleteFunc(slices.Clone(errs), func(err error) bool {
		of := refusing(err)
		fresh := len(of) == 0
		for region := range of {
			fresh = fresh || !known[region]
			known[region] = true
		}
		return !fresh
	})...)
}

// original is the first image of the account on the way to one: what it is a copy of, or a copy
// of a copy, and so on; the image itself if it is none. foreign is what that is a copy of, if
// somebody else owns it, or it cannot be seen any more. With an error original is as far as the
// way was followed.
func (a *Account) original(ctx context.Context, i Image) (original Image, foreign string, err error) {
	for range generations {
		if !i.IsCopy() {
			break
		}
		region := cmp.Or(i.SourceRegion, i.Region)
		found, err := a.byID(ctx, region, i.SourceImage)
		switch {
		case err != nil:
			return i, "", &RegionError{region, err}
		case len(found) == 0 || found[0].Owner != a.ID:
			return i, i.SourceImage, nil
		}
		i = found[0]
	}
	return i, "", nil
}
