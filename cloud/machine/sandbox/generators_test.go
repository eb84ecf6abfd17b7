package sandbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// writeFiles writes files below dir, including their directories.
func writeFiles(t *testing.T, dir string, files ...string) {
	t.Helper()
	for _, name := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("A=1\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestAskedGenerators checks that a generator runs only if it has work to do, and that the image's
// own version is not replaced.
func TestAskedGenerators(t *testing.T) {
	for _, test := range []struct {
		generator int
		files     string
		want      string
	}{
		{0, "usr/lib/systemd/system/a.service", ""},
		{0, "etc/init.d/a", "work x"},
		{0, "etc/rc.d/init.d/a", "work x"},
		{0, "etc/init.d/a.sh usr/lib/systemd/system/a.service", ""},
		{0, "etc/init.d/a etc/init.d/b etc/systemd/system/a.service", "work x"},
		{1, "etc/environment", ""},
		{1, "etc/environment.d/a.conf", "work x"},
		{1, "home/.config/environment.d/a.conf", "work x"},
	} {
		g, root, dir := conditionalGenerators[test.generator], t.TempDir(), t.TempDir()
		own := filepath.Join(g.kind, g.name)
		writeFiles(t, root, append(strings.Fields(test.files), "usr/lib/systemd/"+own)...)
		if err := g.write(dir, root); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(filepath.Join(dir, own))
		if err != nil {
			t.Fatal(err)
		}
		script := strings.Replace(string(text), "exec /usr/lib/systemd/"+own, "echo work", 1)
		for _, place := range []string{"/etc", "/usr/lib", "/lib", "/run", "/usr/local/lib"} {
			script = strings.ReplaceAll(script, " "+place, " "+root+place)
		}
		cmd := exec.Command("sh", "-c", script, "sh", "x")
		cmd.Env = []string{"HOME=" + filepath.Join(root, "home")}
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%s with %s: %q, %v", g.name, test.files, got, err)
		}

		writeFiles(t, root, "etc/systemd/"+own)
		dir = t.TempDir()
		if err := g.write(dir, root); err != nil {
			t.Fatal(err)
		}
		if exists(filepath.Join(dir, own)) {
			t.Errorf("%s stands before that of the image", g.name)
		}
	}
}

// TestHasSystemUser checks that a line counts as fulfilled only if all of it is.
func TestHasSystemUser(t *testing.T) {
	users := map[string]bool{"root": true, "nobody": true}
	members := map[string][]string{"root": {""}, "adm": {"nobody"}}
	for line, want := range map[string]bool{
		"": true, "# u x": true, `u root 0 "Super User" /root`: true, "u nobody 1": false, "u nobody 1:1": true, "u x": false,
		"g adm - -": true, "g x": false, "m nobody adm": true, "m root adm": false, "m nobody x": false, "r - 100-200": true,
		"u": false, "u! root": false, "u %m": false,
	} {
		if got := hasSystemUser(strings.Fields(line), users, members); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
	dir := t.TempDir()
	if !hasSystemUsers([]string{dir, "/nonexistent"}) {
		t.Error("no users are wanted")
	}
	if err := os.WriteFile(filepath.Join(dir, "a.conf"), []byte("u root 0\nu bake-has-none\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if hasSystemUsers([]string{dir}) {
		t.Error("a user is missing")
	}
}
