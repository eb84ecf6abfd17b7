package compress_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"bake/builder"
	"bake/postprocessor"
	"bake/postprocessor/compress"
	"bake/postprocessor/postprocessortest"
	"bake/step"
)

func TestConformance(t *testing.T) {
	for _, end := range []string{"zip", "tar", "tar.gz", "tar.bgzf", "tar.bz2", "tar.xz", "tar.lz4"} {
		t.Run(end, func(t *testing.T) {
			postprocessortest.Suite{
				Factory: compress.Factory(), Body: fmt.Sprintf("output = \"DIR/x.%s\"", end),
				Unwritable: fmt.Sprintf("output = \"DIR/one/x.%s\"", end), Names: "output",
			}.Run(t)
		})
	}
}

// Files with the same name in the archive are reported.
func TestNamesakes(t *testing.T) {
	dir := t.TempDir()
	var files []string
	for _, name := range []string{"a/x", "b/x", "b/y"} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
		files = append(files, path)
	}
	var warnings []string
	_, _, err := postprocessortest.ProcessIn(t, compress.Factory(), fmt.Sprintf("output = %q", filepath.Join(dir, "x.tar")), step.Scope{Emit: func(e step.Event) {
		if e.Kind == step.Warning {
			warnings = append(warnings, e.Text)
		}
	}}, &builder.Artifact{Files: files})
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], files[0]+" and "+files[1]) {
		t.Errorf("got %q, %v", warnings, err)
	}
}

// inputs are files to compress, whose names are the same as their contents, but
// for what makes them long.
func inputs(t *testing.T, names ...string) []string {
	t.Helper()
	dir := t.TempDir()
	var out []string
	for _, name := range names {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, bytes.Repeat([]byte(name+"\n"), 100_000), 0o640); err != nil {
			t.Fatal(err)
		}
		out = append(out, file)
	}
	return out
}

func firstLine(t *testing.T, r io.Reader) string {
	t.Helper()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if len(data) != 100_000*(len(line)+1) {
		t.Errorf("%s has %d bytes", line, len(data))
	}
	return line
}

// inTar are the entries of an archive.
func inTar(t *testing.T, r io.Reader) (names []string) {
	t.Helper()
	mode := int64(0o640)
	if runtime.GOOS == "windows" { // which keeps less of it
		mode = 0o644
	}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := firstLine(t, archive); got != h.Name || h.Mode != mode {
			t.Errorf("%s holds %s, mode %o", h.Name, got, h.Mode)
		}
		names = append(names, h.Name)
	}
}

