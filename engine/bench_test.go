package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/config"
	"bake/engine"
)

// large is a template of 200 sources and 1000 provisioners, in 20 builds of 10
// sources each; each provisioner is for two of them.
func large() string {
	var b strings.Builder
	b.WriteString("variable \"region\" {\n  type    = string\n  default = \"eu-west-1\"\n}\n\nlocals {\n  stamp = regex_replace(timestamp(), \"[- TZ:]\", \"\")\n  name  = \"web-${var.region}-${local.stamp}\"\n}\n\n")
	for i := range 200 {
		fmt.Fprintf(&b, "source \"null\" \"s%d\" {\n  communicator = \"${local.name}-%d\"\n  ssh_timeout  = \"5m\"\n}\n\n", i, i)
	}
	for i := range 20 {
		b.WriteString("build {\n  sources = [\n")
		for j := range 10 {
			fmt.Fprintf(&b, "    \"source.null.s%d\",\n", i*10+j)
		}
		b.WriteString("  ]\n\n")
		for j := range 50 {
			fmt.Fprintf(&b, "  provisioner \"shell\" {\n    only   = [\"null.s%d\", \"null.s%d\"]\n    inline = [\n      \"echo %d on ${build.ID} of ${source.name}\",\n      \"echo ${local.name}\",\n    ]\n  }\n\n", i*10+j%10, i*10+(j+1)%10, j)
		}
		b.WriteString("  post-processor \"manifest\" {\n    output = \"${path.root}/m.json\"\n  }\n}\n\n")
	}
	return b.String()
}

// BenchmarkCheck is what `bake validate` does with a large template. Goal: 300 ms.
func BenchmarkCheck(b *testing.B) {
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "t.pkr.hcl"), []byte(large()), 0o600); err != nil {
		b.Fatal(err)
	}
	components, data := fixtureComponents()
	for b.Loop() {
		template, diags := config.Load(b.Context(), config.Options{Path: "t.pkr.hcl", Cwd: dir, DataSources: data, Now: start})
		diags = append(diags, engine.Check(b.Context(), template, components, engine.Options{Start: start})...)
		if len(diags) > 0 {
			b.Fatal(diags)
		}
	}
}
