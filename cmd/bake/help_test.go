package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/spf13/cobra"
)

// TestHelp: the help of every command has a description, exit codes, variables and examples.
func TestHelp(t *testing.T) {
	p := &program{now: time.Now}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		writeHelp(&out, cmd, helpWidth)
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
			if len(line) > helpWidth+1 && !strings.HasPrefix(line, "Usage:") && !strings.HasPrefix(line, "  bake ") {
				t.Errorf("the help of %s has a line of %d characters: %s", cmd.CommandPath(), len(line)-1, line)
			}
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

// TestNarrowHelp: help fits into a narrow terminal, but for the names of flags and examples.
func TestNarrowHelp(t *testing.T) {
	p := &program{now: time.Now}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		writeHelp(&out, cmd, 40)
		text, _, _ := strings.Cut(out.String(), "\nExamples:\n")
		for line := range strings.Lines(text) {
			if len(line) > 41 && !strings.HasPrefix(line, "  -") && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("the help of %s has a line of %d characters: %s", cmd.CommandPath(), len(line)-1, line)
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

// names reports whether a text has a word.
func names(text, word string) bool {
	return slices.Contains(strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) }), word)
}

// TestHelpOfReaders: the help of a command lists the variables that it reads.
func TestHelpOfReaders(t *testing.T) {
	p := &program{now: time.Now}
	root := p.root(nil)
	for variable, commands := range map[string]string{
		"BAKE_STATE_DIR":  "build, resume, sweep, sbom, checks run, images rm, images prune, images copy, images diff, images promote, images revoke, fleet run, fleet plan, fleet status, fleet logs, fleet cancel, fleet pause, fleet resume, fleet approve",
		"BAKE_CLOUD_DIR":  "build, plan, sbom, checks run, images list, fleet run, fleet plan, fleet status, cloud up",
		"AWS_...":         "build, plan, validate, sweep, sbom, checks run, verify-attestation, images list, fleet run, fleet plan, fleet approve",
		cloudInitVariable: "build, sbom, checks run, fleet run, worker",
	} {
		for command := range strings.SplitSeq(commands, ", ") {
			cmd, _, err := root.Find(strings.Fields(command))
			if err != nil {
				t.Fatal(err)
			}
			var help bytes.Buffer
			writeHelp(&help, cmd, helpWidth)
			if !names(help.String(), variable) {
				t.Errorf("the help of bake %s lacks %s", command, variable)
			}
		}
	}
}

// TestHelpNamesVariables: each environment variable that the program reads is in the help of bake.
func TestHelpNamesVariables(t *testing.T) {
	p := &program{now: time.Now}
	var help bytes.Buffer
	writeHelp(&help, p.root(nil), helpWidth)
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
			if !names(help.String(), name) {
				t.Errorf("the help of bake lacks %s, which %s reads", name, path)
			}
		}
		return err
	})
	if err != nil || found < 10 {
		t.Errorf("%d names found: %v", found, err)
	}
}
