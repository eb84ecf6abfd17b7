package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/golden/plan"
)

// Targets of links are uploaded, so an image depends on them, inside and outside the named
// directory. Dangling and circular links are not errors.
func TestFilesBehindLinks(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Skip(err) // some users of Windows cannot
		}
	}
	digest := func() string {
		t.Helper()
		h := &hasher{name: func(path string) string { return path }, cwd: dir, done: map[string]plan.Input{}}
		if err := h.path("app"); err != nil {
			t.Fatal(err)
		}
		return plan.Digest(h.inputs())
	}
	put("releases/app.conf", "1")
	put("releases/deep/app.conf", "1")
	put("beside.conf", "1")
	put("app/app.conf", "1")
	link("../releases", "app/current")
	link("../beside.conf", "app/file")
	link("nothing", "app/broken")
	link(".", "app/self")
	link("../app", "releases/back")
	last := digest()
	if again := digest(); again != last {
		t.Error("the inputs change by themselves")
	}
	for name, change := range map[string]func(){
		"behind a link to a directory": func() { put("releases/app.conf", "2") },
		"in a directory there":         func() { put("releases/deep/app.conf", "2") },
		"new there":                    func() { put("releases/new.conf", "1") },
		"behind a link to a file":      func() { put("beside.conf", "2") },
		"what was behind no link":      func() { put("app/nothing", "1") },
	} {
		change()
		if now := digest(); now == last {
			t.Errorf("%s: nothing changes", name)
		} else {
			last = now
		}
	}
	put("app/.git/HEAD", "1")
	if digest() != last {
		t.Error(".git is an input")
	}
}

// A file that disappears during reading does not affect the others, .git is an input if it is
// named, and links that multiply the paths through directories are an error.
func TestFilesThatAreLeftOut(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	put := func(name string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(in(name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(in(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := &hasher{name: func(path string) string { return path }, cwd: dir, done: map[string]plan.Input{}}
	put(".git/HEAD")
	put("app/.git/HEAD")
	for path, want := range map[string]int{"nothing": 0, "app": 0, ".git": 1} {
		if err := h.path(path); err != nil || len(h.done) < want {
			t.Errorf("%s: %d files, %v", path, len(h.done), err)
		}
	}
	if _, ok := h.done[in(".git/HEAD")]; !ok || len(h.done) != 1 {
		t.Errorf("the files are %v", h.done)
	}
	put("app/a")
	put("app/b")
	put("app/c")
	h.name = func(path string) string {
		if err := os.Remove(in("app/b")); err != nil {
			t.Error(err)
		}
		return path
	}
	if err := h.path("app"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file has vanished: %v", err)
	}
	const deep = 14
	for i := range deep {
		if err := os.MkdirAll(in(fmt.Sprint("d", i)), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			if err := os.Symlink(fmt.Sprint("../d", i+1), in(fmt.Sprint("d", i, "/", name))); err != nil {
				t.Skip(err) // some users of Windows cannot
			}
		}
	}
	if err := os.Mkdir(in(fmt.Sprint("d", deep)), 0o700); err != nil {
		t.Fatal(err)
	}
	h.visits = mostVisits - 1000 // a thousand is quicker
	if err := h.path("d0"); err == nil || !strings.Contains(err.Error(), "to look through") {
		t.Errorf("links without end: %v", err)
	}
	h.visits = mostVisits - 1000
	if _, err := h.glob("d0/**/*.conf"); err == nil || !strings.Contains(err.Error(), "to look through") {
		t.Errorf("a pattern among links without end: %v", err)
	}
}
