package installed_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builtin"
	"bake/component"
	"bake/config/schema"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/plugintest"
	"bake/plugin/registry"
)

func TestMain(m *testing.M) {
	if code, ran := plugintest.Main(os.Args, os.Environ()); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// own is a built-in builder.
func own(name string) component.Factory[builder.Builder] {
	return component.Define(name, func() struct{} { return struct{}{} }, func(*struct{}, *schema.Source) builder.Builder { return nil })
}

// TestFind: the factory that a template gets, or the error.
func TestFind(t *testing.T) {
	root := t.TempDir()
	for _, source := range []string{"github.com/hashicorp/amazon", "example.com/a/twin", "example.com/b/twin", plugintest.Source} {
		plugintest.InstallAs(t, root, source)
	}
	broken := plugintest.InstallAs(t, root, "github.com/hashicorp/qemu")
	if err := os.Remove(broken + "_SHA256SUM"); err != nil {
		t.Fatal(err)
	}
	catalog := builtin.Catalog{Builders: component.NewRegistry(own("amazon"), own("amazon-ebs"), own("file"))}
	require := func(name, source, version string) component.Requirement {
		return component.Requirement{Name: name, Source: source, Version: version}
	}
	const amazon = "github.com/hashicorp/amazon"
	for name, test := range map[string]struct {
		typ      string
		required []component.Requirement
		plugin   bool   // found is one of a plugin; otherwise what is built in, unless wrong is set
		wrong    string // the summary, and after a colon what the detail has
		warned   bool
	}{
		"built in":                               {typ: "amazon"},
		"built in under another name":            {typ: "aws-ebs", required: []component.Requirement{require("aws", amazon, "~> 1")}},
		"built in, with a constraint":            {typ: "amazon", required: []component.Requirement{require("amazon", amazon, ">= 1.8")}},
		"excluded by the constraint":             {typ: "amazon", required: []component.Requirement{require("amazon", amazon, "= 1.2.3")}, plugin: true, warned: true},
		"excluded, and none is installed":        {typ: "amazon", required: []component.Requirement{require("amazon", amazon, "= 1.2.4")}},
		"somebody else's plugin of that name":    {typ: "amazon", required: []component.Requirement{require("amazon", "example.com/a/twin", ">= 1")}, plugin: true},
		"core, whoever requires that name":       {typ: "file", required: []component.Requirement{require("file", "example.com/x/file", ">= 1")}},
		"required":                               {typ: "mine", required: []component.Requirement{require("mine", plugintest.Source, "~> 1.2")}, plugin: true},
		"in a version that is not there":         {typ: "mine", required: []component.Requirement{require("mine", plugintest.Source, "~> 2.0")}, wrong: "Plugin not installed: bake init dir"},
		"the longest name":                       {typ: "mine-b", required: []component.Requirement{require("mine", "example.com/no/mine", ">= 1"), require("mine-b", plugintest.Source, ">= 1")}, plugin: true},
		"not one that the plugin has":            {typ: "mine-x", required: []component.Requirement{require("mine", plugintest.Source, ">= 1")}, wrong: `Unknown builder: has no builder "mine-x". Did you mean "mine"?`},
		"not required":                           {typ: "probe", plugin: true},
		"not required, of two":                   {typ: "twin", wrong: "Ambiguous plugin: example.com/a/twin, example.com/b/twin"},
		"without its checksum":                   {typ: "qemu", wrong: "Plugin not required: there is no file"},
		"known, and not installed":               {typ: "vsphere-iso", wrong: `Plugin not required: source  = "github.com/hashicorp/vsphere"`},
		"known, and required under another name": {typ: "vsphere-iso", required: []component.Requirement{require("vs", "github.com/hashicorp/vsphere", "~> 1")}, wrong: `Unknown builder: Did you mean "vs-iso"?`},
		"a slip":                                 {typ: "amazon-esb", wrong: `Unknown builder: Did you mean "amazon-ebs"?`},
		"nothing like it":                        {typ: "something-else", wrong: "Unknown builder: bake init dir"},
	} {
		t.Run(name, func(t *testing.T) {
			all := installed.Components(t.Context(), installed.Options{
				BuiltIn: catalog, Plugins: host.Installed(host.Options{Dirs: []string{root}, Env: os.Environ()}), Template: "dir",
				Lock: func() (*registry.Lock, hcl.Diagnostics) {
					return registry.ReadLock(filepath.Join(root, registry.LockFile))
				},
			})
			f, diags := all.Builders.Find(test.typ, test.required)
			again, _ := all.Builders.Find(test.typ, test.required)
			if f != again {
				t.Error("another factory, which knows nothing of what the first was told")
			}
			if test.wrong != "" {
				summary, detail, _ := strings.Cut(test.wrong, ": ")
				if f != nil || len(diags) != 1 || diags[0].Summary != summary || !strings.Contains(diags[0].Detail, detail) {
					t.Errorf("found %v, %v", f, diags)
				}
				return
			}
			if f == nil {
				t.Fatal(diags)
			}
			if _, own := f.(*component.Definition[struct{}, builder.Builder]); own == test.plugin {
				t.Errorf("built in: %t", own)
			}
			if warned := len(diags) == 1 && diags[0].Severity == hcl.DiagWarning && strings.Contains(diags[0].Detail, "plugin 1.2.3 is used"); warned != test.warned || !warned && len(diags) > 0 {
				t.Errorf("said: %v", diags)
			}
		})
	}
}

// TestNothingIsLookedAt: built-in components need no plugin directory and no lock file.
func TestNothingIsLookedAt(t *testing.T) {
	all := installed.Components(t.Context(), installed.Options{
		BuiltIn: builtin.Catalog{Builders: component.NewRegistry(own("amazon-ebs"))},
		Lock: func() (*registry.Lock, hcl.Diagnostics) {
			t.Error("the lock file is read")
			return nil, nil
		},
	}) // a Set that is nil panics when it is used
	f, diags := all.Builders.Find("amazon-ebs", []component.Requirement{{Name: "amazon", Source: "github.com/hashicorp/amazon", Version: "~> 1"}})
	if f == nil || len(diags) > 0 {
		t.Errorf("Find = %v, want the built-in builder; diagnostics: %v", f, diags)
	}
}
