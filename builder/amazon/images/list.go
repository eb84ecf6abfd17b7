package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/names"
	"bake/builder/amazon/internal/ownership"
)

// Filter is a filter of EC2: Name is a filter name of DescribeImages, and one of Values
// must match, which may contain the wildcards * and ?.
type Filter struct {
	Name   string
	Values []string
}

// Query selects images to list. The zero value selects all of the account's own images.
type Query struct {
	Name      string   // pattern with the wildcards * and ?; empty: any
	Owners    []string // account IDs or aliases such as amazon; none: self
	Shared    bool     // images of others that this account may use, of any owner if Owners is empty
	Public    bool     // public images; it needs a Name or Owners
	Filters   []Filter
	OlderThan time.Duration // 0: any age
	Now       time.Time     // for OlderThan
}

// ErrEverybody is the error of a query for all public images.
var ErrEverybody = errors.New("-public needs a name pattern, -name or -owner: AWS has tens of thousands of public images in each region")

// Check returns an error if the query is invalid.
func (q Query) Check() error {
	if q.Public && q.Name == "" && len(q.Owners) == 0 {
		return ErrEverybody
	}
	if q.Public && q.Shared {
		return errors.New("-shared and -public cannot be combined")
	}
	for _, o := range q.Owners {
		if !names.IsAccount(o) && !slices.Contains(ownerAliases, o) {
			return fmt.Errorf("-owner: %q is neither an account ID, which has 12 digits, nor one of %s", o, strings.Join(ownerAliases, ", "))
		}
	}
	return nil
}

// Narrow reports whether the query selects less than all of the account's own images.
func (q Query) Narrow() bool {
	return q.Name != "" || len(q.Owners) > 0 || q.Shared || q.Public || len(q.Filters) > 0 || q.OlderThan > 0
}

// ownerAliases are the aliases of owners in EC2.
var ownerAliases = []string{"self", "amazon", "aws-backup-vault", "aws-marketplace"}

// States returns the states of images, except deregistered: a deregistered image no longer
// exists.
func States() (all []string) {
	for _, s := range types.ImageState("").Values() {
		if s != types.ImageStateDeregistered {
			all = append(all, string(s))
		}
	}
	return all
}

// input returns the query as a request for one page. It always restricts the owners:
// otherwise EC2 lists all public images.
func (q Query) input(page int32) *ec2.DescribeImagesInput {
	in := &ec2.DescribeImagesInput{
		IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true), MaxResults: &page, Owners: q.Owners,
	}
	switch {
	case q.Public:
		in.ExecutableUsers = []string{"all"}
	case q.Shared:
		in.ExecutableUsers = []string{"self"}
	case len(q.Owners) == 0:
		in.Owners = []string{"self"}
	}
	if q.Name != "" {
		in.Filters = append(in.Filters, types.Filter{Name: aws.String("name"), Values: []string{q.Name}})
	}
	for _, f := range q.Filters {
		in.Filters = append(in.Filters, types.Filter{Name: &f.Name, Values: f.Values})
	}
	return in
}

// pageSize is the maximum number of items on a page of EC2.
const pageSize = 1000

// List lists the images of the account's regions that match the query: by name, the oldest
// first, then by region. With an error, which joins a *[RegionError] for each region that
// could not be listed completely, it returns the images of the other regions.
func (a *Account) List(ctx context.Context, q Query) ([]Image, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	return a.listIn(ctx, a.Regions, q)
}

func (a *Account) listIn(ctx context.Context, regions []string, q Query) ([]Image, error) {
	found, err := inRegions(ctx, regions, func(ctx context.Context, region string) ([]Image, error) {
		all, err := a.describe(ctx, region, q.input(a.page))
		if err != nil {
			return nil, err // an incomplete listing would look complete
		}
		return slices.DeleteFunc(all, func(i Image) bool {
			return q.Shared && i.Owner == a.ID || q.OlderThan > 0 && q.Now.Sub(i.Created) < q.OlderThan
		}), nil
	})
	sortImages(found)
	return found, err
}

// sortImages sorts images by name, the oldest first, then by region.
func sortImages(all []Image) {
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return cmp.Or(strings.Compare(a.Name, b.Name), a.Created.Compare(b.Created), strings.Compare(a.Region, b.Region), strings.Compare(a.ID, b.ID)) < 0
	})
}

