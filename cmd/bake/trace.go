package main

import (
	"fmt"
	"os"

	"bake/fleet"
	"bake/internal/prose"
	"bake/run/trace"
)

// traces is where the traces of runs go, if the environment says so; service is the name of this
// program in them. The caller closes it while feed, which shows the runs, is open.
func (p *program) traces(service string, env environ, feed *feed) *trace.Tracer {
	host, _ := os.Hostname() // without one, it is not said
	return trace.Open(env.get, service, version, host, func(err error) {
		defer feed.suspend()()
		fmt.Fprintf(p.stderr, "Warning: %s\n", prose.Printable(err.Error()))
	})
}

// ofCell is the tracer for the run of a cell.
func ofCell(t *trace.Tracer, c fleet.Cell) *trace.Tracer {
	return t.Named("bake "+c.Image, "bake.fleet", c.Fleet, "bake.cell", c.Short(), "bake.image", c.Image)
}
