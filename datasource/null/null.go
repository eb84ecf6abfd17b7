// Package null is the null data source: it hands its input on, for values that
// shall be computed with the data sources.
package null

import (
	"context"

	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// Options of the data source null.
type Options struct {
	// Value to return as the output.
	Input string `hcl:"input"`
}

// Factory makes the data source.
func Factory() component.Factory[datasource.DataSource] {
	return component.Define("null", func() Options { return Options{} },
		func(o *Options, _ *schema.Source) datasource.DataSource { return o }).
		Exporting(map[string]cty.Type{"output": cty.String})
}

// Read implements [datasource.DataSource].
func (o *Options) Read(context.Context) (cty.Value, error) {
	return cty.ObjectVal(map[string]cty.Value{"output": cty.StringVal(o.Input)}), nil
}
