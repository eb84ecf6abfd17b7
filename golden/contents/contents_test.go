package contents_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"bake/golden/contents"
)

// machine makes the files of a machine below a new folder: some of each kind.
func machine(t testing.TB, more map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"etc/os-release": "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME='Debian'\nVERSION_ID=\"12\"\n# ID=no\nID=debian\nCPE_NAME=\"cpe:/o:debian:debian_linux:12\"\n",
		"var/lib/dpkg/status": `Package: bash
Status: install ok installed
Maintainer: Matthias Klose <doko@debian.org>
Architecture: amd64
Version: 5.2.15-2+b7
Source: bash (5.2.15-2)
Conffiles:
 /etc/bash.bashrc 89269e1298235f1b12b4c16e4065ad0d
Description: GNU Bourne Again SHell
 Version: 1
 .
 Bash is an sh-compatible command language interpreter.

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: vim-tiny
Status: hold ok installed
Architecture: arm64
Source: vim
Version: 2:9.0.1378-2

Package: python3-six
Status: install ok installed
Architecture: all
Source: six
Version: 1.16.0-4
`,
		"usr/share/doc/bash/copyright":                                         "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: GPL-3+\n the text\n\nFiles: x\nLicense: BSD-4-clause-UC and Latex2e, or Expat\n",
		"usr/share/doc/vim-tiny/copyright":                                     "This is in prose.\nLicense: whatever\n",
		"var/lib/dpkg/info/python3-six.list":                                   "/.\n/usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO\n",
		"usr/lib/python3/dist-packages/six-1.16.0.egg-info/PKG-INFO":           "Name: six\nVersion: 1.16.0\n",
		"usr/local/lib/python3.11/dist-packages/PyYAML-6.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: Py_YAML\nVersion: 6.0\nLicense: MIT\nClassifier: x\n\nName: not\nVersion: 0\n",
		"opt/it's here/lib/node_modules/@scope/x/package.json":                 `{"name": "@scope/x", "version": "1.2.3", "license": "Apache-2.0 OR MIT"}`,
		"opt/it's here/lib/node_modules/@scope/x/lib/package.json":             `{"name": "not", "version": "0"}`,
		"opt/it's here/lib/node_modules/old/package.json":                      `{"name": "old", "version": "0.1", "license": {"type": "SEE LICENSE IN x"}}`,
		"opt/bin/script": "#!/bin/sh\necho not one of Go, though it says: Go buildinf:\n",
	}
	for name, text := range more {
		files[name] = text
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.Contains(name, "bin/") {
			mode = 0o755
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// program returns a program that Go has built from several modules.
func program(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if out, err := exec.Command("go", "build", "-o", path, "bake/cloud/wire/genmodel").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shell runs scripts here.
func shell(calls *int) contents.Shell {
	return func(ctx context.Context, script string, out io.Writer) error {
		*calls++
		cmd := exec.CommandContext(ctx, "sh", "-s")
		cmd.Stdin = strings.NewReader(script)
		cmd.Stdout = out
		var errOut bytes.Buffer
		cmd.Stderr = &errOut
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%w: %s", err, errOut.String())
		}
		return nil
	}
}

func samples(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(moduleDir(t, "github.com/anchore/go-rpmdb"), "pkg/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func moduleDir(t testing.TB, module string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestWhatIsFound: packages of every kind are found once, with all details, both in local
// files and through a shell.
func TestWhatIsFound(t *testing.T) {
	root := machine(t, map[string]string{"usr/local/bin/program": program(t)})
	here, err := contents.FromFS(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	there, err := contents.FromMachine(t.Context(), shell(&calls), root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(here, there); diff != "" {
		t.Errorf("files here and a shell differ (-here +shell):\n%s", diff)
	}
	if calls > 6 {
		t.Errorf("%d calls of the shell are not few", calls)
	}
	want := contents.OS{ID: "debian", VersionID: "12", Name: "Debian GNU/Linux 12 (bookworm)", CPE: "cpe:/o:debian:debian_linux:12"}
	if here.OS != want {
		t.Errorf("got %+v", here.OS)
	}
	if len(here.Problems) > 0 {
		t.Errorf("problems: %v", here.Problems)
	}
	program := 0
	var got []string
	for _, p := range here.Packages {
		if p.Kind == contents.Go {
			program++
			continue
		}
		got = append(got, fmt.Sprint(p.URL(here.OS), " ", p.Licenses, " ", p.Paths))
	}
	if program != 4 || !slices.ContainsFunc(here.Packages, func(p contents.Package) bool {
		return strings.HasPrefix(p.URL(here.OS), "pkg:golang/github.com/aws/smithy-go@v1")
	}) {
		t.Errorf("of a program, %d modules are found", program)
	}
	if diff := cmp.Diff([]string{
		"pkg:deb/debian/bash@5.2.15-2%2Bb7?arch=amd64&distro=debian-12&upstream=bash%405.2.15-2 [BSD-4-Clause-UC GPL-3.0-or-later Latex2e MIT] []",
		"pkg:deb/debian/python3-six@1.16.0-4?arch=all&distro=debian-12&upstream=six [] []",
		"pkg:deb/debian/vim-tiny@2:9.0.1378-2?arch=arm64&distro=debian-12&upstream=vim [] []",
		"pkg:npm/%40scope/x@1.2.3 [Apache-2.0 OR MIT] [opt/it's here/lib/node_modules/@scope/x/package.json]",
		"pkg:npm/old@0.1 [SEE LICENSE IN x] [opt/it's here/lib/node_modules/old/package.json]",
		"pkg:pypi/py-yaml@6.0 [MIT] [usr/local/lib/python3.11/dist-packages/PyYAML-6.0.dist-info/METADATA]",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOtherPackageManagers: RPM and apk, of a system below a folder.
func TestOtherPackageManagers(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		count int
		want  string
	}{
		"fedora": {
			map[string]string{"etc/os-release": "ID=fedora\nVERSION_ID=35\n", "var/lib/rpm/rpmdb.sqlite": samples(t, "fedora35/rpmdb.sqlite")},
			137, "pkg:rpm/fedora/zlib@1.2.11-30.fc35?arch=x86_64&distro=fedora-35&upstream=zlib-1.2.11-30.fc35.src.rpm [Zlib AND BSL-1.0]",
		},
		"sles": {
			map[string]string{"etc/os-release": "ID=\"sles\"\n", "usr/lib/sysimage/rpm/Packages.db": samples(t, "sle15-bci/Packages.db")},
			35, "pkg:rpm/sles/libgcc_s1@11.2.1%2Bgit610-1.3.9?arch=x86_64&distro=sles&upstream=gcc11-11.2.1%2Bgit610-1.3.9.src.rpm [GPL-3.0-or-later WITH GCC-exception-3.1]",
		},
		"alpine": {
			map[string]string{
				"etc/os-release":                        "ID=alpine\nVERSION_ID=3.18.4\n",
				"lib/apk/db/installed":                  "C:Q1\nP:libssl3\nV:3.1.3-r0\nA:x86_64\nL:Apache-2.0\no:openssl\nm:A B <a@b>\nF:lib\nR:libssl.so.3\n\nP:npm\nV:9.6.6-r0\nA:x86_64\nL:Artistic-2.0\nF:usr/lib/node_modules/npm\nR:package.json\n",
				"usr/lib/node_modules/npm/package.json": `{"name":"npm","version":"9.6.6"}`,
			},
			2, "pkg:apk/alpine/libssl3@3.1.3-r0?arch=x86_64&distro=alpine-3.18.4&upstream=openssl [Apache-2.0]",
		},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(root, name)
			_ = os.MkdirAll(filepath.Dir(path), 0o755)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		calls := 0
		got, err := contents.FromMachine(t.Context(), shell(&calls), root)
		if err != nil {
			t.Fatal(err)
		}
		here, err := contents.FromFS(os.DirFS(root))
		if diff := cmp.Diff(here, got); err != nil || diff != "" {
			t.Errorf("%s: files here and a shell differ (-here +shell): %v\n%s", name, err, diff)
		}
		var list []string
		for _, p := range got.Packages {
			list = append(list, fmt.Sprint(p.URL(got.OS), " ", p.Licenses))
		}
		if len(list) != c.count || !slices.Contains(list, c.want) || len(got.Problems) > 0 {
			t.Errorf("%s: got %d packages without %s: %v\n%s", name, len(list), c.want, got.Problems, strings.Join(list, "\n"))
		}
		valid(t, got)
	}
}

// valid checks the documents against the schemas of their formats.
func valid(t *testing.T, c *contents.Contents) map[contents.Format]string {
	t.Helper()
	cyclone := filepath.Join(moduleDir(t, "github.com/CycloneDX/cyclonedx-go"), "schema")
	compiler := jsonschema.NewCompiler()
	for url, path := range map[string]string{
		"http://cyclonedx.org/schema/bom-1.6.schema.json":  cyclone + "/bom-1.6.schema.json",
		"http://cyclonedx.org/schema/spdx.schema.json":     cyclone + "/spdx.schema.json",
		"http://cyclonedx.org/schema/jsf-0.82.schema.json": cyclone + "/jsf-0.82.schemax.json",
		"http://spdx.org/rdf/terms/2.3":                    "testdata/spdx-2.3.schema.json",
	} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		schema, err := jsonschema.UnmarshalJSON(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource(url, schema); err != nil {
			t.Fatal(err)
		}
	}
	texts := map[contents.Format]string{}
	for format, url := range map[contents.Format]string{
		contents.CycloneDX: "http://cyclonedx.org/schema/bom-1.6.schema.json", contents.SPDX: "http://spdx.org/rdf/terms/2.3",
	} {
		schema, err := compiler.Compile(url)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := c.Write(&b, format, contents.Document{Time: time.Unix(1700000000, 5), Version: "0.1.0"}); err != nil {
			t.Fatal(err)
		}
		texts[format] = b.String()
		if got, err := contents.Recognize(b.Bytes()); got != format {
			t.Errorf("%s is taken for %q: %v", format, got, err)
		}
		document, err := jsonschema.UnmarshalJSON(&b)
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(document); err != nil {
			t.Errorf("%s: %v", format, err)
		}
	}
	var bom cdx.BOM
	var again bytes.Buffer
	if err := cdx.NewBOMDecoder(strings.NewReader(texts[contents.CycloneDX]), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if err := cdx.NewBOMEncoder(&again, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(&bom, cdx.SpecVersion1_6); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(texts[contents.CycloneDX], again.String()); diff != "" {
		t.Errorf("CycloneDX's own library writes it differently (-bake +library):\n%s", diff)
	}
	return texts
}

// TestLicenses: licenses that SPDX knows are written as in SPDX, and are in its list.
func TestLicenses(t *testing.T) {
	for field, want := range map[string]string{
		"": "[]", "MIT": "[MIT]", "GPLv2+ and LGPLv2": "[GPL-2.0-or-later AND LGPL-2.0-only]", "(GPL-2+ or MIT) and zlib": "[(GPL-2.0-or-later OR MIT) AND Zlib]",
		"BSD and MIT": "[BSD and MIT]", "GPL-3.0-or-later WITH GCC-exception-3.1": "[GPL-3.0-or-later WITH GCC-exception-3.1]",
		"MIT WITH": "[MIT WITH]", "MIT WITH MIT": "[MIT WITH MIT]", "WITH MIT": "[WITH MIT]", "(MIT": "[(MIT]", "MIT)": "[MIT)]", "MIT AND": "[MIT AND]",
		"MIT MIT": "[MIT MIT]", "() MIT": "[() MIT]", "MIT WITH LLVM-exception AND": "[MIT WITH LLVM-exception AND]",
		"MIT WITH LLVM-exception LLVM-exception": "[MIT WITH LLVM-exception LLVM-exception]", "MIT WITH WITH": "[MIT WITH WITH]",
	} {
		if got := fmt.Sprint(contents.Expression(field)); got != want {
			t.Errorf("%q: got %s, want %s", field, got, want)
		}
	}
	var schema struct {
		Enum []string `json:"enum"`
	}
	text, err := os.ReadFile(filepath.Join(moduleDir(t, "github.com/CycloneDX/cyclonedx-go"), "schema/spdx.schema.json"))
	if err == nil {
		err = json.Unmarshal(text, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range contents.LicenseIDs() {
		if !slices.Contains(schema.Enum, id) {
			t.Errorf("SPDX has no license %s", id)
		}
	}
}

// TestDocuments: documents follow the schemas, contain what was found, and are
// reproducible.
func TestDocuments(t *testing.T) {
	root := machine(t, map[string]string{"usr/local/bin/program": program(t), "opt/node_modules/bad/package.json": "{"})
	c, err := contents.FromFS(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	first := valid(t, c)
	again, err := contents.FromFS(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	for format, text := range valid(t, again) {
		if text != first[format] {
			t.Errorf("%s is another each time", format)
		}
		for _, p := range c.Packages {
			quoted, _ := json.Marshal(p.URL(c.OS))
			if n := strings.Count(text, strings.ReplaceAll(string(quoted), `\u0026`, "&")); n == 0 {
				t.Errorf("%s lacks %s", format, quoted)
			}
		}
		for _, part := range []string{"bad/package.json: unexpected end of JSON", "2023-11-14T22:13:20Z", "cpe:/o:debian:debian_linux:12", "Latex2e"} {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %s", format, part)
			}
		}
	}
	c.Packages = c.Packages[1:]
	for format, text := range valid(t, c) {
		id := func(text string) string {
			_, after, _ := strings.Cut(text, map[contents.Format]string{contents.CycloneDX: `"serialNumber": "`, contents.SPDX: `"documentNamespace": "`}[format])
			before, _, _ := strings.Cut(after, `"`)
			return before
		}
		if id(text) == "" || id(text) == id(first[format]) {
			t.Errorf("%s of something else has the same identifier %s", format, id(text))
		}
	}
}

// TestHostileMachine: whatever a machine sends, reading it ends, with contents or an error.
func TestHostileMachine(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for name, c := range map[string]struct {
		send string // what each script prints
		want string
	}{
		"nothing":       {"", "ends early"},
		"a long line":   {"\x01bake files\n" + long, "does not end"},
		"no end":        {"\x01bake files\netc/os-release\n", "ends early"},
		"much more":     {"\x01bake end\n" + long, "more than was requested"},
		"another file":  {"\x01bake files\netc/os-release\n\x01bake end\n7\n", "sends"},
		"paths to here": {"\x01bake files\n../../etc/shadow\n/etc/shadow\n\x01bake end\n", "no dpkg, RPM or apk database"},
	} {
		_, err := contents.FromMachine(t.Context(), func(_ context.Context, _ string, out io.Writer) error {
			_, err := io.WriteString(out, c.send)
			return err
		}, "/")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, not %s", name, err, c.want)
		}
	}
	_, err := contents.FromMachine(t.Context(), func(ctx context.Context, _ string, out io.Writer) error {
		for { // endless
			if _, err := io.WriteString(out, "\x01bake files\n"); err != nil {
				return err
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}, "/")
	if err == nil {
		t.Error("output without an end is no error")
	}
	bare := t.TempDir() // a machine without find
	for _, name := range []string{"sh", "grep", "xargs", "dd", "base64"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bare, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	calls := 0
	_, err = contents.FromMachine(t.Context(), func(ctx context.Context, script string, out io.Writer) error {
		return shell(&calls)(ctx, "PATH="+bare+"\n"+script, out)
	}, "/")
	if err == nil || !strings.Contains(err.Error(), "no find") {
		t.Errorf("without find: %v", err)
	}
	failed := errors.New("lost")
	if _, err := contents.FromMachine(t.Context(), func(context.Context, string, io.Writer) error { return failed }, "/"); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

// TestLongValues: a value of very many lines is truncated, and directories and the like
// with the name of a file are skipped.
func TestLongValues(t *testing.T) {
	dir := t.TempDir()
	status := "Package: a\nStatus: install ok installed\nVersion: 1\nMaintainer: m\n" + strings.Repeat(" x\n", 1<<20) + "Architecture: amd64\n"
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "var/lib/dpkg"), 0o755), os.WriteFile(filepath.Join(dir, "var/lib/dpkg/status"), []byte(status), 0o644),
		os.MkdirAll(filepath.Join(dir, "usr/share/doc/a/copyright"), 0o755))
	if err != nil {
		t.Fatal(err)
	}
	c, err := contents.FromFS(os.DirFS(dir))
	if err != nil || len(c.Packages) != 1 || len(c.Problems) > 0 {
		t.Fatalf("FromFS = %+v, %v, want one package and no problems", c, err)
	}
	if p := c.Packages[0]; len(p.Supplier) > 1<<13 || p.Arch != "amd64" {
		t.Errorf("a supplier of %d bytes, for %s", len(p.Supplier), p.Arch)
	}
}

func TestExclude(t *testing.T) {
	for pattern, want := range map[string]int{"./opt/**": 1, "/opt/**": 1, "**/opt/**": 1, "opt/**": 1, ".opt/**": 2, "srv/**": 1, ".srv/**": 2} {
		c := contents.Contents{Packages: []contents.Package{{Name: "a", Paths: []string{"opt/a"}}, {Name: "b", Paths: []string{"srv/b"}}}}
		if c.Exclude([]string{pattern}); len(c.Packages) != want {
			t.Errorf("%s leaves %v", pattern, c.Packages)
		}
	}
}

func TestRecognize(t *testing.T) {
	for _, text := range []string{"", "{}", "[]", `{"bomFormat": "CycloneDX"}`, `{"spdxVersion": "SPDX-2.3"}`, `{"spdxVersion": 2}`, "<bom/>"} {
		if format, err := contents.Recognize([]byte(text)); err == nil {
			t.Errorf("%q is taken for %s", text, format)
		}
	}
}
