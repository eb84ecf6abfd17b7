package remote_test

import (
	"os/exec"
	"testing"

	"bake/provisioner/internal/remote"
)

// A path is one word, in which a shell expands only what it should.
func TestWord(t *testing.T) {
	for path, want := range map[string]string{
		"":                     "",
		"/a/b.c-d_e":           "/a/b.c-d_e",
		"/a b/it's":            "/a b/it's",
		"~/x":                  "/home/me/x",
		"a~/x":                 "a~/x",
		"$HOME/x":              "/home/me/x",
		"${HOME}x":             "/home/mex",
		"$HOME_/x":             "/x",
		`\$HOME/x`:             "$HOME/x",
		"$1/$/$$/${a-b}/$(id)": "$1/$/$$/${a-b}/$(id)",
		"`id`;id&|<>(){}#!\"":  "`id`;id&|<>(){}#!\"",
		"$SPACES/*":            "two  words*/*",
		"a\nb\tc\\d":           "a\nb\tc\\d",
		"grün/lat\xe9":         "grün/lat\xe9",
	} {
		cmd := exec.Command("sh", "-c", "printf %s "+remote.Word(path, false))
		cmd.Env = []string{"HOME=/home/me", "SPACES=two  words*"}
		if got, err := cmd.Output(); err != nil || string(got) != want {
			t.Errorf("%q: got %q, %v, want %q", path, got, err, want)
		}
	}
}
