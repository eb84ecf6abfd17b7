package engine

import (
	"context"

	"bake/builder"
	"bake/component"
	"bake/config"
)

// Materials are the inputs of a build that its components report, in addition to those in the
// template.
type Materials struct {
	Incidental []string          // see [builder.Reusable]
	Files      []string          // files and directories of this host, as named in the template
	Components map[string]string // versions of components that are not built in, keyed by component
}

// materials returns the materials of a build, to which callers may add.
func (ck *checker) materials(b *config.Build) *Materials {
	m := ck.material[b]
	if m == nil {
		m = &Materials{Components: map[string]string{}}
		ck.material[b] = m
	}
	return m
}

// note adds a component.
func (m *Materials) note(what, typ string, f any, files []string) {
	m.Files = append(m.Files, files...)
	if v, ok := f.(component.Versioned); ok {
		m.Components[what+" "+typ] = v.Version()
	}
}

// reuse returns the artifact that makes the build unnecessary, or nil.
func (x *execution) reuse(ctx context.Context, b builder.Builder) (_ *builder.Artifact, err error) {
	defer recovered(&err)
	p := x.pipeline(x.build)
	if p == nil || p.Reuse == nil || x.options.Resume { // an earlier process of the run has already called it
		return nil, nil
	}
	return p.Reuse(ctx, x.scope, b)
}
