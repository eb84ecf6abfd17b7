package host

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"bake/plugin/wire"
)

// hostedDataSource is a plugin's data source.
type hostedDataSource struct{ hosted }

// Waits implements [datasource.Remote].
func (h hostedDataSource) Waits() string { return "the plugin " + h.plugin.Source }

// Read implements [datasource.DataSource].
func (h hostedDataSource) Read(ctx context.Context) (cty.Value, error) {
	proc, err := h.start(ctx, false)
	if err != nil {
		return cty.NilVal, err
	}
	defer proc.drop()
	if err := h.hand(ctx, proc, nil); err != nil {
		return cty.NilVal, err
	}
	h.mu.Lock()
	types := h.outputs
	if types == nil {
		types, err = h.outputOf(ctx, proc)
	}
	h.mu.Unlock()
	if err != nil {
		return cty.NilVal, err
	}
	var reply struct {
		Value []byte
		Error *struct{ Message string }
	}
	if err := proc.call(ctx, "Datasource.Execute", nil, &reply); err != nil {
		return cty.NilVal, err
	}
	if reply.Error != nil {
		return cty.NilVal, fmt.Errorf("%s", strings.TrimRight(clip(reply.Error.Message, maxComplaint), ".\n"))
	}
	val, err := wire.DecodeValue(reply.Value, h.plugin.form())
	if err != nil {
		return cty.NilVal, fmt.Errorf("the plugin %s returned an invalid value: %w", h.plugin.Source, err)
	}
	return conform(val, types)
}

// output holds the names and types of a data source's results.
func (p *part) output(ctx context.Context) (map[string]cty.Type, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.outputs != nil {
		return p.outputs, nil
	}
	proc, err := p.start(ctx, false)
	if err != nil {
		return nil, err
	}
	defer proc.drop()
	return p.outputOf(ctx, proc)
}

func (p *part) outputOf(ctx context.Context, proc *process) (map[string]cty.Type, error) {
	var reply struct{ OutputSpec []byte }
	if err := p.limited(ctx, proc, describeCall, "OutputSpec", struct{ Configs []any }{}, &reply); err != nil {
		return nil, err
	}
	spec, err := wire.DecodeSpec(reply.OutputSpec, p.plugin.form())
	if err != nil {
		return nil, fmt.Errorf("the plugin %s gives an invalid description of what %s returns: %w", p.plugin.Source, p.label, err)
	}
	p.outputs = hcldec.ImpliedType(spec).AttributeTypes()
	if p.outputs == nil {
		p.outputs = map[string]cty.Type{}
	}
	return p.outputs, nil
}

// conform converts val to the object that the data source has declared.
func conform(val cty.Value, types map[string]cty.Type) (cty.Value, error) {
	if val.IsNull() || !val.Type().IsObjectType() && !val.Type().IsMapType() {
		return cty.NilVal, fmt.Errorf("it has returned %s, and not an object", val.Type().FriendlyName())
	}
	have := val.AsValueMap()
	out := map[string]cty.Value{}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		v, ok := have[name]
		if !ok {
			v = cty.NullVal(types[name])
		}
		v, err := convert.Convert(v, types[name])
		if err != nil {
			return cty.NilVal, fmt.Errorf("it has returned %q as %s: %w", name, have[name].Type().FriendlyName(), err)
		}
		out[name] = v
	}
	return cty.ObjectVal(out), nil
}
