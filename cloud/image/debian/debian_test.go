package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"bake/cloud/image/debian/debiantest"
)

// testPackages returns packages with the cases that are easy to get wrong: old and merged paths,
// links, shared directories, conffiles, triggers and several architectures.
func testPackages() []debiantest.Package {
	file := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}
	}
	dir := func(name string, mode int64) tar.Header {
		return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode}
	}
	return []debiantest.Package{
		{
			Name: "base", Version: "1", Compression: "xz",
			Fields: "Essential: yes\nPriority: required\n",
			Files: []tar.Header{
				dir("./bin/", 0o755), file("./bin/tool", 0o4755), dir("./etc/", 0o755), file("./etc/base.conf", 0o640), dir("./var/", 0o755), dir("./var/mail/", 0o2775),
				{Typeflag: tar.TypeLink, Name: "./usr/bin/tool2", Linkname: "./bin/tool"},
				{Typeflag: tar.TypeSymlink, Name: "./usr/bin/tool3", Linkname: "tool"},
			},
			Content: map[string]string{"./bin/tool": "#!/bin/sh\n", "./etc/base.conf": "x=1\n"},
			Control: map[string]string{"conffiles": "/etc/base.conf\nremove-on-upgrade /etc/old.conf\n", "preinst": "#!/bin/sh\n"},
		},
		{
			Name: "lib", Version: "2:1.0-1", Compression: "gz",
			Fields:  "Multi-Arch: same\nDepends: base\n",
			Files:   []tar.Header{dir("./lib/", 0o700), dir("./lib/x86_64-linux-gnu/", 0o755), file("./lib/x86_64-linux-gnu/lib.so.1", 0o644)},
			Content: map[string]string{"./lib/x86_64-linux-gnu/lib.so.1": "ELF"},
			Control: map[string]string{"md5sums": "d41d8cd98f00b204e9800998ecf8427e  lib/x86_64-linux-gnu/lib.so.1\n", "triggers": "# libraries\ninterest-noawait /lib/x86_64-linux-gnu\ninterest rebuild\nactivate-noawait ldconfig\n"},
		},
		{Name: "app", Version: "3", Fields: "Depends: lib (>= 2:1.0)\n"},
		{Name: "other", Version: "1"},
	}
}

type setup struct {
	*debiantest.Mirror
	options Options
	reports []Progress
}

func newSetup(t *testing.T) *setup {
	t.Helper()
	s := &setup{Mirror: debiantest.NewMirror(t)}
	s.options = Options{
		Suite: "bookworm", Arch: "amd64", Include: []string{"app"}, Mirror: s.URL, Keyring: s.Keyring,
		Cache: t.TempDir(), User: "admin", Host: fstest.MapFS{}, Now: func() time.Time { return today },
		Progress: func(p Progress) { s.reports = append(s.reports, p) },
	}
	s.Publish(t, debiantest.Release{Suite: "bookworm", Date: today.AddDate(0, 0, -5), ByHash: true}, testPackages()...)
	return s
}

