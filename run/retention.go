package run

import (
	"context"

	"bake/builder"
	"bake/config"
	"bake/golden/bakefile"
)

// Retentions are what the bake files of a template say of older images. What is wrong with
// the template is a *TemplateError. It reads no data sources: what only those can tell is
// an error.
func Retentions(ctx context.Context, t Template) ([]builder.Retention, error) {
	template, diags := config.Load(ctx, t.Options)
	if diags.HasErrors() {
		return nil, &TemplateError{diags, template.Files()}
	}
	settings, more := bakefile.Check(ctx, template)
	all, unknown := settings.Retentions()
	if diags = config.Merge(more, unknown); diags.HasErrors() {
		return nil, &TemplateError{diags, template.Files()}
	}
	return all, nil
}
