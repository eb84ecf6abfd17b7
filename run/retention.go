package run

import (
	"context"

	"bake/builder"
	"bake/config"
	"bake/golden/bakefile"
)

// Retentions returns the retention rules for older images in the bake files of a template.
// Errors in the template are returned as a *TemplateError. Retentions reads no data
// sources: a rule that depends on one is an error.
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
