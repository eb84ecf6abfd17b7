package config

import (
	"context"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
	"bake/internal/limits"
)

// Outline is what is known about a template without running anything: data sources are not
// read, and variables may have no value. Values that depend on them are unknown. Sensitive
// values, and values derived from them, carry [lang.Sensitive].
type Outline struct {
	*Template
	Variables []Value  // by name
	Locals    []Value  // by name
	Data      []string // addresses of data sources, in the order they were written
	Blocks    []Block  // the build blocks, in the order they were written

	// Incomplete are the errors that leave something of the outline unknown or out, such as
	// a local value that cannot be computed.
	Incomplete hcl.Diagnostics

	console *hcl.File // the expressions that were evaluated, for diagnostics
}

// Value is a variable or a local value.
type Value struct {
	Name        string
	Description string // of a variable
	Value       cty.Value
}

// Block is a build block with its whole content, for all of its sources.
type Block struct {
	Name, Description string
	Builds            []*Build // one for each source
	Provisioners      []*Provisioner
	ErrorCleanup      *Provisioner // nil if there is none
	PostProcessors    []Chain
}

// ReadOutline reads the outline of a template. The diagnostics cover its syntax, its
// declarations, and the values given to its variables. If they contain errors, the outline
// has only Files, to show the errors. Without a path, it returns the outline of an empty
// template.
func ReadOutline(ctx context.Context, o Options) (*Outline, hcl.Diagnostics) {
	o.AllowUnset = true
	l := newLoader(ctx, o)
	l.outline = true
	out := &Outline{Template: l.t, console: &hcl.File{}}
	l.t.files[consoleName] = out.console
	var diags hcl.Diagnostics
	if err := limits.Run(ctx, func() { diags = out.read(ctx, l) }); err != nil {
		stopped := &Outline{Template: &Template{secrets: l.t.secrets, scope: lang.NewScope(nil, nil)}}
		return stopped, problem(nil, "Cannot evaluate the template", "%s: %s.", o.Path, err)
	}
	return out, l.t.secrets.Diagnostics(l.together(Merge(diags, nil)))
}

func (out *Outline) read(ctx context.Context, l *loader) (diags hcl.Diagnostics) {
	if l.o.Path != "" {
		diags = l.declarations()
	} else {
		l.t.Root = "."
		diags = l.variables(nil)
		l.openScope()
	}
	if !diags.HasErrors() {
		out.Incomplete = l.t.secrets.Diagnostics(Merge(l.rest(ctx), nil))
		out.fill(ctx, l)
	}
	return diags
}

func (out *Outline) fill(ctx context.Context, l *loader) {
	for _, v := range l.t.Variables {
		out.Variables = append(out.Variables, Value{v.Name, v.Description, l.marked(v.Value, v.Sensitive)})
	}
	for _, n := range l.t.scope.Nodes() {
		if name, ok := strings.CutPrefix(n.Address, "local."); ok {
			val, _ := l.t.scope.Value(ctx, n) // its errors are in Incomplete
			out.Locals = append(out.Locals, Value{Name: name, Value: val})
		} else {
			out.Data = append(out.Data, n.Address)
		}
	}
	sort.Slice(out.Locals, func(i, j int) bool { return out.Locals[i].Name < out.Locals[j].Name })
	out.Blocks = l.blockOutlines
}

// marked marks a sensitive value if only the outline is being read.
func (l *loader) marked(v cty.Value, sensitive bool) cty.Value {
	if l.outline && sensitive {
		return v.Mark(lang.Sensitive)
	}
	return v
}

// outline returns the block with its whole content. Its names hold no secrets.
func (s *steps) outline(builds []*Build) Block {
	hide := s.t.secrets.Redact
	out := Block{Name: hide(s.name), Builds: builds}
	for _, b := range builds {
		out.Description = hide(b.Description)
	}
	shown := func(p Provisioner) *Provisioner {
		p.Name = hide(p.Name)
		return &p
	}
	for _, p := range s.provisioners {
		out.Provisioners = append(out.Provisioners, shown(p.Provisioner))
	}
	if s.errorCleanup != nil {
		out.ErrorCleanup = shown(s.errorCleanup.Provisioner)
	}
	for _, blocks := range s.chains {
		var chain Chain
		for _, b := range blocks {
			p := b.PostProcessor
			p.Name = hide(p.Name)
			chain = append(chain, &p)
		}
		out.PostProcessors = append(out.PostProcessors, chain)
	}
	return out
}
