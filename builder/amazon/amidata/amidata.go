// Package amidata is the amazon-ami data source: it finds an image.
package amidata

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/zclconf/go-cty/cty"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/sourceami"
	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// Options of the data source amazon-ami.
type Options struct {
	access.Options
	sourceami.Filters

	// Accounts whose images are considered: account IDs, `self`, or an alias such as
	// `amazon`. Required, because anyone can publish an image with any name.
	Owners []string `hcl:"owners"`

	// Use the newest image if several match. Otherwise several matches are an error.
	MostRecent bool `hcl:"most_recent,optional"`

	// Include deprecated images of other accounts. Those of this account are always
	// included.
	IncludeDeprecated bool `hcl:"include_deprecated,optional"`
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	o.Options.Validate(c)
	if len(o.Owners) == 0 {
		c.Errorf(&o.Owners, "No owners", "Set owners to at least one account: anyone can publish an image under any name.")
	}
}

// Factory returns the factory of the data source. cloud replaces AWS, and env is the
// environment as "NAME=value".
func Factory(cloud access.Cloud, env []string) component.Factory[datasource.DataSource] {
	defaults := func() Options { return Options{Options: access.Defaults()} }
	return component.Define("amazon-ami", defaults,
		func(o *Options, src *schema.Source) datasource.DataSource { return &data{o, src, cloud, env} }).
		Exporting(map[string]cty.Type{
			"id": cty.String, "name": cty.String, "creation_date": cty.String,
			"owner": cty.String, "owner_name": cty.String, "tags": cty.Map(cty.String),
		})
}

type data struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
	env   []string
}

// Read implements [datasource.DataSource].
func (d *data) Read(ctx context.Context) (cty.Value, error) {
	session, err := access.Open(ctx, &d.Options.Options, d.src, d.cloud, d.env)
	if err != nil {
		return cty.NilVal, err
	}
	q := sourceami.Query{
		Filters: &d.Filters, Owners: d.Owners, MostRecent: d.MostRecent, IncludeDeprecated: d.IncludeDeprecated,
		Blame: &d.Filters.Filters,
	}
	image, err := q.Find(ctx, session, d.src)
	if err != nil {
		return cty.NilVal, err
	}
	tags := map[string]cty.Value{}
	for _, t := range image.Tags {
		tags[aws.ToString(t.Key)] = cty.StringVal(aws.ToString(t.Value))
	}
	tagsVal := cty.MapValEmpty(cty.String)
	if len(tags) > 0 {
		tagsVal = cty.MapVal(tags)
	}
	text := func(s *string) cty.Value { return cty.StringVal(aws.ToString(s)) }
	return cty.ObjectVal(map[string]cty.Value{
		"id": text(image.ImageId), "name": text(image.Name), "creation_date": text(image.CreationDate),
		"owner": text(image.OwnerId), "owner_name": text(image.ImageOwnerAlias), "tags": tagsVal,
	}), nil
}
