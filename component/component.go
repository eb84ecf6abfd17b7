// Package component holds builders, provisioners, post-processors and data
// sources behind one interface, so that whoever reads templates needs to know
// nothing about any of them.
package component

import (
	"io"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config/schema"
	"bake/docs"
)

// Factory makes components of kind C from template blocks. It hides the option
// type: each component is written against its own struct and nothing else is.
type Factory[C any] interface {
	// Name is the type label in templates, such as "amazon-ebs".
	Name() string

	// Docs is the reference documentation of the options.
	Docs() ([]schema.Doc, error)

	// Exports are the values that the component gives to what comes after it:
	// build.NAME for a builder, the attributes of a data source. They may depend on its
	// options, and are asked for with the very Input that Check has had; the zero Input
	// asks for those that are known without options.
	Exports(schema.Input) Exports

	// Check decodes and validates without making anything. Values that only
	// exist during a build may still be unknown.
	Check(schema.Input) hcl.Diagnostics

	// Outline is Check that also makes a component, to be asked about itself and not
	// to be run: what is not known yet has its default there. The caller closes it, with
	// [Close].
	Outline(schema.Input) (C, hcl.Diagnostics)

	// New is called just before use, when every value is known. One that is not is
	// an error. The caller closes the component, with [Close].
	New(schema.Input) (C, hcl.Diagnostics)
}

// Exports are the names and types of the values that a component gives to what comes
// after it.
type Exports struct {
	Types map[string]cty.Type

	// Open says that there may be others, whose names are not known.
	Open bool
}

// Versioned is a [Factory] of components that are not built in. The version is that of
// the very program which does their work.
type Versioned interface{ Version() string }

// Close ends the use of a component. One that holds something, such as a process, is an
// [io.Closer]; for any other, and for nil, Close does nothing.
func Close(component any) error {
	if c, ok := component.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Define describes a component: its name, its default options, and its constructor.
// The constructor also gets the places the options were written at, for errors that
// are found later.
func Define[O, C any](name string, defaults func() O, make func(*O, *schema.Source) C) *Definition[O, C] {
	return &Definition[O, C]{name: name, defaults: defaults, make: make}
}

// Definition is the [Factory] that [Define] makes.
type Definition[O, C any] struct {
	name     string
	defaults func() O
	make     func(*O, *schema.Source) C
	exports  map[string]cty.Type
}

// Exporting sets the component's exports and returns the definition.
func (f *Definition[O, C]) Exporting(exports map[string]cty.Type) *Definition[O, C] {
	f.exports = exports
	return f
}

// Name implements [Factory].
func (f *Definition[O, C]) Name() string { return f.name }

// Docs implements [Factory].
func (f *Definition[O, C]) Docs() ([]schema.Doc, error) { return docs.Options(f.defaults()) }

// Exports implements [Factory].
func (f *Definition[O, C]) Exports(schema.Input) Exports { return Exports{Types: f.exports} }

// Check implements [Factory].
func (f *Definition[O, C]) Check(in schema.Input) hcl.Diagnostics {
	_, diags := f.Outline(in)
	return diags
}

// Outline implements [Factory].
func (f *Definition[O, C]) Outline(in schema.Input) (C, hcl.Diagnostics) {
	o := f.defaults()
	src, diags := schema.Decode(in, &o)
	return f.make(&o, src), diags
}

// New implements [Factory].
func (f *Definition[O, C]) New(in schema.Input) (c C, diags hcl.Diagnostics) {
	o := f.defaults()
	src, diags := schema.Decode(in, &o)
	diags = append(diags, src.Unknowns()...)
	if diags.HasErrors() {
		return c, diags
	}
	return f.make(&o, src), diags
}
