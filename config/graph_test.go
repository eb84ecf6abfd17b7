package config_test

import (
	"context"
	"maps"
	"sync"
	"testing"

	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config"
	"bake/config/schema"
	"bake/datasource"
)

type countOptions struct {
	// Name is the name to count.
	Name string `hcl:"name"`
}

// counter is a data source that counts how often each name is read.
type counter struct {
	mu    sync.Mutex
	reads map[string]int
}

type count struct {
	c *counter
	o *countOptions
}

func (r count) Read(context.Context) (cty.Value, error) {
	r.c.mu.Lock()
	defer r.c.mu.Unlock()
	r.c.reads[r.o.Name]++
	return cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal("<" + r.o.Name + ">")}), nil
}

func (c *counter) registry() component.Registry[datasource.DataSource] {
	return component.NewRegistry[datasource.DataSource](
		component.Define("count", func() countOptions { return countOptions{} },
			func(o *countOptions, _ *schema.Source) datasource.DataSource { return count{c, o} }).
			Exporting(map[string]cty.Type{"id": cty.String}),
	)
}

// TestGraph: locals and data sources are one graph, in which each data source is
// read at most once, and only if something needs it.
func TestGraph(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
data "count" "a" { name = "a" }
data "count" "b" { name = "b${local.from_a}" }
data "count" "c" { name = "c${data.count.a.id}${local.from_a}" }
data "count" "unused" { name = "unused" }
locals {
  from_a = "-${data.count.a.id}"
  both   = [data.count.b.id, data.count.c.id, local.from_a]
  never  = data.count.unused.id
}
source "null" "plain" { tag = "x" }
source "null" "one" { tag = local.both[0] }
source "null" "all" { tag = join(" ", local.both) }
build {
  sources = ["null.plain", "null.one", "null.all"]
}
`})
	some := map[string]int{"a": 1, "b-<a>": 1, "c<a>-<a>": 1}
	tests := []struct {
		name     string
		options  config.Options
		use      []int // builds whose options are decoded, several times each
		unknown  bool
		expected map[string]int
	}{
		{"not to be read", config.Options{}, []int{0, 1, 2}, true, map[string]int{}},
		{"not needed", config.Options{ReadData: true}, []int{0}, false, map[string]int{}},
		{"needed by one", config.Options{ReadData: true}, []int{0, 2}, false, some},
		{"needed by two", config.Options{ReadData: true}, []int{1, 2}, false, some},
		{"all", config.Options{ReadData: true, AllData: true}, nil, false, map[string]int{"a": 1, "b-<a>": 1, "c<a>-<a>": 1, "unused": 1}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &counter{reads: map[string]int{}}
			o := test.options
			o.Path, o.Cwd, o.DataSources = dir, dir, c.registry()
			template := load(t, o)
			var users sync.WaitGroup
			for _, i := range test.use {
				for range 3 {
					users.Go(func() { template.Builds[i].Builder.Input(t.Context(), cty.NilVal) })
				}
			}
			users.Wait()
			if !maps.Equal(c.reads, test.expected) {
				t.Errorf("read %v, want %v", c.reads, test.expected)
			}
			if !test.unknown && len(test.use) > 1 {
				if got := attribute(t, template.Builds[2].Builder, "tag", nil).AsString(); got != "<b-<a>> <c<a>-<a>> -<a>" {
					t.Errorf("tag = %q, want <b-<a>> <c<a>-<a>> -<a>", got)
				}
			}
		})
	}
}
