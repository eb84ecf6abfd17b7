package file_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/provisioner/file"
	"bake/provisioner/provisionertest"
)

// world is two directories, one on the machine and one here, and what the
// options of a test call them.
type world struct{ remote, local string }

func newWorld(t *testing.T) world {
	return world{t.TempDir(), t.TempDir()}
}

func (w world) expand(text string) string {
	return strings.NewReplacer("REMOTE", w.remote, "LOCAL", w.local).Replace(text)
}

func write(t *testing.T, path, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// found describes the files below dir: "path mode content".
func found(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files = append(files, fmt.Sprintf("%s %04o %s", rel, info.Mode().Perm(), b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func provision(t *testing.T, w world, body string) error {
	t.Helper()
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, file.Factory(), w.expand(body))
	return p.Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
}

func TestConformance(t *testing.T) {
	w := newWorld(t)
	write(t, w.local+"/a", "a", 0o644)
	write(t, w.remote+"/a", "a", 0o644)
	provisionertest.Run(t, file.Factory(), w.expand("sources = [\"LOCAL/a\", \"LOCAL/a\"]\ndestination = \"REMOTE/a\""), w.remote)
	provisionertest.Run(t, file.Factory(), w.expand("direction = \"download\"\nsource = \"REMOTE/a\"\ndestination = \"LOCAL/a\""), w.local)
}

func TestUpload(t *testing.T) {
	tests := []struct {
		name, body string
		want       []string
	}{
		{"file", `source = "LOCAL/f"
			destination = "REMOTE/b"`, []string{"b 0640 f"}},
		{"file into directory", `source = "LOCAL/f"
			destination = "REMOTE/"`, []string{"f 0640 f"}},
		{"directory", `source = "LOCAL/x"
			destination = "REMOTE"`, []string{"x/deep/g 0755 g", "x/h 0600 h"}},
		{"what is in a directory", `source = "LOCAL/x/"
			destination = "REMOTE"`, []string{"deep/g 0755 g", "h 0600 h"}},
		{"sources before source", `sources = ["LOCAL/f", "LOCAL/x/h"]
			source = "LOCAL/x/deep/g"
			destination = "REMOTE/same"`, []string{"same 0755 g"}},
		{"content", `content = "text"
			destination = "REMOTE/b"`, []string{"b 0600 text"}},
		{"empty content", `content = ""
			destination = "REMOTE/b"`, []string{"b 0600 "}},
		{"empty content beside a source", `content = ""
			source = "LOCAL/f"
			destination = "REMOTE/b"`, []string{"b 0640 f"}},
		{"build values", `source = "LOCAL/{{build_name}}"
			generated = true
			destination = "REMOTE/{{.ID}}"`, []string{"i-test 0644 named"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			write(t, w.local+"/f", "f", 0o640)
			write(t, w.local+"/x/h", "h", 0o600)
			write(t, w.local+"/x/deep/g", "g", 0o755)
			write(t, w.local+"/test", "named", 0o644)
			if err := provision(t, w, tt.body); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, found(t, w.remote)); diff != "" {
				t.Errorf("on the machine (-want +got):\n%s", diff)
			}
		})
	}
}

func TestContentIntoDirectory(t *testing.T) {
	w := newWorld(t)
	if err := provision(t, w, "content = \"x\"\ndestination = \"REMOTE/\""); err != nil {
		t.Fatal(err)
	}
	if got := found(t, w.remote); len(got) != 1 || !strings.HasPrefix(got[0], "pkr-file-content") {
		t.Errorf("got %q", got)
	}
}

func TestDownload(t *testing.T) {
	tests := []struct {
		name, body string
		want       []string
	}{
		{"file", `source = "REMOTE/f"
			destination = "LOCAL/new/b"`, []string{"new/b 0644 f"}},
		{"file into directory", `source = "REMOTE/f"
			destination = "LOCAL/new/"`, []string{"new/f 0644 f"}},
		{"over a file", `source = "REMOTE/f"
			destination = "LOCAL/old"`, []string{"old 0644 f"}},
		{"directory", `source = "REMOTE/x/"
			destination = "LOCAL/y"`, []string{"old 0600 old", "y/x/deep/g 0755 g", "y/x/h 0600 h"}},
		{"wildcard", `source = "REMOTE/x y/*.t[xy]t"
			destination = "LOCAL/y"`, []string{"old 0600 old", "y/1.txt 0644 1", "y/it's.tyt 0644 2"}},
		{"several", `sources = ["REMOTE/x/", "REMOTE/f"]
			destination = "LOCAL/y/"`, []string{"old 0600 old", "y/f 0644 f", "y/x/deep/g 0755 g", "y/x/h 0600 h"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			write(t, w.remote+"/f", "f", 0o600)
			write(t, w.remote+"/x/h", "h", 0o600)
			write(t, w.remote+"/x/deep/g", "g", 0o755)
			write(t, w.remote+"/x y/1.txt", "1", 0o644)
			write(t, w.remote+"/x y/it's.tyt", "2", 0o644)
			write(t, w.remote+"/x y/no.tzt", "3", 0o644)
			write(t, w.local+"/old", "old", 0o600)
			if strings.Contains(tt.body, "LOCAL/old") {
				os.Chmod(w.local+"/old", 0o644)
			}
			if err := provision(t, w, "direction = \"download\"\n"+tt.body); err != nil {
				t.Fatal(err)
			}
			got := found(t, w.local)
			if strings.Contains(tt.body, "/new/") {
				got = got[:len(got)-1] // old
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("here (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFailures(t *testing.T) {
	w := newWorld(t)
	write(t, w.local+"/f", "f", 0o644)
	write(t, w.local+"/dir/f", "f", 0o644)
	write(t, w.remote+"/dir/f", "f", 0o644)
	tests := []struct {
		body, want string
		is         error
	}{
		{"source = \"LOCAL/f\"\ndestination = \"REMOTE/missing/f\"", "missing", fs.ErrNotExist},
		{"source = \"LOCAL/missing\"\ngenerated = true\ndestination = \"REMOTE/f\"", "LOCAL/missing", fs.ErrNotExist},
		{"direction = \"download\"\nsource = \"REMOTE/missing\"\ndestination = \"LOCAL/x\"", "REMOTE/missing", fs.ErrNotExist},
		{"direction = \"download\"\nsource = \"REMOTE/no*\"\ndestination = \"LOCAL/x\"", "matches", fs.ErrNotExist},
		{"direction = \"download\"\nsource = \"REMOTE/dir\"\ndestination = \"LOCAL/x\"", "write REMOTE/dir/", nil},
		{"direction = \"download\"\nsource = \"REMOTE/dir/f\"\ndestination = \"LOCAL/dir\"", "write LOCAL/dir/", nil},
	}
	for _, tt := range tests {
		err := provision(t, w, tt.body)
		if err == nil || !strings.Contains(err.Error(), w.expand(tt.want)) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s\ngot %v, want %q", tt.body, err, tt.want)
		}
	}
	if got := found(t, w.local); len(got) != 2 {
		t.Errorf("left behind here: %q", got)
	}
}

func TestInvalid(t *testing.T) {
	tests := []struct{ body, at, want string }{
		{"source = \"/etc/passwd\"", "", "destination"},
		{"destination = \"/a\"", "destination", "Set one of source, sources and content"},
		{"destination = \"/a\"\ncontent = \"x\"\nsource = \"/etc/passwd\"", "content", "not both"},
		{"destination = \"/a\"\ncontent = \"x\"\ndirection = \"download\"", "content", "cannot be used with"},
		{"destination = \"/a\"\nsource = \"missing\"", "missing", `no file "missing"`},
		{"destination = \"/a\"\nsources = [\"/etc/passwd\", \"missing\"]", "missing", `no file "missing"`},
		{"destination = \"/a\"\nsource = \"/etc/passwd/\"", "source", ""},
		{"destination = \"/a\"\nsource = \"/etc/passwd\"\ndirection = \"sideways\"", "sideways", "upload"},
		{"destination = \"\"\nsource = \"/etc/passwd\"", "destination", "empty"},
	}
	for _, tt := range tests {
		provisionertest.Invalid(t, file.Factory(), tt.body, tt.at, tt.want)
	}
}

func TestDocs(t *testing.T) {
	if _, err := file.Factory().Docs(); err != nil {
		t.Error(err)
	}
}
