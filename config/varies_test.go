package config_test

import (
	"fmt"
	"testing"

	"bake/config"
)

// Functions whose value differs in each run are found in a block and in the values that it
// refers to, and nowhere else.
func TestVaries(t *testing.T) {
	for expr, want := range map[string]string{
		`"plain"`:                       "",
		`"timestamp"`:                   "",
		`timestamp()`:                   "timestamp",
		`"x ${uuidv4()}"`:               "uuidv4",
		`legacy_isotime ("2006")`:       "legacy_isotime",
		`bcrypt("secret", 4)`:           "bcrypt",
		`"{{ isotime | clean }}"`:       "isotime",
		`"{{.Vars}} {{.Path}}"`:         "",
		`local.plain`:                   "",
		`local.now`:                     "timestamp",
		`local.later`:                   "timestamp",
		`local.hidden`:                  "uuidv4",
		`local["now"]`:                  "timestamp",
		`formatdate("2006", "2020-01")`: "",
	} {
		dir := write(t, map[string]string{"t.pkr.hcl": fmt.Sprintf(`
locals {
  plain = "x"
  now   = timestamp()
  later = "${local.now} and more"
}
local "hidden" {
  expression = uuidv4()
  sensitive  = true
}
source "null" "x" {}
build {
  sources = ["null.x"]
  provisioner "shell" {
    inline = [%s]
  }
  provisioner "shell" {
    inline = [timestamp()]
  }
}
`, expr)})
		template := load(t, config.Options{Path: dir})
		if got := template.Varies(template.Builds[0].Provisioners[0].Component); got != want {
			t.Errorf("%s: %q, not %q", expr, got, want)
		}
	}
}
