package pipeline

import (
	"os"
	"path/filepath"
	"testing"

	"bake/golden/plan"
)

// What is behind a link is uploaded, so an image depends on it: behind one to a directory, in
// the directory that is named or beside it. Links to nothing and in circles are no errors.
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
