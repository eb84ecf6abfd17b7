package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func load(t *testing.T, text string) (env []string, errs []string) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "config.hcl")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	home, err := filepath.Abs("/home/ann")
	if err != nil {
		t.Fatal(err)
	}
	env, files, diags := Load(name, true, home)
	for _, d := range diags {
		if d.Subject == nil || d.Subject.Filename != name || files[name] == nil {
			t.Errorf("it is not said where: %s", d)
			continue
		}
		errs = append(errs, strings.Join([]string{string(rune('0' + d.Subject.Start.Line)), d.Summary, d.Detail}, ": "))
	}
	return env, errs
}

func TestSettings(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	env, errs := load(t, `
mirror             = ["debian=http://a.example/debian", "ubuntu=http://a.example/ubuntu"]
plugin_mirror      = "https://a.example/plugins"
state_dir          = "`+dir+`"
cloud_dir          = "~/cloud"
allow_egress       = "10.1.0.0/16"
cloud_init_timeout = "10m"
cache_limit        = "20GB"
exit_codes         = "packer"
color              = false
`)
	home, err := filepath.Abs("/home/ann/cloud")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"BAKE_MIRROR=debian=http://a.example/debian,ubuntu=http://a.example/ubuntu", "BAKE_PLUGIN_MIRROR=https://a.example/plugins", "BAKE_STATE_DIR=" + dir,
		"BAKE_CLOUD_DIR=" + home, "BAKE_ALLOW_EGRESS=10.1.0.0/16", "BAKE_CLOUD_INIT_TIMEOUT=10m", "BAKE_CACHE_LIMIT=20GB", "BAKE_EXIT_CODES=packer", "PACKER_NO_COLOR=1",
	}
	if diff := cmp.Diff(want, env); diff != "" || errs != nil {
		t.Errorf("%v, (-want +got):\n%s", errs, diff)
	}
	if len(want) != len(all()) {
		t.Errorf("%d settings are tried, of %d", len(want), len(all()))
	}
	if env, errs := load(t, "color = true\nmirror = null\nstate_dir = \"\"\n"); env != nil || errs != nil {
		t.Errorf("%v, %v", env, errs)
	}
}

func TestWrongSettings(t *testing.T) {
	for text, want := range map[string]string{
		"\nmirrors = \"x\"":                   `2: Unknown setting: There is no setting "mirrors". Did you mean "mirror"?`,
		"zzzzzzzzzzzz = 1":                    `1: Unknown setting: There is no setting "zzzzzzzzzzzz". Settings are mirror,`,
		"state_dir = \"state\"":               `1: Invalid setting: state_dir: "state" is not an absolute path`,
		"plugin_mirror = \"p\"":               `1: Invalid setting: plugin_mirror: "p" is not an absolute path`,
		"plugin_mirror = 1":                   `1: Invalid setting: plugin_mirror: a text in quotes is wanted, not number`,
		"cloud_init_timeout = \"soon\"":       `1: Invalid setting: cloud_init_timeout: "soon" is not a duration`,
		"cache_limit = \"much\"":              `1: Invalid setting: cache_limit: "much" is not a size`,
		"exit_codes = \"all\"":                `1: Invalid setting: exit_codes: "all" is neither`,
		"color = \"no\"":                      `1: Invalid setting: color: true or false is wanted`,
		"mirror = {}":                         `1: Invalid setting: mirror: a text, or a list of texts, is wanted`,
		"mirror = [\"a,b\"]":                  `1: Invalid setting: mirror: each entry of the list is one text`,
		"mirror = var.x":                      `1: Variables not allowed: `,
		"mirror = ":                           `1: Missing expression: `,
		"color = true\nblock {\n}":            `2: Unexpected "block" block: `,
		"color = true\n\ncolor = true\n":      `3: Attribute redefined: `,
		"color = true\nmirror = [null]":       `2: Invalid setting: mirror: each entry`,
		"color = false\nexit_codes = \"x\"\n": `2: Invalid setting: exit_codes`,
	} {
		if _, errs := load(t, text); len(errs) != 1 || !strings.HasPrefix(errs[0], want) {
			t.Errorf("%q: %q, want %q", text, errs, want)
		}
	}
}

// TestOrder: errors are reported in the order of the file.
func TestOrder(t *testing.T) {
	_, errs := load(t, "f = 1\nexit_codes = \"x\"\ne = 1\nd = 1\nc = 1\nstate_dir = 1\nb = 1\na = 1\n")
	var lines string
	for _, e := range errs {
		lines += e[:1]
	}
	if lines != "12345678" {
		t.Errorf("the lines are %s: %q", lines, errs)
	}
}

func TestFile(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "config.hcl")
	if env, _, diags := Load(missing, false, ""); env != nil || diags != nil {
		t.Errorf("a file that is not there: %v, %v", env, diags)
	}
	if env, _, diags := Load(filepath.Join(os.DevNull, ".config", "bake", "config.hcl"), false, ""); env != nil || diags != nil {
		t.Errorf("a home that is no directory: %v, %v", env, diags)
	}
	for _, name := range []string{missing, t.TempDir()} {
		if _, _, diags := Load(name, true, ""); len(diags) != 1 || !strings.Contains(diags[0].Detail, name) {
			t.Errorf("%s: %v", name, diags)
		}
	}
	large := filepath.Join(t.TempDir(), "config.hcl")
	if err := os.WriteFile(large, make([]byte, limit+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, diags := Load(large, false, ""); len(diags) != 1 {
		t.Errorf("a large file: %v", diags)
	}
}

// TestDocumented: each setting has a row in the page about them.
func TestDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all() {
		row := "| `" + s.name + "` | `" + s.variable + "` |"
		if !strings.Contains(string(page), row) {
			t.Errorf("docs/configuration.md has no row %q", row)
		}
	}
}