// describe lists all images that match a request, page by page. For a while EC2 still lists
// deregistered images; describe leaves them out, because they are gone and their names are
// free.
func (a *Account) describe(ctx context.Context, region string, in *ec2.DescribeImagesInput) (all []Image, err error) {
	err = pages(ctx, a.session.EC2(region).DescribeImages, in, func(token *string) { in.NextToken = token }, func(out *ec2.DescribeImagesOutput) *string {
		for _, i := range out.Images {
			if i.State != types.ImageStateDeregistered && !slices.ContainsFunc(i.Tags, ownership.Cached) {
				all = append(all, imageOf(region, i))
			}
		}
		return out.NextToken
	})
	return all, err
}

// pages repeats a call until there are no more pages. next processes a page and returns the
// token of the following one.
func pages[I, O, Opt any](ctx context.Context, op func(context.Context, *I, ...func(*Opt)) (*O, error), in *I, set func(token *string), next func(*O) *string) error {
	for {
		out, err := access.Call(ctx, op, in)
		if err != nil {
			return err
		}
		token := next(out)
		if aws.ToString(token) == "" {
			return nil
		}
		set(token)
	}
}

// byID returns the images of a region with these IDs that exist and can be used, of any
// owner.
func (a *Account) byID(ctx context.Context, region string, ids ...string) ([]Image, error) {
	in := &ec2.DescribeImagesInput{ImageIds: ids, IncludeDeprecated: aws.Bool(true), IncludeDisabled: aws.Bool(true)}
	all, err := a.describe(ctx, region, in)
	if len(ids) > 1 && absent(err) { // an ID that does not exist makes the whole call fail
		all = nil
		for _, id := range ids {
			one, err := a.byID(ctx, region, id)
			if err != nil {
				return nil, err
			}
			all = append(all, one...)
		}
		return all, nil
	}
	if absent(err) {
		return nil, nil
	}
	return all, err
}

// absent reports whether err means that an image does not exist, cannot exist, since
// launch templates may contain an invalid ID, or is not available to this account, which
// EC2 reports for private images of others.
func absent(err error) bool {
	return access.NotFound(err) || access.Is(err, "InvalidAMIID.Malformed") ||
		access.Is(err, "AuthFailure") && strings.Contains(err.Error(), "Not authorized for images")
}

// Find returns the images that ref names in the account's regions: one with this ID, of
// any owner, or the account's own images with exactly this name. The error is a
// *[NotFoundError] if there are none.
func (a *Account) Find(ctx context.Context, ref string) ([]Image, error) {
	return a.findIn(ctx, a.Regions, ref)
}

func (a *Account) findIn(ctx context.Context, regions []string, ref string) ([]Image, error) {
	var found []Image
	var err error
	if isID(ref) {
		found, err = inRegions(ctx, regions, func(ctx context.Context, region string) ([]Image, error) { return a.byID(ctx, region, ref) })
	} else {
		found, err = a.listIn(ctx, regions, Query{Name: exactly(ref)})
	}
	if len(found) > 0 && isID(ref) {
		return found, nil // IDs are unique, so errors of other regions do not matter
	}
	if len(found) == 0 && err == nil {
		err = &NotFoundError{ref, regions}
	}
	return found, err
}

// One returns the one image that ref names. If the place names no regions and the home
// region does not have an ID, One looks for it in all enabled regions. If several regions
// have an image with the name, One returns that of the home region.
func (a *Account) One(ctx context.Context, ref string) (Image, error) {
	found, err := a.Find(ctx, ref)
	if missing, ok := errors.AsType[*NotFoundError](err); ok && isID(ref) && !a.named {
		if all, lost := a.enabled(ctx); lost == nil {
			missing.regions = all
			found, err = a.findIn(ctx, all, ref)
		}
	}
	if err != nil {
		return Image{}, err
	}
	var where []string
	for _, i := range found {
		if len(found) == 1 || i.Region == a.home() {
			return i, nil
		}
		where = append(where, i.ID+" in "+i.Region)
	}
	return Image{}, fmt.Errorf("there are several images named %q: %s; give the ID of one", ref, strings.Join(where, ", "))
}

// exactly returns a filter value that matches only the text itself.
func exactly(text string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(text)
}
