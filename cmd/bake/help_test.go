package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// TestHelp: every command says what it does, how it ends, what it reads, and
// shows how it is used.
func TestHelp(t *testing.T) {
	p := &program{now: time.Now}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		writeHelp(&out, cmd)
		parts := []string{"\nUsage: " + cmd.CommandPath(), "\nExit codes:\n"}
		if cmd.HasAvailableSubCommands() {
			parts = append(parts, "\nCommands:\n")
		} else {
			parts = append(parts, "\nExamples:\n")
		}
		for _, part := range parts {
			if !strings.Contains(out.String(), part) {
				t.Errorf("the help of %s lacks %q", cmd.CommandPath(), strings.TrimSpace(part))
			}
		}
		if cmd.HasParent() && (cmd.Long == "" || cmd.Long == cmd.Short) {
			t.Errorf("%s has no description that is longer than a line", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Long) {
			if len(line) > 92 {
				t.Errorf("the help of %s has a line of %d characters: %s", cmd.CommandPath(), len(line)-1, line)
			}
		}
		for line := range strings.Lines(out.String()) {
			if strings.Contains(line, "`") {
				t.Errorf("the help of %s has a backquote: %s", cmd.CommandPath(), line)
			}
		}
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				visit(c)
			}
		}
	}
	visit(p.root(nil))
}

// TestHelpNamesVariables: each variable that the program looks for under a name of its own is in
// the help of bake.
func TestHelpNamesVariables(t *testing.T) {
	p := &program{now: time.Now}
	var help bytes.Buffer
	writeHelp(&help, p.root(nil))
	own := regexp.MustCompile(`"(BAKE_[A-Z_]+)"`)
	found := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range own.FindAllSubmatch(text, -1) {
			name := string(m[1])
			if strings.HasPrefix(name, "BAKE_TEST_") {
				continue
			}
			found++
			if !strings.Contains(help.String(), name) {
				t.Errorf("the help of bake lacks %s, which %s reads", name, path)
			}
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("%d names found: %v", found, err)
	}
}