func TestPrepare(t *testing.T) {
	s := newSetup(t)
	s.Publish(t, debiantest.Release{Suite: "bookworm-updates", Date: today}, debiantest.Package{Name: "app", Version: "3+update", Fields: "Depends: lib\n"})
	system, err := Prepare(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range system.Packages {
		got = append(got, p.Name+"="+p.Version)
	}
	if d := cmp.Diff([]string{"base=1", "lib=2:1.0-1", "app=3+update"}, got); d != "" {
		t.Errorf("packages (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"deb " + s.URL + " bookworm main", "deb " + s.URL + " bookworm-updates main"}, system.Sources); d != "" {
		t.Errorf("sources (-want +got):\n%s", d)
	}
	if system.Version != "12.0" {
		t.Errorf("version %q", system.Version)
	}
	if !slices.ContainsFunc(s.reports, func(p Progress) bool { return strings.Contains(p.Note, "no suite bookworm-security") }) {
		t.Error("nobody was told that there are no security fixes")
	}
	last := s.reports[len(s.reports)-1]
	if last.Phase != "download packages" || last.Done != last.Total || last.Total == 0 {
		t.Errorf("the last report is %+v", last)
	}
	if s.Requests("other_1.deb") != 0 {
		t.Error("a package was downloaded that nobody wants")
	}

	before := s.Requests(".deb")
	if _, err := Prepare(t.Context(), s.options); err != nil {
		t.Fatal(err)
	}
	if after := s.Requests(".deb"); after != before {
		t.Errorf("%d packages were downloaded again", after-before)
	}
}

// TestPrepareFrozen checks that the permission of expired releases, if the host grants it, is
// passed on to machines only for suites that have expired.
func TestPrepareFrozen(t *testing.T) {
	for _, host := range []fstest.MapFS{
		{"etc/apt/sources.list": {Data: []byte("deb [check-valid-until=no] URL bookworm main\n")}},
		{
			"etc/apt/sources.list":      {Data: []byte("deb URL bookworm main\n")},
			"etc/apt/apt.conf.d/frozen": {Data: []byte("Acquire::Check-Valid-Until \"false\";\n")},
		},
	} {
		s := newSetup(t)
		s.Publish(t, debiantest.Release{Suite: "bookworm-updates", Date: today.AddDate(0, 0, -9), ValidUntil: today.AddDate(0, 0, -2)})
		s.options.Mirror, s.options.Host = "", host
		list := host["etc/apt/sources.list"]
		list.Data = bytes.Replace(list.Data, []byte("URL"), []byte(s.URL), 1)
		system, err := Prepare(t.Context(), s.options)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"deb " + s.URL + " bookworm main", "deb [check-valid-until=no] " + s.URL + " bookworm-updates main"}
		if d := cmp.Diff(want, system.Sources); d != "" {
			t.Errorf("sources (-want +got):\n%s", d)
		}
	}
}

// TestPrepareUbuntu checks that packages come from two components, security fixes from the same
// tree, and that the sources have the format of the release.
func TestPrepareUbuntu(t *testing.T) {
	for suite, want := range map[string]map[string]string{
		"jammy": {"etc/apt/sources.list": "deb URL jammy main universe multiverse\ndeb URL jammy-security main universe\n"},
		"noble": {"etc/apt/sources.list.d/ubuntu.sources": "Types: deb\nURIs: URL\nSuites: noble\nComponents: main universe multiverse\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n" +
			"Types: deb\nURIs: URL\nSuites: noble-security\nComponents: main universe\nSigned-By: /usr/share/keyrings/ubuntu-archive-keyring.gpg\n\n"},
	} {
		s := newSetup(t)
		s.options.Suite, s.options.User = suite, "ubuntu"
		s.options.Optional = []string{"extra", "unheard-of", "broken"}
		packages := append(testPackages(), debiantest.Package{Name: "extra", Version: "1", Component: "universe"},
			debiantest.Package{Name: "broken", Version: "1", Fields: "Depends: missing\n"})
		s.Publish(t, debiantest.Release{Suite: suite, Date: today, Components: []string{"main", "universe", "multiverse"}}, packages...)
		s.Publish(t, debiantest.Release{Suite: suite + "-security", Date: today, Components: []string{"main", "universe"}})
		system, err := Prepare(t.Context(), s.options)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range system.Packages {
			got = append(got, p.Name)
		}
		if d := cmp.Diff([]string{"base", "lib", "app", "extra"}, got); d != "" {
			t.Errorf("packages (-want +got):\n%s", d)
		}
		files := map[string]string{}
		for _, f := range system.aptSources() {
			files[f.name] = strings.ReplaceAll(f.content, s.URL, "URL")
		}
		for name, text := range want {
			if d := cmp.Diff(text, files[name]); d != "" {
				t.Errorf("%s: %s", name, d)
			}
		}
		var root bytes.Buffer
		if err := system.WriteTar(t.Context(), &root); err != nil || !bytes.Contains(root.Bytes(), []byte("snap: snaps do not work")) {
			t.Errorf("the root: %v, without a word on snaps", err)
		}
		if got := system.Command()[5]; got != "ubuntu" {
			t.Errorf("the user is %s", got)
		}
	}
}

// TestPrepareTampered changes files of a mirror after it was signed.
func TestPrepareTampered(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	for name, test := range map[string]struct {
		change func(*testing.T, *setup)
		err    string
	}{
		"release": {func(t *testing.T, s *setup) {
			s.Edit(t, "bookworm/InRelease", func(b []byte) []byte { return bytes.Replace(b, []byte("Origin: Test"), []byte("Origin: Evil"), 1) })
		}, "signature does not verify"},
		"index":   {func(t *testing.T, s *setup) { s.Edit(t, "by-hash", flip) }, "does not match the signed index"},
		"package": {func(t *testing.T, s *setup) { s.Edit(t, "app_3.deb", flip) }, "app_3.deb: its size or SHA256 does not match"},
		"longer package": {func(t *testing.T, s *setup) { s.Edit(t, "app_3.deb", func(b []byte) []byte { return append(b, 0) }) },
			"app_3.deb: its size or SHA256 does not match"},
		"release of a stranger": {func(t *testing.T, s *setup) {
			s.Publish(t, debiantest.Release{Suite: "bookworm", Date: today, Signer: debiantest.NewKey(t)}, testPackages()...)
		}, "does not verify"},
		"updates of a stranger": {func(t *testing.T, s *setup) {
			s.Publish(t, debiantest.Release{Suite: "bookworm-updates", Date: today, Signer: debiantest.NewKey(t)})
		}, "bookworm-updates/InRelease: its signature does not verify"},
		"another suite's release": {func(t *testing.T, s *setup) {
			s.Publish(t, debiantest.Release{Suite: "bullseye", Date: today}, testPackages()...)
			var old []byte
			s.Edit(t, "bullseye/InRelease", func(b []byte) []byte { old = b; return b })
			s.Edit(t, "bookworm/InRelease", func([]byte) []byte { return old })
		}, "it is for bullseye, not bookworm"},
		"expired": {func(t *testing.T, s *setup) {
			s.Publish(t, debiantest.Release{Suite: "bookworm", Date: today.AddDate(0, 0, -9), ValidUntil: today.AddDate(0, 0, -2)}, testPackages()...)
		}, "expired at 2025-03-18"},
		"gone": {func(_ *testing.T, s *setup) {
			s.Fail(func(path string, _ int) int {
				if strings.HasSuffix(path, "app_3.deb") {
					return http.StatusNotFound
				}
				return 0
			})
		}, "app_3.deb: not found on the mirror"},
		"no such suite": {func(_ *testing.T, s *setup) { s.options.Suite = "trixie" }, "dists/trixie/InRelease: not found"},
		"forbidden":     {func(_ *testing.T, s *setup) { s.Fail(func(string, int) int { return http.StatusForbidden }) }, "the mirror answered 403"},
		"other arch":    {func(_ *testing.T, s *setup) { s.options.Arch = "arm64" }, "does not serve main for arm64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSetup(t)
			test.change(t, s)
			_, err := Prepare(t.Context(), s.options)
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Fatalf("error %v, want %q", err, test.err)
			}
			// Whatever happens, the files in the cache are correct.
			files, err := os.ReadDir(s.options.Cache)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if hash, err := hashFile(filepath.Join(s.options.Cache, f.Name())); err != nil || hash != f.Name() {
					t.Errorf("cache file %s has hash %s, %v", f.Name(), hash, err)
				}
			}
		})
	}
}

