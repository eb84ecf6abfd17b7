package hcpsbom_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bake/golden/contents"
	"bake/internal/lazyregexp"
	"bake/provisioner/hcpsbom"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// uploads finds the paths of files that are put on the machine.
var uploads = lazyregexp.New(`/tmp/bake-sbom-[a-z0-9.]+`)

func now() time.Time { return time.Unix(1700000000, 0) }

// root makes a system with one package, and an SBOM of another tool in /sbom.json.
func root(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"etc/os-release":                         "ID=debian\nVERSION_ID=12\n",
		"var/lib/dpkg/status":                    "Package: bash\nStatus: install ok installed\nVersion: 5\nArchitecture: amd64\n",
		"opt/lib/python3/x-1.dist-info/METADATA": "Name: x\nVersion: 1\n",
		"sbom.json":                              `{"bomFormat": "CycloneDX", "specVersion": "1.6"}`,
		"no.json":                                `{"bomFormat": "Excel"}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func body(lines ...string) string { return strings.Join(lines, "\n") + "\n" }

func TestSuite(t *testing.T) {
	dir := root(t)
	lenient := func(int, string) bool { return true }
	for name, b := range map[string]string{
		"auto":    body(`auto_generate = true`, `scan_path = "`+dir+`"`, `destination = "`+t.TempDir()+`/sbom.json"`),
		"command": body(`auto_generate = true`, `scan_path = "/nowhere"`, `destination = "`+t.TempDir()+`/sbom.json"`, `execute_command = "{{.Path}} {{.Args}} >{{.Output}}"`),
		"source":  body(`source = "`+dir+`/sbom.json"`, `destination = "`+t.TempDir()+`/sbom.json"`),
	} {
		t.Run(name, func(t *testing.T) {
			provisionertest.Suite{Factory: hcpsbom.Factory(now), Body: b, Dir: dir, Lenient: lenient}.Run(t)
		})
	}
}

// TestSBOM: the written documents, and their paths.
func TestSBOM(t *testing.T) {
	dir := root(t)
	for name, c := range map[string]struct {
		body   string
		want   string // pattern of the file
		format contents.Format
		has    string
		hasNot string
		warns  string
	}{
		"a file in a new folder": {`auto_generate = true
			destination = "OUT/new/x"`, "new/x", contents.CycloneDX, "pkg:deb/debian/bash@5?arch=amd64&distro=debian-12", "OUT", ""},
		"a folder": {`auto_generate = true
			destination = "OUT"`, "packer-user-sbom-*.json", contents.CycloneDX, "pkg:pypi/x@1", "OUT", ""},
		"a name": {`auto_generate = true
			destination = "OUT"
			sbom_name = "my-sbom"
			scanner_args = ["-o", "spdx-json", "--exclude", "./opt/**"]`, "my-sbom.spdx.json", contents.SPDX, `"name": "my-sbom"`, "pypi", ""},
		"a command": {`auto_generate = true
			destination = "OUT"
			sbom_name = "abc"
			execute_command = "test $(ls -ld $(dirname {{.Output}}) | cut -c-10) = drwx--x--x && sh {{.Path}} sbom-generate {{.Args}} {{.ScanPath}} > {{.Output}}"`, "abc.cdx.json", contents.CycloneDX, "bash@5", "OUT", ""},
		"a download": {`source = "ROOT/sbom.json"
			destination = "OUT/x"`, "x", contents.CycloneDX, "1.6", "bash", ""},
		"a machine that has nothing": {`auto_generate = true
			scan_path = "/nowhere"
			destination = "OUT"`, "", "", "", "", "There is no SBOM"},
		"a command that fails": {`auto_generate = true
			execute_command = "test {{.Path}} = {{.Output}}"
			destination = "OUT"`, "", "", "", "", "execute_command: exit status 1"},
		"a file that is missing": {`source = "ROOT/missing.json"
			destination = "OUT"`, "", "", "", "", "There is no SBOM"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			text := c.body + "\n"
			if !strings.Contains(text, "scan_path") {
				text += `scan_path = "ROOT"` + "\n"
			}
			text = strings.NewReplacer("OUT", out, "ROOT", dir).Replace(text)
			s, log := provisionertest.Scope(t)
			p := provisionertest.New(t, hcpsbom.Factory(now), text)
			m := provisionertest.NewMachine(t)
			if err := p.Provision(t.Context(), s, m.Builder()); err != nil {
				t.Fatal(err)
			}
			for _, call := range m.Calls() {
				for _, path := range uploads.Get().FindAllString(call, -1) {
					if _, err := os.Stat(path); err == nil {
						t.Errorf("%s is left on the machine", path)
					}
				}
			}
			if warns := strings.Join(log.Texts(step.Warning), "\n"); !strings.Contains(warns, c.warns) || c.warns == "" && warns != "" {
				t.Errorf("warnings: %q, want %q", warns, c.warns)
			}
			if c.want == "" {
				if list, _ := os.ReadDir(out); len(list) > 0 {
					t.Errorf("there is %s", list[0])
				}
				return
			}
			found, _ := filepath.Glob(filepath.Join(out, c.want))
			if len(found) != 1 {
				list, _ := filepath.Glob(out + "/*")
				t.Fatalf("no %s: %v", c.want, list)
			}
			got, err := os.ReadFile(found[0])
			if err != nil {
				t.Fatal(err)
			}
			if format, err := contents.Recognize(got); format != c.format || !strings.Contains(string(got), c.has) || strings.Contains(string(got), c.hasNot) {
				t.Errorf("got %s, %v:\n%s", format, err, got)
			}
			if !json.Valid(got) {
				t.Error("it is no JSON")
			}
			if said := strings.Join(log.Texts(step.Say), "\n"); !strings.Contains(said, "is not sent to HCP Packer") {
				t.Errorf("said: %s", said)
			}
		})
	}
}

// TestErrors: files that are not SBOMs, or cannot be written, are errors.
func TestErrors(t *testing.T) {
	dir := root(t)
	for b, want := range map[string]string{
		`source = "` + dir + `/no.json"`:                                                "neither CycloneDX nor SPDX",
		body(`source = "`+dir+`/sbom.json"`, `destination = "`+dir+`/missing/"`):        "is not an existing directory",
		body(`source = "`+dir+`/sbom.json"`, `destination = "`+dir+`/sbom.json/below"`): "Cannot write the SBOM",
	} {
		s, _ := provisionertest.Scope(t)
		p := provisionertest.New(t, hcpsbom.Factory(now), b+"\n")
		if err := p.Provision(t.Context(), s, provisionertest.NewMachine(t).Builder()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", b, err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct{ body, at, want string }{
		{"", "", "Set source to download"},
		{body(`source = "/x"`, `auto_generate = true`), "source", "cannot be used together"},
		{body(`auto_generate = true`, `sbom_name = "x"`), "sbom_name", "3 to 36"},
		{body(`auto_generate = true`, `sbom_name = "with space"`), "sbom_name", "3 to 36"},
		{body(`auto_generate = true`, `scan_path = "opt"`), "scan_path", "absolute"},
		{body(`auto_generate = true`, `scanner_args = ["-o", "table"]`), "scanner_args", "not cyclonedx-json or spdx-json"},
		{body(`auto_generate = true`, `scanner_args = ["-o"]`), "scanner_args", "needs a value"},
		{body(`auto_generate = true`, `scanner_args = ["--verbose"]`), "scanner_args", "--verbose"},
		{body(`auto_generate = true`, `scanner_args = ["--exclude=[", "-o", "spdx-json"]`), "scanner_args", "not a pattern"},
		{body(`auto_generate = true`, `scanner_args = ["--scope", "x"]`), "scanner_args", "scope"},
		{body(`auto_generate = true`, `execute_command = "{{.Path}}"`), "execute_command", "{{.Output}}"},
		{body(`auto_generate = true`, `elevated_password = "x"`), "elevated_password", "needs elevated_user"},
	} {
		provisionertest.Invalid(t, hcpsbom.Factory(now), c.body, c.at, c.want)
	}
}
