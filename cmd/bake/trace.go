package main

import (
	"fmt"
	"os"

	"bake/fleet"
	"bake/internal/prose"
	"bake/run/trace"
)

// traces returns the tracer of runs if the environment sets a destination; service is the
// name of this program in the traces. The caller closes it while feed, which shows the
// runs, is open.
func (p *program) traces(service string, env environ, feed *feed) *trace.Tracer {
	host, _ := os.Hostname() // the name is left out if it is unknown
	return trace.Open(env.get, service, version, host, func(err error) {
		defer feed.suspend()()
		fmt.Fprintf(p.stderr, "Warning: %s\n", prose.Printable(err.Error()))
	})
}

// ofCell returns the tracer for the run of a cell.
func ofCell(t *trace.Tracer, c fleet.Cell) *trace.Tracer {
	return t.Named("bake "+c.Image, "bake.fleet", c.Fleet, "bake.cell", c.Short(), "bake.image", c.Image)
}
