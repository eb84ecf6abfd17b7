package ssm

import (
	"context"
	"slices"
	"sort"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/wire"
)

// maxTags is the largest number of tags of a parameter.
const maxTags = 50

// tagged returns the id of the caller's parameter that a tagging request names.
func (s *state) tagged(c wire.Caller, kind ssm.ResourceTypeForTagging, name *string) (string, error) {
	if kind != ssm.ResourceTypeForTaggingParameter {
		return "", wire.Errorf("InvalidResourceType", "The embedded cloud supports tags only on parameters, not on the resource type %s.", kind)
	}
	id := durable.NameID(c.Account, c.Region, aws.ToString(name))
	if _, ok := s.parameters.Get(id); !ok {
		return "", wire.Errorf("InvalidResourceId", "The resource ID %s is not valid. Verify that you entered the correct ID and try again.", aws.ToString(name))
	}
	return id, nil
}

// AddTagsToResource adds tags to a parameter, or changes their values.
func (s *state) AddTagsToResource(ctx context.Context, in *ssm.AddTagsToResourceInput) (*ssm.AddTagsToResourceOutput, error) {
	id, err := s.tagged(wire.CallerFrom(ctx), in.ResourceType, in.ResourceId)
	if err != nil {
		return nil, err
	}
	return &ssm.AddTagsToResourceOutput{}, s.parameters.Change(id, func(p *parameter) error {
		for _, t := range in.Tags {
			p.Tags = append(slices.DeleteFunc(p.Tags, func(have ssm.Tag) bool { return *have.Key == *t.Key }), t)
		}
		if len(p.Tags) > maxTags {
			return wire.Errorf("TooManyTagsError", "The parameter would have %d tags; at most %d are allowed.", len(p.Tags), maxTags)
		}
		return nil
	})
}

// RemoveTagsFromResource removes tags from a parameter.
func (s *state) RemoveTagsFromResource(ctx context.Context, in *ssm.RemoveTagsFromResourceInput) (*ssm.RemoveTagsFromResourceOutput, error) {
	id, err := s.tagged(wire.CallerFrom(ctx), in.ResourceType, in.ResourceId)
	if err != nil {
		return nil, err
	}
	return &ssm.RemoveTagsFromResourceOutput{}, s.parameters.Edit(id, func(p *parameter) {
		p.Tags = slices.DeleteFunc(p.Tags, func(t ssm.Tag) bool { return slices.Contains(in.TagKeys, *t.Key) })
	})
}

// ListTagsForResource returns the tags of a parameter.
func (s *state) ListTagsForResource(ctx context.Context, in *ssm.ListTagsForResourceInput) (*ssm.ListTagsForResourceOutput, error) {
	id, err := s.tagged(wire.CallerFrom(ctx), in.ResourceType, in.ResourceId)
	if err != nil {
		return nil, err
	}
	tags := append([]ssm.Tag{}, s.parameters.Rows[id].Tags...)
	sort.Slice(tags, func(i, j int) bool { return *tags[i].Key < *tags[j].Key })
	return &ssm.ListTagsForResourceOutput{TagList: tags}, nil
}
