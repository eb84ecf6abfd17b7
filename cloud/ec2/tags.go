package ec2

import (
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

const maxTags = 50

// reservedTags is the prefix of the tag keys that only EC2 itself may set.
const reservedTags = "aws:"

// checkKey reports a tag key that a request must not use.
func checkKey(t types.Tag) error {
	switch key := aws.ToString(t.Key); {
	case key == "":
		return missing("Tag.Key")
	case strings.HasPrefix(key, reservedTags):
		return invalidValue("Value ( %s ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved for internal use", key)
	}
	return nil
}

// checkTags reports invalid tags.
func checkTags(tags []types.Tag) error {
	seen := map[string]bool{}
	for _, t := range tags {
		if err := checkKey(t); err != nil {
			return err
		}
		key := *t.Key
		switch {
		case len(key) > 128:
			return invalidValue("Value ( %s ) for parameter key is invalid. Tag keys are limited to 128 characters", key)
		case len(aws.ToString(t.Value)) > 256:
			return invalidValue("Value ( %s ) for parameter value is invalid. Tag values are limited to 256 characters", *t.Value)
		case seen[key]:
			return invalidValue("Duplicate tag key '%s' specified.", key)
		}
		seen[key] = true
	}
	return checkTagCount(tags)
}

// checkTagCount reports more tags than a resource can have.
func checkTagCount(tags []types.Tag) error {
	if len(tags) > maxTags {
		return wire.Errorf("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
	}
	return nil
}

// tagsFor groups the tags of a request by the type of resource that they are for, which
// must be one of allowed.
func tagsFor(specs []types.TagSpecification, allowed ...string) (map[string][]types.Tag, error) {
	out := map[string][]types.Tag{}
	for _, spec := range specs {
		resource := string(spec.ResourceType)
		if resource == "" {
			return nil, missing("TagSpecification.ResourceType")
		}
		if !slices.Contains(allowed, resource) {
			return nil, invalidValue("'%s' is not a valid taggable resource type for this operation.", resource)
		}
		if _, twice := out[resource]; twice {
			return nil, invalidValue("Duplicate resource type '%s' in the tag specifications.", resource)
		}
		if len(spec.Tags) == 0 {
			return nil, invalidValue("Tag specification must have at least one tag")
		}
		if err := checkTags(spec.Tags); err != nil {
			return nil, err
		}
		out[resource] = merged(nil, spec.Tags)
	}
	return out, nil
}

// merged returns have with more added, sorted by key.
func merged(have, more []types.Tag) []types.Tag {
	out := slices.Clone(have)
	for _, t := range more {
		t := types.Tag{Key: t.Key, Value: aws.String(aws.ToString(t.Value))}
		if i := slices.IndexFunc(out, func(o types.Tag) bool { return *o.Key == *t.Key }); i >= 0 {
			out[i] = t
			continue
		}
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].Key < *out[j].Key })
	return out
}

// combined returns the tags of merged, or an error if they are more than a resource can have.
func combined(have, more []types.Tag) ([]types.Tag, error) {
	all := merged(have, more)
	return all, checkTagCount(all)
}

// without returns have with the tags of less removed. A tag of less without a value removes the key
// whatever its value.
func without(have, less []types.Tag) []types.Tag {
	return slices.DeleteFunc(slices.Clone(have), func(t types.Tag) bool {
		return slices.ContainsFunc(less, func(l types.Tag) bool {
			return *l.Key == *t.Key && (l.Value == nil || *l.Value == aws.ToString(t.Value))
		})
	})
}

// foreignTags are the tags that an account has given to another account's image or
// snapshot that is shared with it. No other account sees them.
type foreignTags struct {
	Region   string
	Account  string
	Resource string
	Tags     []types.Tag
}

// sharedTag is the prefix of the keys of an image's tags that are visible to the accounts
// it is shared with.
const sharedTag = "ec2:SharedTag/"

// tagsOn returns the tags that the caller sees on an image or a snapshot. On a publication
// or another account's resource, these are the caller's own tags and, on an image, those
// that its owner shares.
func (s *state) tagsOn(c wire.Caller, id, owner string, tags []types.Tag) []types.Tag {
	if owner == c.Account {
		return tags
	}
	var own []types.Tag
	if row, ok := s.foreign.Get(c.Account + "." + id); ok {
		own = row.Tags
	}
	if kindImage.check(id) != nil {
		return own
	}
	shared := slices.DeleteFunc(slices.Clone(tags), func(t types.Tag) bool { return !strings.HasPrefix(*t.Key, sharedTag) })
	if len(shared) == 0 {
		return own
	}
	return merged(own, shared)
}

// setForeign replaces the caller's tags on another account's image or snapshot.
func (s *state) setForeign(c wire.Caller, id string, tags []types.Tag) error {
	key := c.Account + "." + id
	if len(tags) == 0 {
		return s.foreign.Drop(key)
	}
	return s.foreign.Put(key, &foreignTags{Region: c.Region, Account: c.Account, Resource: id, Tags: tags})
}

// dropShared deletes an image or a snapshot with drop, after deleting the tags that other
// accounts have given to it.
func (s *state) dropShared(id string, drop func(id string) error) error {
	for _, key := range s.foreign.IDs() {
		if s.foreign.Rows[key].Resource == id {
			if err := s.foreign.Drop(key); err != nil {
				return err
			}
		}
	}
	return drop(id)
}

