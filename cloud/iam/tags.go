package iam

import (
	"slices"
	"sort"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/iam"
	"bake/cloud/wire"
)

// merged returns have with more added, sorted by key.
func merged(have, more []iam.Tag) ([]iam.Tag, error) {
	out := slices.Clone(have)
	for i, t := range more {
		key := aws.ToString(t.Key)
		switch {
		case key == "" || len(key) > 128 || len(aws.ToString(t.Value)) > 256:
			return nil, wire.Errorf("ValidationError", "1 validation error detected: Value at 'tags' failed to satisfy constraint: keys have 1 to 128 characters, values at most 256")
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return nil, wire.Errorf("InvalidInput", "Tag keys cannot begin with 'aws:'.")
		case slices.ContainsFunc(more[:i], func(o iam.Tag) bool { return strings.EqualFold(aws.ToString(o.Key), key) }):
			return nil, wire.Errorf("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		t = iam.Tag{Key: &key, Value: aws.String(aws.ToString(t.Value))}
		if i := slices.IndexFunc(out, func(o iam.Tag) bool { return strings.EqualFold(*o.Key, key) }); i >= 0 {
			out[i] = t
			continue
		}
		out = append(out, t)
	}
	if len(out) > 50 {
		return nil, wire.Errorf("LimitExceeded", "Cannot exceed quota for TagsPerEntity: 50")
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].Key < *out[j].Key })
	return out, nil
}

func without(have []iam.Tag, keys []string) []iam.Tag {
	return slices.DeleteFunc(slices.Clone(have), func(t iam.Tag) bool { return slices.Contains(keys, *t.Key) })
}

// page returns the page of all that begins at marker, whether there is another page, and
// its marker. all must be sorted by key.
func page[T any](list string, all []T, key func(T) string, max *int32, marker *string) ([]T, bool, *string, error) {
	n := 100
	if max != nil {
		n = int(*max)
	}
	if n < 1 || n > 1000 {
		return nil, false, nil, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'maxItems' failed to satisfy constraint: it must be from 1 to 1000", n)
	}
	if aws.ToString(marker) == "" {
		marker = nil
	}
	rows, next, ok := wire.Page(list, all, key, strings.Compare, n, marker)
	if !ok {
		return nil, false, nil, wire.Errorf("ValidationError", "Invalid Marker")
	}
	return rows, next != nil, next, nil
}

// pageOfTags is page for a resource's tags.
func pageOfTags(tags []iam.Tag, max *int32, marker *string) ([]iam.Tag, bool, *string, error) {
	return page("tags", tags, func(t iam.Tag) string { return *t.Key }, max, marker)
}

// pageOfNames is page for lists of names.
func pageOfNames(list string, names []string, max *int32, marker *string) ([]string, bool, *string, error) {
	return page(list, names, func(name string) string { return name }, max, marker)
}