// TestPrepareRetries makes the first request for every file fail.
func TestPrepareRetries(t *testing.T) {
	s := newSetup(t)
	s.Fail(func(path string, n int) int {
		if n == 1 && !strings.Contains(path, "bookworm-") {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	if _, err := Prepare(t.Context(), s.options); err != nil {
		t.Fatal(err)
	}
}

func TestPrepareCanceled(t *testing.T) {
	s := newSetup(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user pressed Ctrl-C")
	s.Fail(func(path string, _ int) int {
		if strings.HasSuffix(path, ".deb") {
			cancel(why)
			return http.StatusServiceUnavailable
		}
		return 0
	})
	if _, err := Prepare(ctx, s.options); !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// A damaged file in the cache is downloaded again.
func TestPrepareRepairsCache(t *testing.T) {
	s := newSetup(t)
	system, err := Prepare(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	path := system.fetcher.path(system.Packages[0].item())
	if err := os.WriteFile(path, []byte("cut"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Prepare(t.Context(), s.options); err != nil {
		t.Fatal(err)
	}
	if hash, err := hashFile(path); err != nil || hash != system.Packages[0].SHA256 {
		t.Errorf("hash %s, %v", hash, err)
	}
}

func TestWriteTar(t *testing.T) {
	s := newSetup(t)
	system, err := Prepare(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	var b, again bytes.Buffer
	if err := errors.Join(system.WriteTar(t.Context(), &b), system.WriteTar(t.Context(), &again)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("two calls give different archives")
	}
	headers, contents := map[string]*tar.Header{}, map[string]string{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(h.Name, "/")
		if headers[name] != nil {
			t.Errorf("%s is there twice", name)
		}
		if parent := filepath.Dir(name); parent != "." && headers[parent] == nil {
			t.Errorf("%s comes before its directory", name)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		headers[name], contents[name] = h, string(content)
	}
	for name, want := range map[string]string{
		"bin":                               "usr/bin",
		"usr/bin/tool":                      "-4755",
		"usr/bin/tool2":                     "usr/bin/tool",
		"usr/bin/tool3":                     "tool",
		"usr/lib":                           "-755", // the mode in the first package, not lib's 700
		"var/mail":                          "-2775",
		"etc/base.conf":                     "-640",
		"etc/sudoers.d/90-cloud-init-users": "-440",
		"var/lib/dpkg/info/base.preinst":    "-755",
		"usr/lib/x86_64-linux-gnu/lib.so.1": "-644",
	} {
		h := headers[name]
		if h == nil {
			t.Errorf("%s is missing", name)
			continue
		}
		got := h.Linkname
		if got == "" {
			got = "-" + strings.TrimLeft(formatOctal(h.Mode), "0")
		}
		if got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"etc/apt/sources.list":                "deb " + s.URL + " bookworm main\n",
		"etc/machine-id":                      "",
		"etc/sudoers.d/90-cloud-init-users":   "# User rules for admin\nadmin ALL=(ALL) NOPASSWD:ALL\n",
		"var/lib/dpkg/arch":                   "amd64\n",
		"var/lib/dpkg/info/base.list":         "/.\n/bin\n/bin/tool\n/etc\n/etc/base.conf\n/var\n/var/mail\n/usr/bin/tool2\n/usr/bin/tool3\n",
		"var/lib/dpkg/info/base.md5sums":      "3e2b31c72181b87149ff995e7202c0e3  bin/tool\n",
		"var/lib/dpkg/info/lib:amd64.list":    "/.\n/lib\n/lib/x86_64-linux-gnu\n/lib/x86_64-linux-gnu/lib.so.1\n",
		"var/lib/dpkg/info/lib:amd64.md5sums": "d41d8cd98f00b204e9800998ecf8427e  lib/x86_64-linux-gnu/lib.so.1\n",
		"var/lib/dpkg/triggers/File":          "/lib/x86_64-linux-gnu lib:amd64/noawait\n",
		"var/lib/dpkg/triggers/rebuild":       "lib:amd64\n",
		"var/lib/dpkg/status": `Package: base
Status: install ok unpacked
Version: 1
Architecture: amd64
Essential: yes
Priority: required
Description: a package
 of a test
Conffiles:
 /etc/base.conf f968f33f844c98de1d3b4fe70f2e1a0f

Package: lib
Status: install ok unpacked
Version: 2:1.0-1
Architecture: amd64
Multi-Arch: same
Depends: base
Description: a package
 of a test

Package: app
Status: install ok unpacked
Version: 3
Architecture: amd64
Depends: lib (>= 2:1.0)
Description: a package
 of a test

`,
	} {
		if d := cmp.Diff(want, contents[name]); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	for name := range headers {
		if strings.HasPrefix(name, "lib/") || strings.HasPrefix(name, "bin/") {
			t.Errorf("%s is not merged into /usr", name)
		}
	}
	command := system.Command()
	if d := cmp.Diff([]string{"setup", "amd64", "admin", "base lib app", "Debian", "adm audio cdrom dialout dip floppy netdev plugdev sudo video"}, command[3:]); d != "" {
		t.Errorf("command (-want +got):\n%s", d)
	}
}

// Two packages with the same file must not silently overwrite each other.
func TestWriteTarCollision(t *testing.T) {
	s := newSetup(t)
	clash := debiantest.Package{Name: "clash", Version: "1", Fields: "Depends: base\n",
		Files:   []tar.Header{{Typeflag: tar.TypeReg, Name: "./usr/bin/tool", Mode: 0o755}},
		Content: map[string]string{"./usr/bin/tool": "other"}}
	s.Publish(t, debiantest.Release{Suite: "bookworm", Date: today}, append(testPackages(), clash)...)
	s.options.Include = []string{"clash"}
	system, err := Prepare(t.Context(), s.options)
	if err != nil {
		t.Fatal(err)
	}
	err = system.WriteTar(t.Context(), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "package clash: /usr/bin/tool is in package base too") {
		t.Errorf("error %v", err)
	}
}

func formatOctal(mode int64) string {
	var digits []byte
	for ; mode > 0; mode /= 8 {
		digits = append([]byte{byte('0' + mode%8)}, digits...)
	}
	return string(digits)
}