// taggedResource is a resource that the caller can tag: the tags that the caller sees on
// it and a function that replaces them.
type taggedResource struct {
	kind *kind
	tags []types.Tag
	set  func([]types.Tag) error
}

// taggable is the interface of tables to tags.
type taggable interface {
	// taggable adds the resources that the caller can tag.
	taggable(c wire.Caller, to map[string]taggedResource)
}

func (t *table[T]) taggable(c wire.Caller, to map[string]taggedResource) {
	for id, row := range t.Rows {
		a := t.about(id, row)
		if !a.seen(c) {
			continue
		}
		for i, part := range a.parts {
			if a.account != c.Account {
				to[*part.id] = t.s.foreignResource(c, part.kind, *part.id)
				continue
			}
			to[*part.id] = taggedResource{part.kind, *part.tags, func(tags []types.Tag) error {
				return t.Edit(id, func(row *T) { *t.about(id, row).parts[i].tags = tags })
			}}
		}
	}
}

// foreignResource returns another account's image or snapshot that the caller sees.
func (s *state) foreignResource(c wire.Caller, k *kind, id string) taggedResource {
	return taggedResource{k, s.tagsOn(c, id, "", nil), func(tags []types.Tag) error { return s.setForeign(c, id, tags) }}
}

// taggable returns the resources that the caller can tag, by id: its own, and the images
// and snapshots that others share with it.
func (s *state) taggable(c wire.Caller) (map[string]taggedResource, error) {
	if _, err := s.networkOf(c); err != nil {
		return nil, err
	}
	if err := s.forgetEnded(); err != nil {
		return nil, err
	}
	publications, err := s.opts.Images.Publications()
	if err != nil {
		return nil, err
	}
	out := map[string]taggedResource{}
	for _, p := range publications {
		id := *published(p, c.Region).ImageId
		out[id] = s.foreignResource(c, kindImage, id)
	}
	for _, t := range s.tables {
		t.taggable(c, out)
	}
	return out, nil
}

// retag replaces the tags of resources with the result of change. If there is an error
// with one resource, none is changed.
func (s *state) retag(ctx context.Context, ids []string, change func([]types.Tag) []types.Tag) error {
	all, err := s.taggable(wire.CallerFrom(ctx))
	if err != nil {
		return err
	}
	hidden := s.concealed(ids)
	for _, id := range ids {
		r, ok := all[id]
		if !ok || slices.Contains(hidden, id) {
			return noResource(id)
		}
		own := slices.DeleteFunc(slices.Clone(change(r.tags)), func(t types.Tag) bool { return strings.HasPrefix(*t.Key, reservedTags) })
		if err := checkTagCount(own); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := all[id].set(change(all[id].tags)); err != nil {
			return err
		}
	}
	return nil
}

// noResource returns the error for an id of no resource that the caller can tag.
func noResource(id string) error {
	for _, k := range taggableKinds() {
		if k.check(id) == nil {
			return k.notFound(id)
		}
	}
	return wire.Errorf("InvalidID", "The ID '%s' is not valid", id)
}

func (s *state) CreateTags(ctx context.Context, in *ec2.CreateTagsInput) (*ec2.CreateTagsOutput, error) {
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	return &ec2.CreateTagsOutput{}, s.retag(ctx, in.Resources, func(have []types.Tag) []types.Tag { return merged(have, in.Tags) })
}

// DeleteTags removes tags. If the request names none, it removes all except those that EC2
// set.
func (s *state) DeleteTags(ctx context.Context, in *ec2.DeleteTagsInput) (*ec2.DeleteTagsOutput, error) {
	for _, t := range in.Tags {
		if err := checkKey(t); err != nil {
			return nil, err
		}
	}
	return &ec2.DeleteTagsOutput{}, s.retag(ctx, in.Resources, func(have []types.Tag) []types.Tag {
		if len(in.Tags) == 0 {
			return slices.DeleteFunc(slices.Clone(have), func(t types.Tag) bool { return !strings.HasPrefix(*t.Key, reservedTags) })
		}
		return without(have, in.Tags)
	})
}

var tagFilters = filters{{"key", "Key"}, {"resource-id", "ResourceId"}, {"resource-type", "ResourceType"}, {"value", "Value"}}

func (s *state) DescribeTags(ctx context.Context, in *ec2.DescribeTagsInput) (*ec2.DescribeTagsOutput, error) {
	if err := checkMax(in.MaxResults, 5, 1000); err != nil {
		return nil, err
	}
	all, err := s.taggable(wire.CallerFrom(ctx))
	if err != nil {
		return nil, err
	}
	type row struct {
		types.TagDescription
		Tags []types.Tag // for the filters tag:KEY
	}
	var rows []row
	for id, r := range all {
		for _, t := range r.tags {
			rows = append(rows, row{types.TagDescription{Key: t.Key, Value: t.Value, ResourceId: &id, ResourceType: types.ResourceType(r.kind.resource)}, []types.Tag{t}})
		}
	}
	key := func(t row) string { return *t.ResourceId + "\x00" + *t.Key }
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	if rows, err = apply(tagFilters, in.Filters, rows); err != nil {
		return nil, err
	}
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	out := &ec2.DescribeTagsOutput{Tags: []types.TagDescription{}, NextToken: next}
	for _, r := range rows {
		out.Tags = append(out.Tags, r.TagDescription)
	}
	return out, err
}
