// Package sourceami finds the image that a build starts from: its options, the image that
// they select, and the errors if there is none.
package sourceami

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/config/schema"
	"bake/internal/lazyregexp"
	"bake/step"
)

// Filters select images, subnets and other resources of EC2. Options embed it.
type Filters struct {
	// Filters of the EC2 API, by name, such as `name` or `tag:Role`. All must match. A value
	// can contain the wildcards `*` and `?`, and several values separated by commas, one of
	// which must match.
	Filters map[string]string `hcl:"filters,optional"`

	// A single filter, added to `filters`. Repeatable.
	Filter []NameValue `hcl:"filter,block"`
}

// NameValue is one filter.
type NameValue struct {
	// Name of the filter, as in the EC2 API.
	Name string `hcl:"name"`

	// Value of the filter, as in `filters`.
	Value string `hcl:"value"`
}

// EC2 returns the filters in the form of the API, in order of their names; none if f is
// nil.
func (f *Filters) EC2() []types.Filter {
	if f == nil {
		return nil
	}
	all := maps.Clone(f.Filters)
	if all == nil {
		all = map[string]string{}
	}
	for _, nv := range f.Filter {
		all[nv.Name] = nv.Value
	}
	var out []types.Filter
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, types.Filter{Name: &name, Values: values(all[name])})
	}
	return out
}

// wrongFilter matches EC2's message about an unknown filter name.
var wrongFilter = lazyregexp.New(`(?i)\bfilter '([^']+)' is (?:invalid|not valid)`)

// Blame replaces an error that EC2 returned for the name of a filter by one that points to
// the filter. The filters must be those that src was decoded into, or nil.
func (f *Filters) Blame(src *schema.Source, err error) error {
	if err == nil || f == nil {
		return err
	}
	m := wrongFilter.Get().FindStringSubmatch(err.Error())
	if m == nil || !access.Is(err, "InvalidParameterValue") {
		return err
	}
	name, at := m[1], any(&f.Filters)
	if _, ok := f.Filters[name]; !ok {
		i := slices.IndexFunc(f.Filter, func(nv NameValue) bool { return nv.Name == name })
		if i < 0 {
			return err // one of bake's own filters
		}
		at = &f.Filter[i].Name
	}
	return access.Blame(err, src.Errorf(at, "Unknown filter", "EC2 has no filter %q here. The EC2 API reference lists the filters; to filter by a tag, use \"tag:\" and its key.", name))
}

// values splits a filter's value at commas, as CSV does: a value in quotes may contain
// commas. Text that is not valid CSV is one value.
func values(text string) []string {
	r := csv.NewReader(strings.NewReader(text))
	r.TrimLeadingSpace = true
	fields, err := r.Read()
	if err != nil {
		return []string{text}
	}
	return fields
}

// Query selects an image. Its pointers point to options.
type Query struct {
	ID                *string // nil or empty: any
	Filters           *Filters
	Owners            []string
	MostRecent        bool // the newest, if there are several
	IncludeDeprecated bool

	// Blame is the option that an error points to if there is no such image, or more than
	// one.
	Blame any
}

// Find returns the one image that q selects. Its error points to the option that caused
// it, and on the local cloud it lists the existing images.
func (q *Query) Find(ctx context.Context, session *access.Session, src *schema.Source) (types.Image, error) {
	client := session.EC2(session.Region)
	id := aws.ToString(q.ID)
	in := &ec2.DescribeImagesInput{Filters: q.Filters.EC2(), Owners: q.Owners, IncludeDeprecated: &q.IncludeDeprecated}
	if id != "" {
		in.ImageIds = []string{id}
	}
	none := func(at any, format string, args ...any) (types.Image, error) {
		text := fmt.Sprintf(format, args...)
		if why := q.explained(session, in.Filters); why != "" {
			text += " " + why
		} else if session.Cloud.StandsIn() {
			text += offer(ctx, client)
		}
		return types.Image{}, access.Blame(step.ErrRefused, src.Errorf(at, "No such image", "%s", text))
	}
	out, err := access.Call(ctx, client.DescribeImages, in)
	if err == nil && id == "" { // images of the cache are found by ID only
		out.Images = slices.DeleteFunc(out.Images, func(i types.Image) bool { return slices.ContainsFunc(i.Tags, ownership.Cached) })
	}
	if id != "" && (access.NotFound(err) || access.Is(err, "InvalidAMIID.Malformed")) {
		return none(q.ID, "There is no image %q in %s, or it is not shared with this account.", id, session.Region)
	} else if err != nil {
		return types.Image{}, q.Filters.Blame(src, err)
	}
	images := out.Images
	sort.Slice(images, func(i, j int) bool {
		a, b := &images[i], &images[j]
		if c := cmp.Compare(aws.ToString(a.CreationDate), aws.ToString(b.CreationDate)); c != 0 {
			return c > 0
		}
		return aws.ToString(a.ImageId) < aws.ToString(b.ImageId)
	})
	switch {
	case len(images) == 0 && id != "":
		return none(q.Blame, "The image %s in %s does not match the filters.", id, session.Region)
	case len(images) == 0:
		return none(q.Blame, "No image of these owners matches these filters in %s.", session.Region)
	case len(images) > 1 && !q.MostRecent:
		var ids []string
		for _, i := range images[:min(3, len(images))] {
			ids = append(ids, aws.ToString(i.ImageId))
		}
		return types.Image{}, src.Errorf(q.Blame, "Several images match",
			"In %s %d images match, among them %s. Narrow the filters down, or set most_recent = true to take the newest.", session.Region, len(images), strings.Join(ids, ", "))
	}
	return images[0], nil
}

// explained returns the cloud's explanation for a missing image.
func (q *Query) explained(session *access.Session, filters []types.Filter) string {
	if session.Cloud.Explain == nil {
		return ""
	}
	by := map[string][]string{}
	for _, f := range filters {
		by[aws.ToString(f.Name)] = append(by[aws.ToString(f.Name)], f.Values...)
	}
	return session.Cloud.Explain(aws.ToString(q.ID), q.Owners, by)
}
