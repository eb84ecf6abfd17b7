package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/config"
)

const usesTemplate = `
variable "a" { default = "one" }
variable "b" { default = "two" }
variable "c" { default = "three" }
variable "unused" { default = "x" }
variable "name" { default = "n" }
variable "list" {
  type    = list(string)
  default = ["p", "q"]
}
variable "map" {
  default = { k = "v", l = "w" }
}
variable "pass" {
  default   = "swordfish-swordfish"
  sensitive = true
}
locals {
  used   = "${var.a}-${timestamp()}"
  chain  = upper(local.used)
  unused = var.unused
  motd   = file("motd.txt")
}
source "null" "web" {
  communicator = "none"
  ami_name     = "web-${var.name}-${uuidv4()}"
}
source "null" "other" { communicator = "none" }
build {
  name    = "x"
  sources = ["null.web", "null.other"]
  provisioner "shell-local" {
    inline = ["echo ${local.chain}", "echo ${var.pass}", var.map.k, "${local.motd}"]
  }
  provisioner "shell-local" {
    only   = ["null.other"]
    inline = [var.c]
  }
  dynamic "provisioner" {
    for_each = var.list
    labels   = ["shell-local"]
    content {
      inline = [provisioner.value]
    }
  }
  provisioner "shell-local" {
    environment_vars = ["B=${var.b}", "A=${1 + 2 * 3}"]
    inline = [
      "a",
      "b",
    ]
    override = { web = { inline = ["c"] } }
  }
  post-processor "manifest" { output = "m.json" }
}
`

// usesOf returns what the first build of a template uses, by name.
func usesOf(t *testing.T, text string, vars ...string) map[string]string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"web.pkr.hcl": text, "motd.txt": "hello"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if len(vars) > 0 && vars[0] == "motd" {
		if err := os.WriteFile(filepath.Join(dir, "motd.txt"), []byte("bye"), 0o600); err != nil {
			t.Fatal(err)
		}
		vars = nil
	}
	loaded, diags := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir, Vars: vars, Now: time.Now()})
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	uses, diags := loaded.Uses(context.Background(), loaded.Builds[0], []string{"ami_name"}, nil)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	all := map[string]string{}
	for _, u := range uses {
		all[u.Name] = u.Text
		if u.Secret != (u.Name == "var.pass") {
			t.Errorf("%s: secret %t", u.Name, u.Secret)
		}
	}
	return all
}

