package images

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Broken describes a resource that launches machines from an image that cannot be launched,
// or that only names such an image for other resources.
type Broken struct {
	Region string `json:"region"`
	User   string `json:"user"`
	Image  string `json:"image,omitempty"`
	Reason string `json:"reason"`
}

func (b Broken) String() string {
	if b.Image == "" {
		return fmt.Sprintf("%s: %s", b.Region, b.Reason)
	}
	return fmt.Sprintf("%s: %s: image %s %s", b.Region, b.User, b.Image, b.Reason)
}

// CheckUse finds the parameters, launch templates, groups and fleets in the account's
// regions whose image is missing, disabled or no longer available to this account. It
// returns an error for each region in which a query failed.
func (a *Account) CheckUse(ctx context.Context) ([]Broken, error) {
	return inRegions(ctx, a.Regions, a.checkUse)
}

func (a *Account) checkUse(ctx context.Context, region string) (out []Broken, err error) {
	l := a.newUsageScan(region, nil, Guards{})
	l.onFailure = func(guard string, failed error) {
		if err == nil {
			err = fmt.Errorf("what uses images could not be found out (%s): %w", guard, failed)
		}
	}
	l.launchers(ctx, map[string]func(context.Context) error{GuardChannel: l.channels})
	l.resolve(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range l.broken {
		out = append(out, Broken{Region: region, User: u.User, Reason: u.User})
	}
	var ids []string
	for id := range l.uses {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	states := map[string]string{}
	for some := range slices.Chunk(ids, filterValues) {
		found, err := a.byID(ctx, region, some...)
		if err != nil {
			return nil, err
		}
		for _, i := range found {
			states[i.ID] = i.State
		}
	}
	for _, id := range ids {
		var reason string
		switch state := states[id]; state {
		case "":
			reason = "does not exist, or is not shared with this account"
		case string(types.ImageStateAvailable):
			continue
		default:
			reason = "is " + state
		}
		for _, u := range l.uses[id] {
			if !u.past {
				out = append(out, Broken{Region: region, User: u.User, Image: id, Reason: reason})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].String() < out[j].String() })
	return out, nil
}

// Unused returns those of the account's own images that nothing uses, and the known or
// possible uses of the others.
func (a *Account) Unused(ctx context.Context, images []Image, g Guards) ([]Image, Uses) {
	own := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return i.Owner != a.ID })
	uses := a.Uses(ctx, own, g)
	return slices.DeleteFunc(own, func(i Image) bool { return InUse(uses[i.ID]) }), uses
}
