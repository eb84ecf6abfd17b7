package engine

import (
	"context"

	"bake/builder"
	"bake/component"
	"bake/config"
)

// Materials are the inputs that the components of a build report, in addition to those in
// its template.
type Materials struct {
	Incidental []string          // as [builder.Reusable] has them
	Files      []string          // and directories of this host, as the template names them
	Components map[string]string // versions of components that are not built in, by component
}

// materials returns the materials of a build, for callers to add to.
func (ck *checker) materials(b *config.Build) *Materials {
	m := ck.material[b]
	if m == nil {
		m = &Materials{Components: map[string]string{}}
		ck.material[b] = m
	}
	return m
}

// note adds a component of a build.
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
	if p == nil || p.Reuse == nil || x.options.Resume { // an earlier process of the run has called it
		return nil, nil
	}
	return p.Reuse(ctx, x.scope, b)
}