// The dependencies of a build are determined by the contents of its template, and not by its form.
// Values that differ in each run do not count, nor do the dependencies of other builds.
func TestUses(t *testing.T) {
	before := usesOf(t, usesTemplate)
	for _, test := range []struct {
		what     string
		from, to string // an edit of the template
		vars     string
		changed  string // names, separated by commas; empty: nothing
	}{
		{what: "nothing"},
		{what: "comment", from: "locals {", to: "# hello\nlocals { // what"},
		{what: "block comment", from: "build {", to: "/* hello */ build {"},
		{what: "blank lines", from: "build {", to: "\n\n\nbuild {\n\n"},
		{what: "indentation", from: "  name    = \"x\"", to: "name=\"x\""},
		{what: "list on one line", from: "[\n      \"a\",\n      \"b\",\n    ]", to: "[\"a\", \"b\"]"},
		{what: "trailing comma", from: "\"c\"]", to: "\"c\",]"},
		{what: "parentheses", from: "1 + 2 * 3", to: "1 + (2 * 3)"},
		{what: "order of arguments", from: "for_each = var.list\n    labels   = [\"shell-local\"]", to: "labels   = [\"shell-local\"]\n    for_each = var.list"},
		{what: "index for attribute", from: "var.map.k", to: "var.map[\"k\"]"},
		{what: "key in quotes", from: "{ web = {", to: "{ \"web\" = {"},
		{what: "unused variable", vars: "unused=y"},
		{what: "unused default", from: "default = \"x\"", to: "default = \"y\""},
		{what: "description", from: "variable \"a\" { default = \"one\" }", to: "variable \"a\" {\n default = \"one\"\n description = \"text\"\n}"},
		{what: "only in the name", vars: "name=m"},
		{what: "the name", from: "ami_name     = \"web", to: "ami_name     = \"site"},
		{what: "unused local", from: "unused = var.unused", to: "unused = 5"},
		{what: "variable of another build", vars: "c=four"},
		{what: "provisioner of another build", from: "inline = [var.c]", to: "inline = [var.c, \"more\"]"},
		{what: "source of another build", from: "\"other\" { communicator = \"none\" }", to: "\"other\" { communicator = \"ssh\" }"},
		{what: "other part of a map", vars: `map={ k = "v", l = "z" }`},
		{what: "order of blocks", from: "variable \"a\" { default = \"one\" }\nvariable \"b\" { default = \"two\" }", to: "variable \"b\" { default = \"two\" }\nvariable \"a\" { default = \"one\" }"},
		{what: "default as value", vars: "a=one"},

		{what: "variable through locals", vars: "a=uno", changed: "var.a"},
		{what: "variable", vars: "b=dos", changed: "var.b"},
		{what: "default", from: "default = \"two\"", to: "default = \"2\"", changed: "var.b"},
		{what: "sensitive variable", vars: "pass=another-swordfish", changed: "var.pass"},
		{what: "list", vars: `list=["p", "r"]`, changed: "var.list"},
		{what: "longer list", vars: `list=["p", "q", "r"]`, changed: "provisioner 4 (shell-local),provisioner 5 (shell-local),var.list"},
		{what: "part of a map", vars: `map={ k = "u", l = "w" }`, changed: "var.map.k"},
		{what: "local", from: "upper(", to: "lower(", changed: "local.chain"},
		{what: "inner local", from: "-${timestamp()}", to: "+${timestamp()}", changed: "local.used"},
		{what: "file of a function", vars: "motd", changed: "file motd.txt"},
		{what: "source", from: "communicator = \"none\"\n", to: "communicator = \"ssh\"\n", changed: "source null.web"},
		{what: "argument more", from: "communicator = \"none\"\n", to: "communicator = \"none\"\n  ssh_host = \"h\"\n", changed: "source null.web"},
		{what: "script", from: "echo ${local.chain}", to: "echo  ${local.chain}", changed: "provisioner 1 (shell-local)"},
		{what: "arithmetic", from: "1 + 2 * 3", to: "(1 + 2) * 3", changed: "provisioner 4 (shell-local)"},
		{what: "order of a list", from: "\"a\",\n      \"b\"", to: "\"b\",\n      \"a\"", changed: "provisioner 4 (shell-local)"},
		{what: "override", from: "[\"c\"]", to: "[\"d\"]", changed: "provisioner 4 (shell-local)"},
		{what: "dynamic content", from: "[provisioner.value]", to: "[provisioner.value, \"x\"]", changed: "provisioner 2 (shell-local),provisioner 3 (shell-local)"},
		{what: "retries", from: "environment_vars", to: "max_retries = 2\n    environment_vars", changed: "provisioner 4 (shell-local)"},
		{what: "post-processor", from: "m.json", to: "n.json", changed: "post-processor 1 (manifest)"},
		{what: "string for reference", from: "var.map.k", to: "\"var.map.k\"", changed: "provisioner 1 (shell-local),var.map.k"},
		{what: "minus is not a comma", from: "\"a\",\n      \"b\"", to: "5 -3, \"b\"", changed: "provisioner 4 (shell-local)"},
	} {
		text := usesTemplate
		if test.from != "" {
			if !strings.Contains(text, test.from) {
				t.Fatalf("%s: the template has no %q", test.what, test.from)
			}
			text = strings.Replace(text, test.from, test.to, 1)
		}
		var vars []string
		if test.vars != "" {
			vars = []string{test.vars}
		}
		after := usesOf(t, text, vars...)
		var changed []string
		for name, was := range before {
			if after[name] != was {
				changed = append(changed, name)
			}
		}
		for name := range after {
			if _, ok := before[name]; !ok {
				changed = append(changed, name)
			}
		}
		slices.Sort(changed)
		if got := strings.Join(changed, ","); got != test.changed {
			t.Errorf("%s: changed is %q, want %q", test.what, got, test.changed)
		}
	}
}

