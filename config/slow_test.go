package config_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config"
	"bake/config/schema"
	"bake/datasource"
)

// slow is a data source that takes a while.
type slow struct{ name string }

func (s slow) Read(context.Context) (cty.Value, error) {
	time.Sleep(80 * time.Second)
	return cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal(s.name)}), nil
}

func (s slow) Waits() string { return "GET https://example.com/" + s.name }

// A data source that keeps the user waiting is named, with its place and with what it waits for, as
// long as it is being read, and without secrets.
func TestSlowDataSource(t *testing.T) {
	dir := write(t, map[string]string{"t.pkr.hcl": `
variable "key" {
  default   = "hunter22"
  sensitive = true
}
data "slow" "a" { name = var.key }
source "null" "x" { tag = data.slow.a.id }
build { sources = ["null.x"] }
`})
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var said []string
		load(t, config.Options{
			Path: dir, Cwd: dir, ReadData: true, AllData: true,
			DataSources: component.NewRegistry[datasource.DataSource](
				component.Define("slow", func() countOptions { return countOptions{} },
					func(o *countOptions, _ *schema.Source) datasource.DataSource { return slow{o.Name} }).
					Exporting(map[string]cty.Type{"id": cty.String})),
			Warn: func(_ context.Context, format string, args ...any) {
				said = append(said, fmt.Sprintf("%s: %s", time.Since(start), fmt.Sprintf(format, args...)))
			},
		})
		time.Sleep(time.Hour)
		const text = "%s: data.slow.a (%s:6) is still being read after %[1]s; it waits for GET https://example.com/<sensitive>"
		file := filepath.Join(dir, "t.pkr.hcl")
		if want := []string{fmt.Sprintf(text, "10s", file), fmt.Sprintf(text, "1m10s", file)}; !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	})
}
