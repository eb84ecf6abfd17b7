package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Detail is all available information about an image.
type Detail struct {
	Image
	Sharing *Sharing   `json:"sharing,omitempty"` // known to the owner only
	Parts   []Snapshot `json:"snapshots"`         // those of the account
	Copies  []Image    `json:"copies"`            // in the regions that were searched
	Lineage []Ancestor `json:"lineage"`
	Launch  string     `json:"launch_command"`
}

// Show describes the image that ref names, and its copies in the regions; without regions,
// in all that are enabled for the account. If the error is not a *[NotFoundError], the
// detail contains what could be determined.
func (a *Account) Show(ctx context.Context, ref string, regions []string) (Detail, error) {
	image, err := a.One(ctx, ref)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Image: image, Parts: []Snapshot{}, Copies: []Image{}, Lineage: []Ancestor{}, Launch: a.launch(image)}
	var errs []error
	note := func(what string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
	}
	lineage, err := a.Lineage(ctx, image)
	d.Lineage = append(d.Lineage, lineage...)
	note("what the image was made from", err)
	if image.Owner == a.ID {
		d.own(ctx, a, note)
		if len(regions) == 0 {
			regions, err = a.enabled(ctx)
			note("the regions to look for copies in", err)
		}
		copies, err := a.release(ctx, image, regions)
		d.Copies = append(d.Copies, copies...)
		note("copies of the image", err)
	}
	if cause := context.Cause(ctx); cause != nil {
		return d, cause
	}
	return d, errors.Join(errs...)
}

// own queries attributes that are visible only to the owner of the image.
func (d *Detail) own(ctx context.Context, a *Account, note func(what string, err error)) {
	sharing, err := a.Sharing(ctx, d.Image)
	if note("who the image is shared with", err); err == nil {
		d.Sharing = &sharing
	}
	parts, err := a.snapshots(ctx, d.Image)
	note("the snapshots of the image", err)
	for i, s := range parts {
		sharing, err := a.snapshotSharing(ctx, d.Region, s.ID)
		if note("who snapshot "+s.ID+" is shared with", err); err == nil {
			parts[i].Sharing = &sharing
		}
	}
	d.Parts = append(d.Parts, parts...)
}

// launch returns a command that launches an image.
func (a *Account) launch(i Image) string {
	if a.session.Cloud.StandsIn() {
		return fmt.Sprintf("bake cloud run -region %s %s", i.Region, i.ID)
	}
	kind := "t3.micro"
	if strings.HasPrefix(i.Architecture, "arm64") {
		kind = "t4g.micro"
	}
	return fmt.Sprintf("aws ec2 run-instances --region %s --image-id %s --instance-type %s", i.Region, i.ID, kind)
}

// regionsOf returns the regions that images are in.
func regionsOf(all []Image) (regions []string) {
	for _, i := range all {
		regions = append(regions, i.Region)
	}
	slices.Sort(regions)
	return slices.Compact(regions)
}
