package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":                   "module bake\n\ngo 1.26\n",
		"cloud/cloud_linux.go":     "package cloud\n",
		"a/a.go":                   "package a\n\nimport \"os\"\n\nvar Name = os.Args[0]\n\nfunc F() int { return g() }\n",
		"a/a_unix.go":              "//go:build unix\n\npackage a\n\nfunc g() int { return 1 }\n",
		"a/a_windows.go":           "package a\n\nfunc g() int { return \"no number\" }\n",
		"a/a_test.go":              "package a\n\nimport \"testing\"\n\nfunc TestF(*testing.T) { F() }\n",
		"a/more_freebsd_test.go":   "package a_test\n\nimport \"bake/a\"\n\nvar _ = a.Missing\n",
		"a/cloud_test.go":          "package a_test\n\nimport _ \"bake/cloud\"\n",
		"b/b.go":                   "package b\n",
		"b/b_openbsd.go":           "package b\n\nimport _ \"bake/cloud\"\n",
		"cloud/portable.go":        "package cloud\n",
		"internal/local/linux.go":  "//go:build linux\n\npackage local\n\nimport _ \"bake/cloud\"\n",
		"internal/local/others.go": "//go:build !linux\n\npackage local\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	c := newChecker(dir)
	for goos, want := range map[string]string{
		"darwin":  "",
		"windows": "a_windows.go:3:",
		"freebsd": "", // the test that is wrong belongs to those that need the cloud
		"openbsd": "bake/b is made of the embedded cloud",
	} {
		n, err := c.check(goos, "amd64")
		switch {
		case want == "" && (err != nil || n != 4): // a, its test, b and local
			t.Errorf("%s: %d packages, %v", goos, n, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: the error is %v, want one with %q", goos, err, want)
		}
	}
	if err := os.Remove(filepath.Join(dir, "a/cloud_test.go")); err != nil {
		t.Fatal(err)
	}
	if _, err := newChecker(dir).check("freebsd", "arm64"); err == nil || !strings.Contains(err.Error(), "more_freebsd_test.go:5:") {
		t.Errorf("a test that is wrong: %v", err)
	}
}
