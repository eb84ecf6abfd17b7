package installed_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"bake/builtin"
	"bake/plugin/host"
	"bake/plugin/installed"
	"bake/plugin/plugintest"
	"bake/plugin/registry"
	"bake/plugin/setup"
)

const amazon = "github.com/hashicorp/amazon"

// places has the plugin of tests, in version 1.2.3, under these sources.
func places(t *testing.T, sources ...string) installed.Places {
	t.Helper()
	root := t.TempDir()
	for _, source := range sources {
		plugintest.InstallAs(t, root, source)
	}
	return installed.Places{BuiltIn: builtin.Plugins{{Source: amazon, Version: "1.8.2", Components: []string{"amazon-ebs"}}}, Dirs: []string{root}, Env: os.Environ()}
}

// TestRequired: built-in plugins come first if the constraint allows them, then
// installed ones, and built-in ones again if there is nothing else.
func TestRequired(t *testing.T) {
	p := places(t, amazon, plugintest.Source)
	lock, diags := registry.ReadLock(filepath.Join(t.TempDir(), registry.LockFile))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	require := func(name, source, version string) setup.Requirement {
		allows, err := registry.ParseVersions(version)
		if err != nil {
			t.Fatal(err)
		}
		return setup.Requirement{Name: name, Source: source, Constraint: version, Allows: allows}
	}
	for name, c := range map[string]struct {
		required      setup.Requirement
		builtIn, path bool
		version, has  string // the first component
	}{
		"built in":                         {require("aws", amazon, "~> 1.8"), true, false, "1.8.2", "aws-ebs"},
		"excluded, and installed":          {require("aws", amazon, "= 1.2.3"), false, true, "1.2.3", "aws"},
		"excluded, and none is installed":  {require("aws", amazon, "= 1.2.4"), true, false, "1.8.2", "aws-ebs"},
		"installed":                        {require("mine", plugintest.Source, ">= 1"), false, true, "1.2.3", "mine"},
		"whose source is written so":       {require("mine", strings.ToUpper(plugintest.Source), ">= 1"), false, true, "1.2.3", "mine"},
		"not in a version that is allowed": {require("mine", plugintest.Source, ">= 2"), false, false, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			all, err := p.Required(t.Context(), []setup.Requirement{c.required}, lock, func(b host.Binary, err error) { t.Errorf("%s: %v", b.Path, err) })
			if err != nil || len(all) != 1 {
				t.Fatalf("Required = %v, %v, want one plugin", all, err)
			}
			got, first := all[0], ""
			if len(got.Components) > 0 {
				first = got.Components[0]
			}
			if got.BuiltIn != c.builtIn || (got.Path != "") != c.path || got.Version != c.version || first != c.has || got.Name != c.required.Name || got.Constraint != c.required.Constraint {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestInitialized: the message for a requirement that is met, met by a replacement, or
// not met.
func TestInitialized(t *testing.T) {
	p := places(t)
	allows := func(string) bool { return false }
	own := setup.Requirement{Name: "aws", Source: amazon, Constraint: "= 9", Allows: allows}
	other := setup.Requirement{Name: "mine", Source: plugintest.Source, Constraint: ">= 1", Allows: allows}
	met := own
	met.Allows = func(string) bool { return true }
	if missing := p.Missing([]setup.Requirement{met, own, other}); len(missing) != 2 || missing[0].Name != "aws" || missing[1].Name != "mine" {
		t.Errorf("missing: %+v", missing)
	}
	wrong := hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Plugin not found", Detail: "nowhere"}}
	for name, c := range map[string]struct {
		required setup.Requirement
		outcome  setup.Outcome
		builtIn  bool
		text     string
		diags    string // the details
		fails    bool
	}{
		"built in":             {met, setup.Outcome{}, true, `aws github.com/hashicorp/amazon "= 9" is built in: aws-ebs`, "", false},
		"cannot be had":        {own, setup.Outcome{Unavailable: true, Diags: wrong}, true, `aws github.com/hashicorp/amazon "= 9" is built in: aws-ebs`, "The template requires = 9 of github.com/hashicorp/amazon; the built-in plugin, which has the options of version 1.8.2, is used instead.\n\nnowhere", false},
		"broken":               {own, setup.Outcome{Diags: wrong}, true, "", "nowhere", true},
		"not to be had at all": {other, setup.Outcome{Unavailable: true, Diags: wrong}, false, "", "nowhere", true},
		"there":                {other, setup.Outcome{Version: "1.2.3", Path: "/p"}, false, `mine ` + plugintest.Source + ` ">= 1" is installed: v1.2.3 in "/p"`, "", false},
		"new":                  {own, setup.Outcome{Version: "9.0.0", Path: "/p", New: true, Notes: []setup.Note{{Summary: "s", Detail: "note"}}}, false, `Installed plugin github.com/hashicorp/amazon v9.0.0 in "/p"`, "note", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := p.Initialized(c.required, c.outcome)
			var details []string
			for _, d := range got.Diags {
				details = append(details, d.Detail)
			}
			if got.Text != c.text || strings.Join(details, "|") != c.diags || got.Diags.HasErrors() != c.fails || got.Plugin.BuiltIn != c.builtIn || got.Plugin.Path != c.outcome.Path || got.Plugin.Name != c.required.Name {
				t.Errorf("%+v, %q", got, details)
			}
		})
	}
}

// TestRequiredNotTrusted: a binary that is not what the lock file says is named, and not run.
func TestRequiredNotTrusted(t *testing.T) {
	p := places(t, plugintest.Source)
	path := filepath.Join(t.TempDir(), registry.LockFile)
	lock, diags := registry.ReadLock(path)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	locked := registry.NewLocked(plugintest.Source, "1.2.3", ">= 1")
	locked.Hashes = []registry.Hash{{Platform: setup.Platform(), Kind: "bin", SHA256: strings.Repeat("0", 64)}}
	lock.Put(locked)
	if err := lock.Save(); err != nil {
		t.Fatal(err)
	}
	if lock, diags = registry.ReadLock(path); diags.HasErrors() {
		t.Fatal(diags)
	}
	var named []string
	all, err := p.Required(t.Context(), []setup.Requirement{{Name: "mine", Source: plugintest.Source, Allows: func(string) bool { return true }}}, lock,
		func(b host.Binary, _ error) { named = append(named, b.Path) })
	if err != nil || len(named) != 1 || len(all) != 1 || all[0].Path != "" {
		t.Errorf("%+v, %v, refused %v", all, err, named)
	}
}

func TestAll(t *testing.T) {
	all, skipped, err := places(t, plugintest.Source).All(t.Context())
	if err != nil || len(skipped) > 0 || len(all) != 2 || !all[0].BuiltIn || all[0].Source != amazon || all[1].Source != plugintest.Source || all[1].Path == "" {
		t.Errorf("%+v, %v, %v", all, skipped, err)
	}
}

func TestRemove(t *testing.T) {
	const other = "example.com/a/twin"
	p := places(t, plugintest.Source, other)
	for _, c := range []struct{ what, versions, wrong string }{
		{"no source", "", "unreadable"},
		{plugintest.Source, "one", "unreadable"},
		{amazon, "", "github.com/hashicorp/amazon is built in and cannot be removed"},
		{plugintest.Source, "> 2", "no installed plugin matches " + plugintest.Source + " > 2; 'bake plugins installed' lists the installed plugins"},
		{filepath.Join(p.Dirs[0], "nothing"), "", filepath.Join(p.Dirs[0], "nothing")},
	} {
		removed, err := p.Remove(t.Context(), c.what, c.versions)
		_, unreadable := errors.AsType[*installed.UnreadableError](err)
		if err == nil || len(removed) > 0 || unreadable != (c.wrong == "unreadable") || !unreadable && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s %s: %v, %v", c.what, c.versions, removed, err)
		}
	}
	before, _, err := p.All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	removed, err := p.Remove(t.Context(), plugintest.Source, ">= 1")
	if err != nil || len(removed) != 1 {
		t.Fatalf("Remove = %v, %v, want one plugin", removed, err)
	}
	paths := []string{removed[0]}
	for _, i := range before[1:] {
		if i.Source == other {
			if _, err := p.Remove(t.Context(), i.Path, ""); err != nil {
				t.Error(err)
			}
			paths = append(paths, i.Path)
		}
	}
	after, _, err := p.All(t.Context())
	if diff := cmp.Diff(before[:1], after); err != nil || diff != "" || len(paths) != 2 {
		t.Errorf("%v (-before +after):\n%s", err, diff)
	}
}
