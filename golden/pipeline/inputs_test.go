package pipeline

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bake/config"
	"bake/engine"
	"bake/golden/bakefile"
	"bake/golden/findings"
	"bake/golden/plan"
)

// load returns the pipeline of the image in a directory, with its inputs.
func load(t *testing.T, dir string, now time.Time, environ ...string) *pipeline {
	t.Helper()
	template, diags := config.Load(t.Context(), config.Options{Path: ".", Cwd: dir, Env: environ, Now: now})
	settings, more := bakefile.Read(t.Context(), template)
	if diags = append(diags, more...); diags.HasErrors() {
		t.Fatal(diags)
	}
	p := &pipeline{Options: Options{Template: template, Now: func() time.Time { return now }}, image: settings.Images()[0]}
	if diags := p.load(); diags.HasErrors() {
		t.Fatal(diags)
	}
	if diags := p.inputs(t.Context(), engine.Materials{}); diags.HasErrors() {
		t.Fatal(diags)
	}
	return p
}

// inputsOf returns the digest of the inputs of the image in a directory, and the inputs.
func inputsOf(t *testing.T, dir string, now time.Time, environ ...string) (string, []plan.Input) {
	t.Helper()
	all := load(t, dir, now, environ...).static.inputs
	return plan.Digest(all), all
}

// Everything that decides about a gate is an input: files that checks include, the content of a
// scan, an expired waiver, and responses of servers.
func TestInputsOfGates(t *testing.T) {
	var value = "a-first-value"
	consul := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, value) }))
	defer consul.Close()
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const benchmark = `<Benchmark xmlns="http://checklists.nist.gov/xccdf/1.2"><Profile id="xccdf_a_profile_level1"/>%s</Benchmark>`
	t.Chdir(dir)
	put("web.pkr.hcl", `
locals { motd = consul_key("motd") }
source "null" "web" { communicator = "none" }
build {
  sources = ["null.web"]
  provisioner "shell-local" { inline = ["echo ${local.motd}"] }
}
`)
	put("web.bake.hcl", `
image "web" {
  sources = ["null.web"]
  checks "base" {
    files = ["base.yaml"]
    gate {
      waivers = "waivers.hcl"
    }
  }
  scan "openscap" {
    content   = "content.xml"
    tailoring = "tailoring.xml"
    profile   = "level1"
  }
}
`)
	put("base.yaml", "gossfile: {more.yaml: {}}\n")
	put("more.yaml", "file: {/etc/a: {exists: true}}\n")
	put("waivers.hcl", "waiver \"a\" {\n  reason = \"r\"\n  owner = \"o\"\n  expires = \"2027-03-31\"\n}\n")
	put("content.xml", fmt.Sprintf(benchmark, ""))
	put("tailoring.xml", fmt.Sprintf(benchmark, ""))

	now := time.Date(2027, 3, 1, 0, 0, 0, 0, time.UTC)
	environ := []string{"CONSUL_HTTP_ADDR=" + consul.URL}
	last, _ := inputsOf(t, dir, now, environ...)
	if again, _ := inputsOf(t, dir, now.AddDate(0, 0, 1), environ...); again != last {
		t.Error("the inputs change by themselves")
	}
	for _, change := range []struct {
		what string
		do   func()
	}{
		{"an included file", func() { put("more.yaml", "file: {/etc/b: {exists: true}}\n") }},
		{"the content of a scan", func() { put("content.xml", fmt.Sprintf(benchmark, "<title/>")) }},
		{"its tailoring", func() { put("tailoring.xml", fmt.Sprintf(benchmark, "<title/>")) }},
		{"a waiver that expires", func() { now = now.AddDate(1, 0, 0) }},
		{"the answer of a server", func() { value = "another-value" }},
	} {
		change.do()
		digest, inputs := inputsOf(t, dir, now, environ...)
		if digest == last {
			t.Errorf("%s changes nothing", change.what)
		}
		if strings.Contains(fmt.Sprint(inputs), value) {
			t.Errorf("the answer of a server is shown: %v", inputs)
		}
		last = digest
	}
}

// Values that the template marks as sensitive, including local values, are searched for on
// the machine, and do not appear in reports.
func TestSensitive(t *testing.T) {
	const secret = "swordfish-" + "swordfish"
	dir := t.TempDir()
	for name, text := range map[string]string{
		"web.pkr.hcl": `
local "token" {
  expression = join("-", ["swordfish", "swordfish"])
  sensitive  = true
}
source "null" "web" { communicator = "none" }
build {
  sources = ["null.web"]
  provisioner "shell-local" { inline = ["echo ${local.token}"] }
}
`,
		"web.bake.hcl": "image \"web\" {\n  sources = [\"null.web\"]\n}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := load(t, dir, time.Now())
	if all := p.leftoversPlan().Secrets; !slices.Contains(all, secret) {
		t.Errorf("looked for are %q", all)
	}
	texts := findings.Finding{
		ID: secret, Title: secret, Evidence: secret, Rationale: secret, Fix: secret, Refs: []string{"token " + secret}, Waiver: "suppressed: " + secret,
		Severity: findings.High, Result: findings.Fail,
	}
	clean := p.clean(findings.Report{Name: "scan.x", Tool: "scan --token " + secret, Warnings: []string{"cannot log in with " + secret}, Findings: []findings.Finding{texts}})
	if text := fmt.Sprintf("%+v", clean); strings.Contains(text, secret) {
		t.Errorf("a report says %s", text)
	}
}
