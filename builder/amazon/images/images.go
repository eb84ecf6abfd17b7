// Package images manages existing images of any origin: it lists, shows and compares them,
// copies, shares and promotes them, and revokes and removes them. It works on AWS and on
// any cloud that replaces it.
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

	"golang.org/x/sync/errgroup"

	"bake/builder/amazon"
	"bake/builder/amazon/internal/access"
)

// Place defines the owner and the regions of images.
type Place struct {
	Regions []string // none: that of the AWS configuration
	All     bool     // all regions that are enabled for the account, instead of Regions
	Profile string   // empty: as the AWS configuration says
	Cloud   amazon.Cloud
	Env     []string // for the settings of waiting, as "NAME=value"

	// Warn, if not nil, is called with problems while bake keeps trying.
	Warn func(ctx context.Context, format string, args ...any)

	// Say, if not nil, is called with descriptions of what bake waits for.
	Say func(ctx context.Context, format string, args ...any)
}

// Account gives access to the images of one account.
type Account struct {
	ID      string   // its number
	Regions []string // that the place names, in order, at least one

	session *access.Session
	page    int32 // page size of listings
	named   bool  // the place names regions, and no others are searched
	place   Place

	reports *reports         // that were made; nil: none are remembered
	assumed *assumedAccounts // other accounts; nil: this is one
}

// Open opens the account that the credentials of the place belong to.
func Open(ctx context.Context, p Place) (*Account, error) {
	o := access.Defaults()
	o.Profile = p.Profile
	if len(p.Regions) > 0 {
		o.Region = p.Regions[0]
	}
	cloud := p.Cloud
	cloud.Warn = p.Warn
	session, err := access.Open(ctx, &o, nil, cloud, p.Env)
	if err != nil {
		return nil, err
	}
	if session.Account == "" {
		return nil, errors.New("AWS did not return the account of these credentials")
	}
	a := &Account{ID: session.Account, Regions: slices.Compact(slices.Sorted(slices.Values(p.Regions))), session: session, page: pageSize, named: p.All || len(p.Regions) > 0, place: p, reports: &reports{of: map[string][]reportEntry{}}, assumed: &assumedAccounts{of: map[string]*Account{}}}
	if p.All {
		a.Regions, err = session.Regions(ctx, false)
	}
	if len(a.Regions) == 0 {
		a.Regions = []string{session.Region}
	}
	return a, err
}

func (a *Account) say(ctx context.Context, format string, args ...any) {
	if a.place.Say != nil {
		a.place.Say(ctx, format, args...)
	}
}

// home returns the region that the account was opened in: the first named one, or that of
// the AWS configuration.
func (a *Account) home() string { return a.session.Region }

// enabled lists the regions that are enabled for the account, in order.
func (a *Account) enabled(ctx context.Context) ([]string, error) {
	return a.session.Regions(ctx, false)
}

// RegionError is the error of one of several regions. It does not prevent work on the
// others.
type RegionError struct {
	Region string
	err    error
}

func (e *RegionError) Error() string { return e.Region + ": " + e.err.Error() }
func (e *RegionError) Unwrap() error { return e.err }

// regionsAtOnce is how many regions are queried concurrently. AWS limits calls per region.
const regionsAtOnce = 16

// inRegions calls do for each region, several at once, and joins the results in the order
// of the regions, and the errors, each a *[RegionError]. When ctx ends, the error is its
// cause.
func inRegions[T any](ctx context.Context, regions []string, do func(ctx context.Context, region string) ([]T, error)) ([]T, error) {
	var (
		each  errgroup.Group
		mu    sync.Mutex
		errs  []error
		found = make([][]T, len(regions))
	)
	each.SetLimit(regionsAtOnce)
	for i, region := range regions {
		each.Go(func() error {
			in, err := do(ctx, region)
			mu.Lock()
			defer mu.Unlock()
			found[i] = in
			if err != nil {
				errs = append(errs, &RegionError{region, err})
			}
			return nil
		})
	}
	_ = each.Wait() // the errors are in errs
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	sort.Slice(errs, func(i, j int) bool { return errs[i].Error() < errs[j].Error() })
	return slices.Concat(found...), errors.Join(errs...)
}

// refusing returns the errors by region, if the error joins errors of regions.
func refusing(err error) map[string]error {
	all := map[string]error{}
	switch e := err.(type) { //nolint:errorlint // as inRegions has joined them
	case *RegionError:
		all[e.Region] = e.err
	case interface{ Unwrap() []error }:
		for _, one := range e.Unwrap() {
			maps.Copy(all, refusing(one))
		}
	}
	return all
}

// NotFoundError is the error for a name or ID on the command line for which there is no
// image.
type NotFoundError struct {
	Ref     string
	regions []string // where it was looked for
}

func (e *NotFoundError) Error() string {
	where := strings.Join(e.regions, ", ")
	if len(e.regions) > 3 {
		where = fmt.Sprintf("%d regions", len(e.regions))
	}
	if isID(e.Ref) {
		return fmt.Sprintf("there is no image %s in %s that this account can use; -region or -regions names other regions", e.Ref, where)
	}
	return fmt.Sprintf("this account has no image named %q in %s; 'bake images list' shows the names, and -region or -regions names other regions", e.Ref, where)
}

// isID reports whether text is the ID of an image, and not a name.
func isID(text string) bool {
	rest, ok := strings.CutPrefix(text, "ami-")
	return ok && (len(rest) == 8 || len(rest) == 17) && strings.Trim(rest, "0123456789abcdef") == ""
}