func decompress(t *testing.T, algorithm string, r io.Reader) io.Reader {
	t.Helper()
	var out io.Reader
	var err error
	switch algorithm {
	case "gz":
		out, err = gzip.NewReader(r)
	case "bz2":
		out = bzip2.NewReader(r)
	case "xz":
		out, err = xz.NewReader(r)
	case "lz4":
		out = lz4.NewReader(r)
	default:
		out = r
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestForms reads the output with other implementations.
func TestForms(t *testing.T) {
	for i, test := range []struct{ output, options, archive, algorithm string }{
		{"all", "", "tar", "gz"},
		{"all.img", "compression_level = 9", "tar", "gz"},
		{"all.tgz", "", "tar", "gz"},
		{"all.tar", "", "tar", ""},
		{"all.zip", "compression_level = 1", "zip", ""},
		{"all.tar.gz", "compression_level = 12", "tar", "gz"},
		{"all.tar.bz2", "", "tar", "bz2"},
		{"all.tar.bzip2", "compression_level = 1", "tar", "bz2"},
		{"all.tar.xz", "", "tar", "xz"},
		{"all.tar.lz4", "compression_level = 3", "tar", "lz4"},
		{"all.tar.bgzf", "", "tar", "gz"}, // gzip reads it too
		{"one.gz", "compression_level = 0", "", "gz"},
		{"one.v1.bgzf", "", "", "gz"},
		{"one.lz4", "", "", "lz4"},
		{"one", `format = "xz"`, "", "xz"},
		{"all", `format = "tar.bz2"`, "tar", "bz2"},
		{"{{.BuildName}}-{{.BuilderType}}.zip", "", "zip", ""},
		{"all.box", `archive = "zip"`, "zip", ""},
		{"all.xz", `archive = "tar"`, "tar", "xz"},
		{"all.box", `algorithm = "bz2"`, "tar", "bz2"},
		{"all.tar", `algorithm = "gzip"`, "tar", "gz"},
		{"one.gz", `algorithm = "lz4"`, "", "lz4"},
		{"one.zip", `algorithm = "xz"`, "", "xz"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			files := inputs(t, "one", "two")
			if test.archive == "" {
				files = files[:1]
			}
			dir := filepath.Join(t.TempDir(), "new")
			body := fmt.Sprintf("output = %q\n%s", filepath.Join(dir, test.output), test.options)
			a, keep, err := postprocessortest.Process(t, compress.Factory(), body, &builder.Artifact{Files: files})
			if err != nil || keep != postprocessor.Discard {
				t.Fatalf("%v, %v", keep, err)
			}
			output := filepath.Join(dir, strings.NewReplacer("{{.BuildName}}", "web", "{{.BuilderType}}", "null").Replace(test.output))
			if len(a.Files) != 1 || a.Files[0] != output || a.Text != "compressed artifacts in: "+output || len(a.Resources) != 1 || a.Resources[0].Key != output {
				t.Errorf("%+v", a)
			}
			data, err := os.ReadFile(output)
			if err != nil {
				t.Fatal(err)
			}
			if test.archive == "zip" {
				z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
				if err != nil || len(z.File) != 2 {
					t.Fatal(err)
				}
				for _, f := range z.File {
					r, err := f.Open()
					if err != nil || firstLine(t, r) != f.Name {
						t.Errorf("%s: %v", f.Name, err)
					}
				}
				return
			}
			if strings.HasSuffix(test.output, "bgzf") {
				checkMembers(t, data)
			}
			r := decompress(t, test.algorithm, bytes.NewReader(data))
			if test.archive == "" {
				if got := firstLine(t, r); got != "one" {
					t.Errorf("it holds %s", got)
				}
			} else if names := inTar(t, r); !slices.Equal(names, []string{"one", "two"}) {
				t.Errorf("it holds %q", names)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
				t.Errorf("beside it: %v, %v", left, err)
			}
		})
	}
}

// checkMembers steps through a BGZF file by the lengths of its members.
func checkMembers(t *testing.T, data []byte) {
	t.Helper()
	members, last := 0, 0
	for len(data) > 0 {
		if string(data[12:16]) != "BC\x02\x00" {
			t.Fatalf("member %d begins with %x", members, data[:18])
		}
		last = int(data[16]) | int(data[17])<<8 + 1
		data = data[last:]
		members++
	}
	if members < 3 || last != 28 {
		t.Errorf("%d members, the last with %d bytes", members, last)
	}
}

func TestFailures(t *testing.T) {
	files := inputs(t, "one", "two")
	dir := t.TempDir()
	for _, test := range []struct {
		name, body string
		files      []string
		want       string
	}{
		{"two files in one", `output = "x.gz"`, files, "x.tar.gz"},
		{"the output is an input", fmt.Sprintf("output = %q", files[0]), files, "The output is an input"},
		{"no such file", fmt.Sprintf("output = %q", dir+"/x.tar"), []string{"/no/such/file"}, "/no/such/file"},
		{"a directory", fmt.Sprintf("output = %q", dir+"/x.tar"), []string{dir}, "not a regular file"},
		{"a kind of archive", `archive = "rar"`, files, "tar or zip"},
		{"an algorithm", `algorithm = "zoo"`, files, `"zoo" is not one of`},
		{"an algorithm of zip", "archive = \"zip\"\nalgorithm = \"xz\"", files, "its own way"},
		{"a bad level", `compression_level = -2`, files, "Invalid level"},
		{"a bad template", `output = "{{.BuildName"`, files, "output"},
	} {
		_, _, err := postprocessortest.Process(t, compress.Factory(), test.body, &builder.Artifact{Files: test.files})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// The same files make the same output, regardless of when they were written, their order, and the
// user.
func TestReproducible(t *testing.T) {
	for _, end := range []string{"tar", "zip", "tar.gz", "tar.bz2", "tar.xz", "tar.lz4", "tar.bgzf"} {
		var made [][]byte
		for i := range 2 {
			files := inputs(t, "one", "two")
			when := time.Unix(1_000_000_000*int64(i+1), 0)
			for _, f := range files {
				if err := os.Chtimes(f, when, when); err != nil {
					t.Fatal(err)
				}
			}
			if i == 1 {
				slices.Reverse(files)
			}
			output := filepath.Join(t.TempDir(), "x."+end)
			if _, _, err := postprocessortest.Process(t, compress.Factory(), fmt.Sprintf("output = %q", output), &builder.Artifact{Files: files}); err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(output)
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, data)
			if end == "tar" {
				h, err := tar.NewReader(bytes.NewReader(data)).Next()
				if err != nil || h.Name != "one" || h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" {
					t.Errorf("the first entry is %+v, %v", h, err)
				}
			}
		}
		if !bytes.Equal(made[0], made[1]) {
			t.Errorf("%s: two archives of the same files differ", end)
		}
	}
}

// An artifact without files, such as an AMI, does not fail a finished build, and is
// not deleted for an archive that it is not in.
func TestNoFiles(t *testing.T) {
	for _, name := range []string{"x.tar.gz", "x.zip", "x.tar", "x.gz"} {
		output := filepath.Join(t.TempDir(), name)
		a, keep, err := postprocessortest.Process(t, compress.Factory(), fmt.Sprintf("output = %q", output), &builder.Artifact{ID: "ami-1"})
		if err != nil || keep != postprocessor.Kept || len(a.Files) != 1 {
			t.Fatalf("%s: %+v, %v, %v", name, a, keep, err)
		}
		data, err := os.ReadFile(output)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "x.zip":
			if z, err := zip.NewReader(bytes.NewReader(data), int64(len(data))); err != nil || len(z.File) != 0 {
				t.Errorf("%s: %v", name, err)
			}
		case "x.gz":
			if got, err := io.ReadAll(decompress(t, "gz", bytes.NewReader(data))); err != nil || len(got) != 0 {
				t.Errorf("%s: %q, %v", name, got, err)
			}
		default:
			if names := inTar(t, decompress(t, strings.TrimPrefix(name, "x.tar."), bytes.NewReader(data))); len(names) != 0 {
				t.Errorf("%s holds %q", name, names)
			}
		}
	}
}
