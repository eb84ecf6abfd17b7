package config

import (
	"context"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/lazyregexp"
)

var registrySchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "bucket_name"}, {Name: "description"},
	{Name: "labels"}, {Name: "bucket_labels"}, {Name: "build_labels"}, {Name: "channels"},
}}

var bucketName = lazyregexp.New(`^[A-Za-z0-9-]{3,36}$`)

// registryData are the types of data sources that look something up in the registry.
var registryData = []string{"hcp-packer-artifact", "hcp-packer-image", "hcp-packer-iteration", "hcp-packer-version"}

// noRegistryData explains how to replace a data source of the registry.
func noRegistryData(block *hcl.Block) hcl.Diagnostics {
	return problem(&block.LabelRanges[0], "No HCP Packer registry",
		`bake has no HCP Packer registry to look this up in. Depending on where the image is recorded, use one of these instead:
- data "amazon-ami" with filters and most_recent = true finds the newest image by its name and tags;
- data "amazon-parameterstore" reads an ID that an earlier build wrote to a parameter of AWS Systems Manager;
- jsondecode(file("packer-manifest.json")) reads the manifest that post-processor "manifest" wrote in an earlier build.`)
}

// maxDescription is the maximum number of characters that the registry accepts.
const maxDescription = 255

// registry checks hcp_packer_registry blocks by the rules of the registry, and warns that
// they have no effect, because bake has no registry. There is at most one for the
// template, and one for each build.
func (l *loader) registry(ctx context.Context, blocks hcl.Blocks) hcl.Diagnostics {
	var diags hcl.Diagnostics
	var taken *hcl.Block
	for _, block := range blocks {
		if taken != nil {
			diags = append(diags, problem(&block.DefRange, "Duplicate hcp_packer_registry",
				"Only one is allowed; the first one is at %s. Remove this one.", taken.DefRange)...)
			continue
		}
		taken = block
		diags = append(diags, l.registryBlock(ctx, block)...)
	}
	return diags
}

func (l *loader) registryBlock(ctx context.Context, block *hcl.Block) hcl.Diagnostics {
	content, diags := block.Body.Content(registrySchema)
	attrs := content.Attributes
	var name, description string
	var labels map[string]string
	var channels []string
	diags = append(diags, l.decode(ctx, attrs["bucket_name"], &name)...)
	diags = append(diags, l.decode(ctx, attrs["description"], &description)...)
	for _, a := range []string{"labels", "bucket_labels", "build_labels"} {
		diags = append(diags, l.decode(ctx, attrs[a], &labels)...)
	}
	diags = append(diags, l.decode(ctx, attrs["channels"], &channels)...)

	at := func(name string) *hcl.Range { return attrs[name].Expr.Range().Ptr() }
	if name != "" && !bucketName.Get().MatchString(name) {
		diags = append(diags, problem(at("bucket_name"), "Invalid bucket_name",
			"%q must consist of 3 to 36 letters, digits and dashes.", name)...)
	}
	if n := utf8.RuneCountInString(description); n > maxDescription {
		diags = append(diags, problem(at("description"), "Description too long",
			"It has %d characters; the registry allows %d. Shorten it.", n, maxDescription)...)
	}
	if attrs["labels"] != nil && attrs["bucket_labels"] != nil {
		diags = append(diags, problem(&attrs["labels"].NameRange, "Both labels and bucket_labels",
			"The argument labels is the old name of bucket_labels: use only bucket_labels.")...)
	}
	if diags.HasErrors() {
		return diags
	}
	return append(diags, warning(&block.DefRange, "No HCP Packer registry",
		"Images are not published to an HCP Packer registry; this block has no effect.")...)
}
