package checksum_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/postprocessor"
	"bake/postprocessor/checksum"
	"bake/postprocessor/postprocessortest"
)

func TestConformance(t *testing.T) {
	postprocessortest.Suite{
		Factory: checksum.Factory(), Body: `checksum_types = ["md5", "sha1", "sha224", "sha256", "sha384", "sha512"]
output = "DIR/sums.{{.ChecksumType}}"`,
		Unwritable: `output = "DIR/one/x"`, Names: "Cannot write the checksums",
	}.Run(t)
}

// Checksums cannot overwrite the artifact, under any name.
func TestOutputIsInput(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "data")
	if err := errors.Join(os.WriteFile(file, []byte("abc"), 0o644), os.Symlink("data", dir+"/link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"data", "./data", "link"} {
		_, _, err := postprocessortest.Process(t, checksum.Factory(), fmt.Sprintf("output = %q", dir+"/"+name), &builder.Artifact{Files: []string{file}})
		if err == nil || !strings.Contains(err.Error(), "The output is an input") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if b, err := os.ReadFile(file); string(b) != "abc" {
		t.Errorf("it holds %q, %v", b, err)
	}
	if _, _, err := postprocessortest.Process(t, checksum.Factory(), fmt.Sprintf("output = %q", dir+"/sum"), &builder.Artifact{Files: []string{dir}}); err == nil || !strings.Contains(err.Error(), dir+" is not a regular file") {
		t.Errorf("a directory: got %v", err)
	}
}

// Checksums are appended to an existing file.
func TestAppend(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	if err := os.WriteFile(dir+"/a", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, _, err := postprocessortest.Process(t, checksum.Factory(), fmt.Sprintf("output = \"%s/sum\"\nchecksum_types = [\"md5\", \"sha1\"]", dir), &builder.Artifact{Files: []string{dir + "/a"}}); err != nil {
			t.Fatal(err)
		}
	}
	const once = "d41d8cd98f00b204e9800998ecf8427e\ta\nda39a3ee5e6b4b0d3255bfef95601890afd80709\ta\n"
	if b, err := os.ReadFile(dir + "/sum"); string(b) != once+once {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestChecksum(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	file := filepath.Join(dir, "data")
	if err := os.WriteFile(file, []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf("checksum_types = [\"md5\", \"sha256\"]\noutput = \"%s/{{.BuildName}}_{{.BuilderType}}.{{.ChecksumType}}\"", dir)
	a, keep, err := postprocessortest.Process(t, checksum.Factory(), body, &builder.Artifact{Files: []string{file}})
	if err != nil || keep != postprocessor.MustKeep {
		t.Fatalf("got %v, %v", keep, err)
	}
	body = fmt.Sprintf("checksum_types = []\noutput = \"%s/default.{{.ChecksumType}}\"", dir)
	if _, _, err := postprocessortest.Process(t, checksum.Factory(), body, &builder.Artifact{Files: []string{file}}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(dir + "/default.md5"); err != nil || string(b) != "900150983cd24fb0d6963f7d28e17f72\tdata\n" {
		t.Errorf("got %q, %v", b, err)
	}
	for name, want := range map[string]string{
		"md5":    "900150983cd24fb0d6963f7d28e17f72\tdata\n",
		"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\tdata\n",
	} {
		if b, err := os.ReadFile(filepath.Join(dir, "web_null."+name)); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
	if len(a.Files) != 3 || len(a.Resources) != 3 || !strings.HasPrefix(a.Text, "Created artifact from files: "+file+", ") {
		t.Errorf("artifact %+v", a)
	}
}

func TestFailures(t *testing.T) {
	if _, _, err := postprocessortest.Process(t, checksum.Factory(), `checksum_types = ["crc32"]`, nil); err == nil || !strings.Contains(err.Error(), `"crc32" is not one of`) {
		t.Errorf("got %v", err)
	}
	body := fmt.Sprintf("output = \"%s/sum\"", filepath.ToSlash(t.TempDir()))
	if _, _, err := postprocessortest.Process(t, checksum.Factory(), body, &builder.Artifact{Files: []string{"/no/such/file"}}); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("got %v", err)
	}
}

// Without files, no checksums are written, and the artifact is unchanged.
func TestNoFiles(t *testing.T) {
	dir := filepath.ToSlash(t.TempDir())
	in := &builder.Artifact{ID: "ami-1"}
	a, _, err := postprocessortest.Process(t, checksum.Factory(), fmt.Sprintf("output = %q", dir+"/new/sum"), in)
	if err != nil || a != in {
		t.Errorf("got %+v, %v", a, err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
