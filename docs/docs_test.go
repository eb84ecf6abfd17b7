package docs

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write packed.gz")

// maxPacked is the maximum size of the documentation in the program.
const maxPacked = 100 << 10

// TestPacked: the documents in the program are up to date.
func TestPacked(t *testing.T) {
	var want []Page
	for _, pattern := range []string{"configuration.md", "functions.md", "guide/*.md", "reference/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil || len(names) == 0 {
			t.Fatalf("there is no %s: %v", pattern, err)
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			want = append(want, Page{filepath.ToSlash(name), string(text)})
		}
	}
	want = append(want, Page{commentsPage, fieldComments(t)})
	var b bytes.Buffer
	if err := pack(&b, want); err != nil {
		t.Fatal(err)
	}
	if b.Len() > maxPacked {
		t.Errorf("the documents take %d bytes in the program; the limit is %d", b.Len(), maxPacked)
	}
	if *update {
		packed = b.String()
		if err := os.WriteFile("packed.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := unpack(packed)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the program has other documents than docs has; write them with: make docs\n%s", diff)
	}
}

// fieldComments returns the comments of the fields of all structs that hold options.
func fieldComments(t *testing.T) string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == "dist" || d.Name() == ".git"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		pkg := "bake/" + filepath.ToSlash(strings.TrimPrefix(filepath.Dir(path), ".."+string(filepath.Separator)))
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				if field.Tag == nil || !strings.Contains(field.Tag.Value, `hcl:"`) {
					continue
				}
				for _, name := range field.Names {
					if text := strings.TrimSpace(field.Doc.Text()); text != "" {
						all[pkg+"."+spec.Name.Name+"."+name.Name] = text
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || len(all) < 500 {
		t.Fatalf("%d options: %v", len(all), err)
	}
	text, err := json.MarshalIndent(all, "", "")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var quoted = regexp.MustCompile("(?m)^\\*\\*`(.+?)`\\*\\*")

// TestMessages: each message that the chapter on troubleshooting explains is in the source
// of the program.
func TestMessages(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("guide", "11-troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
		missing[m[1]] = true
	}
	if len(missing) < 10 {
		t.Fatalf("only %d messages are read", len(missing))
	}
	err = filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		for message := range missing {
			if strings.Contains(string(source), message) {
				delete(missing, message)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for message := range missing {
		t.Errorf("no source has the message %q", message)
	}
}

var (
	linked  = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	noSlug  = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// TestLinks: every relative link of a document leads to a file, and to a heading in it.
func TestLinks(t *testing.T) {
	n := 0
	check := func(path, target string) {
		file, anchor, _ := strings.Cut(target, "#")
		to := path
		if file != "" {
			to = filepath.Join(filepath.Dir(path), file)
		}
		if _, err := os.Stat(to); err != nil {
			t.Errorf("%s: %s leads nowhere", path, target)
			return
		}
		if anchor == "" || !strings.HasSuffix(to, ".md") {
			return
		}
		into, err := os.ReadFile(to)
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range heading.FindAllStringSubmatch(string(into), -1) {
			if strings.ReplaceAll(noSlug.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-") == anchor {
				return
			}
		}
		t.Errorf("%s: %s has no heading %s", path, to, anchor)
	}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() && (d.Name() == ".git" || d.Name() == "testdata" || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, ".md") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range linked.FindAllStringSubmatch(string(text), -1) {
			if target := m[1]; !strings.Contains(target, "://") && !strings.HasPrefix(target, "mailto:") {
				n++
				check(path, target)
			}
		}
		return err
	})
	if err != nil || n < 100 {
		t.Errorf("%d links: %v", n, err)
	}
}
