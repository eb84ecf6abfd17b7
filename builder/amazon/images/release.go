package images

import (
	"cmp"
	"context"
	"errors"
	"slices"
)

// generations is the maximum number of generations for which the sources of an image are
// traced.
const generations = 20

// Ancestor is what an image was made from.
type Ancestor struct {
	ID     string `json:"id"`
	Region string `json:"region"`
	Name   string `json:"name,omitempty"` // absent if it cannot be seen: it is gone, or private
	Owner  string `json:"owner,omitempty"`
	Copied bool   `json:"copied"` // what was made from it is a copy; otherwise a machine of it was changed
}

// Lineage returns the ancestors of an image, the nearest first, as far as they are
// visible.
func (a *Account) Lineage(ctx context.Context, i Image) (all []Ancestor, err error) {
	seen := map[string]bool{i.ID: true}
	for range generations {
		if i.SourceImage == "" || seen[i.SourceImage] {
			return all, nil
		}
		seen[i.SourceImage] = true
		from := Ancestor{ID: i.SourceImage, Region: cmp.Or(i.SourceRegion, i.Region), Copied: i.isCopy()}
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

// release lists the copies of an image of the account in the regions, without the image
// itself: images copied from it, or from the image that it is a copy of (if that belongs
// to another account, only under the name of the account's own copy); and images with the
// same tags bake:image and bake:release. With an error, it returns the images that were
// found nevertheless.
func (a *Account) release(ctx context.Context, i Image, regions []string) ([]Image, error) {
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
			// An image of another account may have been copied for many purposes.
			return c.isCopy() && (c.SourceImage != foreign || c.Name == root.Name)
		})
	}
	delete(family, i.ID)
	var all []Image
	for _, c := range family {
		all = append(all, c)
	}
	sortImages(all)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	return all, joined(errs)
}

// joined joins the errors of regions, at most one for each.
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

// original returns the first image of the account in the chain of copies that ends in an
// image, or the image itself if it is not a copy. foreign is the image that original is a
// copy of, if that belongs to another account or is no longer visible. With an error,
// original is the last image that was reached.
func (a *Account) original(ctx context.Context, i Image) (original Image, foreign string, err error) {
	for range generations {
		if !i.isCopy() {
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
