package main

import (
	"bytes"
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
