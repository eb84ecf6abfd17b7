package builtin

import (
	"slices"
	"testing"
)

// TestComponentsBelongSomewhere: every component is one of Packer itself, or belongs to a plugin
// that templates can require.
func TestComponentsBelongSomewhere(t *testing.T) {
	core := []string{
		"artifice", "breakpoint", "checksum", "compress", "file", "hcp-packer-artifact", "hcp-packer-version", "hcp-sbom", "http", "manifest", "null",
		"powershell", "provenance", "shell", "shell-local", "sleep", "windows-restart", "windows-shell",
	}
	all := Parts{}.Catalog()
	var known []string
	for _, p := range all.Plugins() {
		if len(p.Components) == 0 {
			t.Errorf("%s has no components", p.Source)
		}
		known = append(known, p.Components...)
	}
	for _, names := range [][]string{all.Builders.Names(), all.Provisioners.Names(), all.PostProcessors.Names(), all.DataSources.Names()} {
		for _, n := range names {
			if !slices.Contains(core, n) && !slices.Contains(known, n) {
				t.Errorf("%s belongs to no plugin: say in Plugins which one", n)
			}
		}
	}
}