// Images are ordered by their references, and errors in references are reported at their
// place.
func TestReadImages(t *testing.T) {
	for _, test := range []struct {
		text, order, wrong string
	}{
		{text: "image \"a\" {\n}\nimage \"b\" {\n}", order: "a b"},
		{text: "image \"web\" {\n vars = { x = image.base.id }\n}\nimage \"base\" {\n}", order: "base web"},
		{text: "image \"web\" {\n for_each = toset([\"y\", \"x\"])\n}\nimage \"z\" {\n vars = { x = image.web[\"x\"].ids[\"r\"] }\n}", order: "web[\"x\"] web[\"y\"] z"},
		{text: "image \"web\" {\n for_each = { k = var.a }\n}", order: "web[\"k\"]"},
		{text: "image \"web\" {\n for_each = []\n}", wrong: "2 Invalid for_each"},
		{text: "image \"web\" {\n for_each = [\"a\"]\n}", wrong: "2 Invalid for_each"},
		{text: "image \"web\" {\n for_each = null\n}", wrong: "2 Invalid for_each"},
		{text: "image \"web\" {\n for_each = toset([var.pass])\n}", wrong: "2 Sensitive for_each"},
		{text: "image \"web\" {\n for_each = toset([var.unset])\n}", wrong: "2 Unknown for_each"},
		{text: "image \"web\" {\n for_each = toset([\"a/b\"])\n}", wrong: "2 Invalid key"},
		{text: "image \"web\" {\n for_each = toset([local.x])\n}", wrong: "2 "},
		{text: "image \"web\" {\n vars = { x = image.bse.id }\n}\nimage \"base\" {\n}", wrong: "2 Unknown image"},
		{text: "image \"web\" {\n vars = { x = image.web.id }\n}", wrong: "2 Circular reference"},
		{text: "image \"a\" {\n vars = { x = image.b.id }\n}\nimage \"b\" {\n vars = { x = image.a.id }\n}", wrong: "5 Circular reference"},
		{text: "image \"a\" {\n vars = { x = image.b.id }\n}\nimage \"b\" {\n vars = { x = image.a.id }\n}", wrong: "2 Circular reference"},
		{text: "image \"z\" {\n vars = { x = image.a.id }\n}\nimage \"a\" {\n vars = { x = image.b.id }\n}\nimage \"b\" {\n vars = { x = image.a.id }\n}", wrong: "5 Circular reference"},
		{text: "image \"web\" {\n vars = { x = image.base.idd }\n}\nimage \"base\" {\n}", wrong: "2 Unsupported attribute"},
		{text: "image \"web\" {\n for_each = toset([\"y\"])\n}\nimage \"z\" {\n vars = { x = image.web.id }\n}", wrong: "5 No such image"},
		{text: "image \"web\" {\n for_each = toset([\"y\"])\n}\nimage \"z\" {\n vars = { x = image.web[\"q\"].id }\n}", wrong: "5 No such image"},
	} {
		dir := t.TempDir()
		for name, text := range map[string]string{"web.pkr.hcl": usesTemplate + "variable \"unset\" { type = string }\n", "x.bake.hcl": test.text} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		images, diags := config.ReadImages(t.Context(), config.Options{Path: ".", Cwd: dir})
		if test.wrong != "" {
			if !slices.ContainsFunc(diags, func(d *hcl.Diagnostic) bool {
				return d.Subject != nil && strings.HasPrefix(fmt.Sprint(d.Subject.Start.Line, " ", d.Summary), test.wrong)
			}) {
				t.Errorf("%s\nshould be wrong at %s: %v", test.text, test.wrong, diags)
			}
			continue
		}
		var order []string
		for _, i := range images.All {
			order = append(order, i.Address())
		}
		if got := strings.Join(order, " "); got != test.order || diags.HasErrors() {
			t.Errorf("%s\nis ordered %q, want %q: %v", test.text, got, test.order, diags)
		}
	}
}
