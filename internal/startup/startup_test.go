package startup_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"bake/internal/startup"
)

var commands = map[string]string{"bash": "for bash", "zsh": "for zsh", "fish": "for fish"}

// TestAddAndRemove: existing files and the login shell's file get the line, and afterwards they
// are as before.
func TestAddAndRemove(t *testing.T) {
	const line = "for zsh # note\n"
	for _, test := range []struct {
		name          string
		before, added string // of .zshrc
		after         string
	}{
		{"empty", "", line, ""},
		{"lines", "a\nb\n", "a\nb\n" + line, "a\nb\n"},
		{"no end of line", "a", "a\n" + line, "a\n"},
		{"like it", "x " + line, "x " + line + line, "x " + line},
		{"in the middle, without an end", "for zsh # note", "for zsh # note", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			home := t.TempDir()
			path := filepath.Join(home, ".zshrc")
			if err := os.WriteFile(path, []byte(test.before), 0o600); err != nil {
				t.Fatal(err)
			}
			s := startup.Shells{Home: home, Login: "/bin/none"}
			is := func(want string) {
				t.Helper()
				if got, err := os.ReadFile(path); err != nil || string(got) != want {
					t.Errorf("the file is %q, %v, want %q", got, err, want)
				}
			}
			want := []string{path}
			if test.added == test.before {
				want = nil
			}
			changed, err := s.Add("note", commands)
			if diff := cmp.Diff(want, changed); diff != "" || err != nil {
				t.Errorf("Add: %v; changed files (-want +got):\n%s", err, diff)
			}
			is(test.added)
			if changed, err := s.Add("note", commands); changed != nil || err != nil {
				t.Errorf("again: %v, %v", changed, err)
			}
			changed, err = s.Remove("note", commands)
			if diff := cmp.Diff([]string{path}, changed); diff != "" || err != nil {
				t.Errorf("Remove: %v; changed files (-want +got):\n%s", err, diff)
			}
			is(test.after)
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestLoginShell(t *testing.T) {
	home, config := t.TempDir(), t.TempDir()
	changed, err := startup.Shells{Home: home, Config: config, Login: "/usr/bin/fish"}.Add("note", commands)
	if want := []string{filepath.Join(config, "fish", "config.fish")}; err != nil || !cmp.Equal(want, changed) {
		t.Errorf("changed %v, %v, want %v", changed, err, want)
	}
	if _, err := (startup.Shells{}).Add("note", commands); err == nil {
		t.Error("no HOME is no error")
	}
}

// TestUnreadable: an error does not hide earlier changes.
func TestUnreadable(t *testing.T) {
	home := t.TempDir()
	if err := os.Mkdir(filepath.Join(home, ".zshrc"), 0o700); err != nil {
		t.Fatal(err)
	}
	changed, err := startup.Shells{Home: home, Login: "/bin/bash"}.Add("note", commands)
	if want := []string{filepath.Join(home, ".bashrc")}; err == nil || !cmp.Equal(want, changed) {
		t.Errorf("changed %v, %v", changed, err)
	}
}
