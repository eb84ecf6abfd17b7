package engine

import (
	"context"
	"io"

	"bake/builder"
	"bake/component"
)

// held lists what a build must close, oldest first: components and artifacts that hold a resource
// such as a process.
type held []holding

type holding struct {
	who string // name of the component, for warnings
	io.Closer
}

// hold keeps a component open until [execution.release].
func (x *execution) hold(who string, c any) {
	if c, ok := c.(io.Closer); ok {
		x.held = append(x.held, holding{who, c})
	}
}

// holdLive keeps the artifact of a component open. It does nothing if the artifact is already held,
// for example because a post-processor returned its input.
func (x *execution) holdLive(who string, a *builder.Artifact) {
	if a == nil || a.Live == nil {
		return
	}
	for _, h := range x.held {
		if h.Closer == io.Closer(a.Live) {
			return
		}
	}
	x.held = append(x.held, holding{who, a.Live})
}

// release closes all but the oldest n of what is held, newest first.
func (x *execution) release(ctx context.Context, n int) {
	for len(x.held) > n {
		last := len(x.held) - 1
		h := x.held[last]
		x.held = x.held[:last]
		x.close(ctx, h.who, h.Closer)
	}
}

// close closes a component. An error is only a warning, since the component's work is done.
func (x *execution) close(ctx context.Context, who string, c any) {
	err := func() (err error) {
		defer recovered(&err)
		return component.Close(c)
	}()
	if err != nil {
		x.scope.Warn(ctx, "%s: closing: %s", who, err)
	}
}
