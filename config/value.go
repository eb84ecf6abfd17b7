package config

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/lang"
	"bake/config/schema"
	"bake/datasource"
	"bake/internal/constant"
	"bake/internal/debuglog"
	"bake/internal/delay"
	"bake/internal/gotemplate"
)

var localSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "expression", Required: true}, {Name: "sensitive"}},
}

// localBlock defines the local value of a local block.
func (l *loader) localBlock(block *hcl.Block) hcl.Diagnostics {
	content, diags := block.Body.Content(localSchema)
	diags, _ = schema.Misspelt(diags)
	sensitive := false
	if attr, ok := content.Attributes["sensitive"]; ok {
		var more hcl.Diagnostics
		sensitive, more = constant.Bool(attr.Expr)
		diags = append(diags, more...)
	}
	expr := hcl.StaticExpr(cty.DynamicVal, block.DefRange)
	if attr, ok := content.Attributes["expression"]; ok {
		expr = attr.Expr
	}
	return append(diags, l.local(block.Labels[0], block.LabelRanges[0], expr, sensitive)...)
}

// localsBlock defines the local values of a locals block.
func (l *loader) localsBlock(block *hcl.Block) hcl.Diagnostics {
	attrs, diags := block.Body.JustAttributes()
	for _, attr := range inOrder(attrs) {
		diags = append(diags, l.local(attr.Name, attr.NameRange, attr.Expr, false)...)
	}
	return diags
}

func (l *loader) local(name string, at hcl.Range, expr hcl.Expression, sensitive bool) hcl.Diagnostics {
	n := &lang.Node{
		Address: "local." + name,
		Range:   at,
		Refs:    expr.Variables(),
		Expr:    expr,
		Secret:  sensitive,
		Compute: func(_ context.Context, ec *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
			var val cty.Value
			var diags hcl.Diagnostics
			l.t.reads.keep("local."+name, l.t.reads.during(func() { val, diags = expr.Value(ec) }))
			if sensitive {
				lang.Strings(val, l.t.sensitive)
				l.t.weak.check("local", name, at, val)
			}
			if sensitive && diags.HasErrors() { // parts of it may be secret
				l.t.secrets.Add(l.reader.text(expr.Range()))
			}
			return l.marked(val, sensitive), diags
		},
	}
	diags := checkName(name, at)
	return append(diags, l.define(n, "local value", name)...)
}

// dataBlock defines the value of a data block.
func (l *loader) dataBlock(block *hcl.Block) hcl.Diagnostics {
	typ, name := block.Labels[0], block.Labels[1]
	n := &lang.Node{
		Address: "data." + typ + "." + name,
		Range:   block.DefRange,
		Refs:    lang.References(block.Body),
		Futile:  slices.Contains(registryData, typ),
		Compute: func(ctx context.Context, ec *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
			switch {
			case l.outline:
				return cty.DynamicVal, nil
			case slices.Contains(registryData, typ):
				return cty.DynamicVal, noRegistryData(block)
			}
			return l.read(ctx, block, ec)
		},
	}
	diags := checkName(name, block.LabelRanges[1])
	return append(diags, l.define(n, "data source", typ+"."+name)...)
}

func (l *loader) define(n *lang.Node, what, name string) hcl.Diagnostics {
	if l.t.scope.Define(n) {
		return nil
	}
	for _, first := range l.t.scope.Nodes() {
		if first.Address == n.Address {
			return duplicate(&n.Range, what, name, first.Range)
		}
	}
	return nil
}

// read returns the value of a data source, or what is known of it if data sources are not
// run.
func (l *loader) read(ctx context.Context, block *hcl.Block, ec *hcl.EvalContext) (cty.Value, hcl.Diagnostics) {
	factory, found := Find(l.t, l.o.DataSources, "data source", block.Labels[0], block.LabelRanges[0])
	if factory == nil {
		return cty.DynamicVal, found
	}
	in := schema.Input{
		Body: block.Body, Context: ec, Secret: l.t.secrets.Add,
		Render: Render(gotemplate.Context{BuildType: block.Labels[0], Start: l.o.Now, Version: LanguageVersion}),
	}
	if !l.o.ReadData {
		diags := append(found, factory.Check(in)...)
		exports := factory.Exports(in)
		if exports.Open {
			return cty.DynamicVal, diags
		}
		types := map[string]cty.Value{}
		for name, typ := range exports.Types {
			types[name] = cty.UnknownVal(typ)
		}
		return cty.ObjectVal(types), diags
	}
	source, diags := factory.New(in)
	diags = append(found, diags...)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	log := debuglog.From(ctx)
	defer func() {
		if err := component.Close(source); err != nil {
			log.Warn("data source not closed", "type", block.Labels[0], "name", block.Labels[1], "err", err)
		}
	}()
	start := time.Now()
	stop := l.watch(ctx, block, source)
	val, err := source.Read(ctx)
	stop()
	log.Debug("data source read", "type", block.Labels[0], "name", block.Labels[1], "took", time.Since(start), "ok", err == nil)
	if err == nil {
		return val, diags
	}
	var placed hcl.Diagnostics
	if errors.As(err, &placed) {
		return cty.DynamicVal, append(diags, placed...)
	}
	return cty.DynamicVal, append(diags, problem(&block.DefRange, "Data source failed", "%s: %s.", block.Labels[0], err)...)
}

// A data source that has not been read after readTrouble keeps the user waiting. The user is told
// then, and again after each readAgain.
const (
	readTrouble = 10 * time.Second
	readAgain   = time.Minute
)

// watch tells the user about a data source that takes long, until stop is called.
func (l *loader) watch(ctx context.Context, block *hcl.Block, source datasource.DataSource) (stop func()) {
	if l.o.Warn == nil {
		return func() {}
	}
	what := ""
	if r, ok := source.(datasource.Remote); ok {
		what = "; it waits for " + r.Waits()
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for lasted := readTrouble; delay.For(ctx, min(lasted, readAgain)) == nil; lasted += readAgain {
			text := fmt.Sprintf("data.%s.%s (%s:%d) is still being read after %s%s", block.Labels[0], block.Labels[1], block.DefRange.Filename, block.DefRange.Start.Line, lasted, what)
			l.o.Warn(ctx, "%s", l.t.secrets.Redact(text))
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// Render returns what expands the {{ }} layer of options when they are decoded.
func Render(c gotemplate.Context) func(text string, deferred bool) (string, error) {
	return func(text string, deferred bool) (string, error) {
		if deferred {
			return text, c.Check(text)
		}
		return c.Render(text, nil)
	}
}
