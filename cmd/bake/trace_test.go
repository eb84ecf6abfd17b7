package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"bake/internal/otlp/otlptest"
)

// collector is the script command "collector VARIABLE": it starts a collector of traces, and sets
// a variable to its URL. "collector VARIABLE FILE" writes what it has received since then to a
// file, a line for each span: service, trace, name, the name of the parent span or what its id is,
// error, and events.
func collector() func(*testscript.TestScript, bool, []string) {
	started := map[string]*otlptest.Collector{} // by URL
	return func(ts *testscript.TestScript, neg bool, args []string) {
		switch {
		case !neg && len(args) == 1:
			c, stop := otlptest.New()
			ts.Defer(func() {
				if err := stop(); err != nil {
					ts.Fatalf("%v", err)
				}
			})
			started[c.URL] = c
			ts.Setenv(args[0], c.URL)
		case !neg && len(args) == 2:
			all := started[ts.Getenv(args[0])].Spans()
			names := map[string]string{}
			for _, s := range all {
				names[s.ID] = s.Name
			}
			var b strings.Builder
			for _, s := range all {
				around, ok := names[s.Parent]
				if !ok {
					around = s.Parent
				}
				fmt.Fprintf(&b, "%s %s: %s < %s; %s", s.Resource["service.name"], s.Trace, s.Name, around, strings.ReplaceAll(s.Error, "\n", " "))
				for _, e := range s.Events {
					fmt.Fprintf(&b, " [%s]", strings.ReplaceAll(e, "\n", " "))
				}
				b.WriteString("\n")
			}
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(b.String()), 0o600))
		default:
			ts.Fatalf("usage: collector variable [file]")
		}
	}
}
