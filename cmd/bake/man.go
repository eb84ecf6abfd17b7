package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// writeMan writes a manual page of each command into a directory: bake.1, bake-build.1, and
// so on.
func writeMan(dir string, cmd *cobra.Command) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var all []error
	var write func(*cobra.Command)
	write = func(cmd *cobra.Command) {
		all = append(all, os.WriteFile(filepath.Join(dir, manName(cmd)+".1"), []byte(manPage(cmd)), 0o644))
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				write(c)
			}
		}
	}
	write(cmd)
	return errors.Join(all...)
}

// manName returns the name of a command's page, such as "bake-cloud-up".
func manName(cmd *cobra.Command) string { return strings.ReplaceAll(cmd.CommandPath(), " ", "-") }

// roff is a manual page that is being written.
type roff struct{ strings.Builder }

// request writes a line that sets the layout of the text after it.
func (r *roff) request(name string, args ...string) {
	r.WriteString("." + name)
	for _, a := range args {
		r.WriteString(` "` + strings.ReplaceAll(escaped(a), `"`, `\(dq`) + `"`)
	}
	r.WriteString("\n")
}

// text writes lines of text unchanged.
func (r *roff) text(text string) {
	for line := range strings.Lines(text) {
		line = escaped(strings.TrimSuffix(line, "\n"))
		if strings.HasPrefix(line, ".") {
			line = `\&` + line
		}
		if line == "" {
			line = ".sp"
		}
		r.WriteString(line + "\n")
	}
}

// literal writes lines that are not filled.
func (r *roff) literal(text string) {
	r.request("nf")
	r.text(text)
	r.request("fi")
}

// escaped returns text with all characters escaped that are special in roff.
func escaped(text string) string {
	return strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`).Replace(text)
}

// rows writes names and their meanings.
func (r *roff) rows(heading string, rows [][2]string) {
	if len(rows) > 0 {
		r.request("SH", heading)
	}
	for _, row := range rows {
		r.request("TP")
		r.request("B", row[0])
		r.text(row[1])
	}
}

func manPage(cmd *cobra.Command) string {
	var r roff
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	r.request("TH", strings.ToUpper(manName(cmd)), "1", "", "bake "+version, "bake")
	r.request("SH", "NAME")
	r.text(manName(cmd) + " - " + cmd.Short)
	r.request("SH", "SYNOPSIS")
	r.request("B", usageLine(cmd))
	r.request("SH", "DESCRIPTION")
	r.text(about)
	var commands [][2]string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			commands = append(commands, [2]string{manName(c) + "(1)", c.Short})
		}
	}
	r.rows("COMMANDS", commands)
	r.rows("OPTIONS", flagRows(cmd))
	r.request("SH", "EXIT STATUS")
	r.literal(codesOf(cmd))
	r.rows("ENVIRONMENT", variableRows(cmd))
	if cmd.Example != "" {
		r.request("SH", "EXAMPLES")
		r.literal(cmd.Example)
	}
	r.request("SH", "SEE ALSO")
	seeAlso := "bake docs explains components, their options and the functions of templates; bake docs guide is a guide."
	if cmd.HasParent() {
		seeAlso = fmt.Sprintf("%s(1). %s", manName(cmd.Parent()), seeAlso)
	}
	r.text(seeAlso)
	return r.String()
}
