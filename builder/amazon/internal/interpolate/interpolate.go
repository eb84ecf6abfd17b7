// Package interpolate renders {{ }} in options that can refer to the source image.
package interpolate

import (
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

// Tag is one tag.
type Tag struct {
	// Tag key, up to 128 characters. It cannot start with `aws:`.
	Key string `hcl:"key,deferred"`

	// Tag value, up to 256 characters.
	Value string `hcl:"value,deferred"`
}

// NamedTag is one tag, for the block whose argument for the key is called name.
type NamedTag struct {
	// Tag key, up to 128 characters. It cannot start with `aws:`.
	Name string `hcl:"name,deferred"`

	// Tag value, up to 256 characters.
	Value string `hcl:"value,deferred"`
}

// Tags are a map of tags and the blocks that override it. The zero value has none.
type Tags struct {
	m      *map[string]string
	blocks []block
}

type block struct {
	ptr        any // of the option that holds it
	key, value string
}

// Of returns the tags of a map option and its blocks.
func Of(m *map[string]string, tags []Tag) Tags {
	t := Tags{m: m}
	for i := range tags {
		t.blocks = append(t.blocks, block{&tags[i].Value, tags[i].Key, tags[i].Value})
	}
	return t
}

// OfNamed is Of for blocks with names.
func OfNamed(m *map[string]string, tags []NamedTag) Tags {
	t := Tags{m: m}
	for i := range tags {
		t.blocks = append(t.blocks, block{&tags[i].Value, tags[i].Name, tags[i].Value})
	}
	return t
}

// Empty reports whether there are no tags.
func (t Tags) Empty() bool { return len(t.all()) == 0 }

// all returns the tags in the order in which later ones override earlier ones.
func (t Tags) all() []block {
	if t.m == nil {
		return t.blocks
	}
	var all []block
	for _, k := range slices.Sorted(maps.Keys(*t.m)) {
		all = append(all, block{t.m, k, (*t.m)[k]})
	}
	return append(all, t.blocks...)
}

// last returns the option that has the last of the tags.
func (t Tags) last() any {
	if n := len(t.blocks); n > 0 {
		return t.blocks[n-1].ptr
	}
	return t.m
}

// Text renders options.
type Text struct {
	source  *schema.Source
	context gotemplate.Context
	data    map[string]any
}

// New returns a renderer for the options written at src, for a build in region.
func New(s *step.Scope, src *schema.Source, region string) *Text {
	t := &Text{
		source:  src,
		context: gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version},
		data:    map[string]any{},
	}
	t.data["BuildRegion"] = region
	return t.With(types.Image{})
}

// With returns the same renderer with the values of the source image.
func (t *Text) With(image types.Image) *Text {
	c := *t
	c.data = Data(image).Plain()
	c.data["BuildRegion"] = t.data["BuildRegion"]
	tags := map[string]any{}
	for _, tag := range image.Tags {
		tags[aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	c.data["SourceAMITags"] = tags
	return &c
}

// Data returns the values of a source image for build.* and for rendered options.
func Data(image types.Image) builder.Data {
	return builder.Data{
		"SourceAMI":             builder.Text(aws.ToString(image.ImageId)),
		"SourceAMIName":         builder.Text(aws.ToString(image.Name)),
		"SourceAMICreationDate": builder.Text(aws.ToString(image.CreationDate)),
		"SourceAMIOwner":        builder.Text(aws.ToString(image.OwnerId)),
		"SourceAMIOwnerName":    builder.Text(aws.ToString(image.ImageOwnerAlias)),
	}
}

// String renders the string option at ptr.
func (t *Text) String(ptr *string) (string, error) {
	return t.render(ptr, *ptr)
}

// Tags renders the keys and values of tags, and returns an error if EC2 would refuse them.
func (t *Text) Tags(tags Tags) (map[string]string, error) {
	out := map[string]string{}
	for _, b := range tags.all() {
		k, err := t.render(b.ptr, b.key)
		if err != nil {
			return nil, err
		}
		if out[k], err = t.render(b.ptr, b.value); err != nil {
			return nil, err
		}
		if why := refused(k, out[k]); why != "" {
			return nil, t.source.Errorf(b.ptr, "Invalid tag", "%s", why)
		}
	}
	return out, nil
}

func (t *Text) render(ptr any, text string) (string, error) {
	if !strings.Contains(text, "{{") {
		return text, nil
	}
	err := usable(text)
	if err == nil {
		text, err = t.context.Render(text, t.data)
	}
	if err != nil {
		return "", t.source.Errorf(ptr, "Invalid {{ }} template", "Argument %q: %s.", t.source.Name(ptr), err)
	}
	return text, nil
}
