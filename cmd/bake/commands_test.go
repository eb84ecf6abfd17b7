package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// said is a command line in a document.
type said struct {
	at   string // FILE:LINE
	line string
	all  bool // it must be complete; otherwise words may be missing
}

var (
	commandLine   = regexp.MustCompile(`^(?:\s{4,}|\s*(?:- )?run: |\s*- |Exec\w+=\S*/|\$ )?(?:\w+=\S* )*(bake [a-z].*)$`)
	inlineCommand = regexp.MustCompile("`(bake [a-z][^`]*)`")
)

// saidIn returns bake's command lines in a document.
func saidIn(path, text string) (all []said) {
	fenced := false
	for i, line := range strings.Split(text, "\n") {
		at := fmt.Sprintf("%s:%d", path, i+1)
		if strings.HasPrefix(line, "```") {
			fenced = !fenced
		}
		for _, m := range inlineCommand.FindAllStringSubmatch(line, -1) {
			all = append(all, said{at, m[1], false})
		}
		isCode := fenced || !strings.HasSuffix(path, ".md") || strings.HasPrefix(line, "    ")
		if m := commandLine.FindStringSubmatch(line); m != nil && isCode && !strings.Contains(m[1], "`") {
			all = append(all, said{at, m[1], true})
		}
	}
	return all
}

// words returns the words of a command line up to its end: a comment, a pipe, a redirection, or
// the next command. Omissions are shown as "..." or "…".
func words(line string) (all []string, partly bool) {
	line = regexp.MustCompile(`\s(#|\||&&|&|>|<|2>|;|\\$|   ).*`).ReplaceAllString(line+" ", "")
	line = strings.NewReplacer("[", " ", "]", " ", `"`, "", "'", "", ",…", "", ";", "").Replace(line)
	for _, w := range strings.Fields(line) {
		if partly = partly || strings.Contains(w, "…") || strings.Contains(w, "..."); !partly {
			all = append(all, w)
		}
	}
	return all, partly
}

// wrong returns the error in a command line, or "".
func (s said) wrong() string {
	all, partly := words(s.line)
	if len(all) < 2 || all[1] == "plugin-keeper" { // which is a process, and nothing to be commandLine
		return ""
	}
	root := (&program{now: time.Now}).root(nil)
	args := singleDash(all[1:])
	cmd, rest, err := root.Find(args)
	switch {
	case err != nil:
		return err.Error()
	case cmd == root && !strings.HasPrefix(args[0], "-"):
		return fmt.Sprintf("there is no command %q", args[0])
	}
	cmd.InitDefaultHelpFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		if !s.all && strings.Contains(err.Error(), "needs an argument") {
			return ""
		}
		return err.Error()
	}
	if left := cmd.Flags().Args(); cmd.HasSubCommands() && len(left) > 0 && !strings.Contains(cmd.Use, " ") {
		return fmt.Sprintf("%s has no command %q", cmd.CommandPath(), left[0])
	} else if s.all && !partly {
		if err := cmd.ValidateArgs(left); err != nil {
			return err.Error()
		}
	}
	return ""
}

// TestDocumentedCommands: the commands and options in documents exist.
func TestDocumentedCommands(t *testing.T) {
	n := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			if name := d.Name(); path != "../.." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "dist" || name == "bin" || name == "options") {
				return filepath.SkipDir
			}
			return nil
		case !strings.HasSuffix(path, ".md") && !strings.HasSuffix(path, ".yml") && !strings.HasSuffix(path, ".service"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range saidIn(path, string(text)) {
			n++
			if wrong := s.wrong(); wrong != "" {
				t.Errorf("%s: %s: %s", strings.TrimPrefix(s.at, "../../"), s.line, wrong)
			}
		}
		return nil
	})
	if err != nil || n < 250 {
		t.Errorf("%d commands: %v", n, err)
	}
	for line, want := range map[string]bool{
		"bake images list -regions all": true, "bake images lst": false, "bake images list -region-s all": false, "bake promote": false,
		"bake images promote web candidate stable -local": true, "bake images promote web stable": false, "bake report # nothing": true,
	} {
		if wrong := (said{line: line, all: true}).wrong(); (wrong == "") != want {
			t.Errorf("%s: %q", line, wrong)
		}
	}
}

// TestJSONCommandsAreDocumented: docs/json.md describes the -json output of each command.
func TestJSONCommandsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, c := range cmd.Commands() {
			visit(c)
		}
		name := strings.TrimPrefix(cmd.CommandPath(), "bake ")
		if cmd.HasSubCommands() || cmd.Hidden || cmd.Flag("json") == nil {
			return
		}
		if !regexp.MustCompile("(?m)^### (.*, )?" + name + "(,|$)|`" + name + "`").Match(text) {
			t.Errorf("docs/json.md does not mention %s", name)
		}
	}
	visit((&program{now: time.Now}).root(nil))
}
