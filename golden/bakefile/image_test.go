package bakefile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/config"
	"bake/golden/bakefile"
)

const template = `
source "null" "web" { communicator = "none" }
build {
  name    = "web"
  sources = ["null.web"]
}
`

// read reads a bake file next to the template.
func read(t *testing.T, text string) (*bakefile.Settings, []string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"web.pkr.hcl": template, "x.bake.hcl": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	loaded, diags := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir})
	settings, more := bakefile.Check(t.Context(), loaded)
	var said []string
	for _, d := range append(diags, more...) {
		if d.Subject == nil {
			t.Fatalf("without a place: %s", d.Error())
		}
		said = append(said, fmt.Sprintf("%s:%d %s", d.Subject.Filename, d.Subject.Start.Line, d.Summary)+": "+d.Detail)
	}
	return settings, said
}

// Errors in an image block are reported at their line.
func TestWrongImages(t *testing.T) {
	for _, test := range []struct {
		body string // of an image block, from line 3 on
		line string
		want string
	}{
		{"sources = \"null.web\"", "3", "list of string required"},
		{"build = \"web\"\nsources = [\"null.*\"]", "4", "either build or sources"},
		{"", "2", "Image without a build"},
		{"sources = [\"[\"]", "3", "Invalid pattern"},
		{"build = \"web\"\nvars = [\"a\"]", "4", "vars must be an object"},
		{"build = \"web\"\nchecks {\nfiles = []\n}", "4", "Missing name for checks"},
		{"build = \"web\"\nchecks \"a\" {\n}", "4", "files"},
		{"build = \"web\"\nchecks \"a\" {\nfiles = [{}]\n}", "5", "string required"},
		{"build = \"web\"\nchecks \"a\" {\nfiles = []\nremediate = \"maybe\"\n}", "6", "bool"},
		{"build = \"web\"\nchecks \"a\" {\nfiles = []\n}\nchecks \"a\" {\nfiles = []\n}", "7", "Duplicate name"},
		{"build = \"web\"\nleftovers {\nallow = [\"relative\"]\n}", "5", "not an absolute path"},
		{"build = \"web\"\nleftovers {\nallow = [\"/\"]\n}", "5", "not an absolute path"},
		{"build = \"web\"\nleftovers {\n}\nleftovers {\n}", "6", "Duplicate block"},
		{"build = \"web\"\nverify \"\" {\n}", "4", "Missing name"},
		{"build = \"web\"\nverify \"a\" {\ntimeout = \"soon\"\n}", "5", "not a duration"},
		{"build = \"web\"\nverify \"a\" {\ntimeout = \"-1s\"\n}", "5", "Invalid timeout"},
		{"build = \"web\"\nverify \"a\" {\nreboots = 1.5\n}", "5", "whole number"},
		{"build = \"web\"\nverify \"a\" {\nreboots = -1\n}", "5", "0 to 10 times"},
		{"build = \"web\"\nverify \"a\" {\ninstance_types = [\"\"]\n}", "5", "Empty type"},
		{"build = \"web\"\nverify \"a\" {\non_failure = 3\n}", "5", "is not one of"},
		{"build = \"web\"\nverify \"a\" {\nprovisioner {\n}\n}", "5", "Missing type for provisioner"},
		{"build = \"web\"\nprovenance {\n}", "4", "argument \"key\" is required"},
		{"build = \"web\"\nchannel \"a\" {\n  requires = [\"verify.boot\"]\n}", "5", "The image has no verify.boot."},
		{"build = \"web\"\nchannel \"a\" {\n  from = \"b\"\n}\nchannel \"b\" {\n}", "5", "\"b\" must come before \"a\""},
		{"build = \"web\"\nchannel \"a\" {\n  soak = \"24h\"\n}", "5", "set from"},
		{"build = \"web\"\nchannel \"a\" {\n  webhook = \"ci\"\n}", "5", "webhook must be the URL"},
		{"build = \"web\"\nchannel \"a\" {\n  parameter = \"stable\"\n}", "5", "not a name for a parameter"},
		{"build = \"web\"\nchannel \"a\" {\n  requires = [\"scan.openscap\"]\n}", "5", "The image has no scan.openscap."},
		{"build = \"web\"\nchannel \"a\" {\n  parameter = \"/x/y\"\n}\nchannel \"b\" {\n  parameter = \"/x/y\"\n}", "7", "the parameter of channel a of web already"},
		{"build = \"web\"\nverify \"a,checks.b\" {\n}", "4", "cannot have a comma"},
		{"build = \"web\"\n}\nimage \"a web\" {\nsources = [\"null.none\"]\nchannel \"a\" {\n}", "7", "not a name for a parameter"},
		{"build = \"web\"\ndistribute {\n  accounts = [\"1234\"]\n}", "5", "has 12 digits"},
		{"build = \"web\"\ndistribute {\n  accounts = [\"111122223333\"]\n  mode = \"copy\"\n}", "6", "needs a role"},
		{"build = \"web\"\ndistribute {\n  kms_keys = { mars = \"k\" }\n}", "5", "not distributed to \"mars\""},
		{"build = \"web\"\n}\nimage \"web\" {\nsources = [\"web.null.*\"]", "5", "There is an image \"web\" already, at x.bake.hcl:2"},
	} {
		_, said := read(t, "\nimage \"web\" {\n"+test.body+"\n}\n")
		if !slices.ContainsFunc(said, func(s string) bool {
			return strings.HasPrefix(s, "x.bake.hcl:"+test.line+" ") && strings.Contains(s, test.want)
		}) {
			t.Errorf("%s\nshould be %q at line %s:\n%s", test.body, test.want, test.line, strings.Join(said, "\n"))
		}
	}
}

// An image block applies to the builds that it names, and has defaults for what it does not set.
func TestImages(t *testing.T) {
	settings, said := read(t, `
image "web" {
  sources = ["web.null.*"]
  verify "boot" {
  }
}
`)
	images := settings.Images()
	if len(said) > 0 || len(images) != 1 {
		t.Fatalf("%d images: %q", len(images), said)
	}
	v := images[0].Image.Verify[0]
	if images[0].Name != "web" || images[0].Build.Name != "web.null.web" || v.Name != "boot" || v.OnFailure != "delete" || v.Timeout.Minutes() != 15 {
		t.Errorf("%+v of %s: %+v", images[0].Name, images[0].Build.Name, v)
	}
}
