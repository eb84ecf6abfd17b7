package main

import (
	"slices"
	"testing"
	"time"
)

// TestComponentsBelongSomewhere: a component is one of those that Packer itself
// has, or one of a plugin that templates can require.
func TestComponentsBelongSomewhere(t *testing.T) {
	core := []string{
		"artifice", "breakpoint", "checksum", "compress", "file", "hcp-packer-artifact", "hcp-packer-version", "hcp-sbom", "http", "manifest", "null",
		"powershell", "shell", "shell-local", "sleep", "windows-restart", "windows-shell",
	}
	all := parts{now: time.Now}.all()
	var known []string
	for _, p := range all.plugins() {
		if len(p.components) == 0 {
			t.Errorf("%s has no components", p.source)
		}
		known = append(known, p.components...)
	}
	for _, names := range [][]string{all.Builders.Names(), all.Provisioners.Names(), all.PostProcessors.Names(), all.data.Names()} {
		for _, n := range names {
			if !slices.Contains(core, n) && !slices.Contains(known, n) {
				t.Errorf("%s belongs to no plugin: say in plugins() which one", n)
			}
		}
	}
}
