package main

import (
	"encoding/json"
	"io"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/run"
	"bake/ui"
)

// jsonSchema is the version of what -json writes, as docs/json.md describes it.
const jsonSchema = 1

// jsonOutput is the output of a command with -json: objects, one per line. The last one, of
// kind "result", is always written.
type jsonOutput struct {
	on          bool
	diagnostics []ui.Diagnostic // for the last object
	outcome     string          // of a command that runs something
	result      any             // a struct with the command's own fields; nil if there is no result
}

// jsonHeader starts every object.
type jsonHeader struct {
	Schema  int    `json:"schema"`
	Command string `json:"command"`
	Kind    string `json:"kind"`
}

// jsonOutcome ends every command.
type jsonOutcome struct {
	OK          bool            `json:"ok"`
	ExitCode    int             `json:"exit_code"`
	Outcome     string          `json:"outcome,omitempty"`
	Diagnostics []ui.Diagnostic `json:"diagnostics"`
}

// jsonFlag registers the flag -json of cmd.
func (p *program) jsonFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.json.on, "json", false, "print JSON instead of text: one object per line, the last one with the result")
}

// asksForJSON reports whether -json is among args, for errors of the command line
// that are found before the flag is.
func asksForJSON(args []string) bool {
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	return slices.Contains(args, "--json") || slices.Contains(args, "--json=true")
}

// commandName returns the name of a command in objects, such as "cloud images".
func commandName(cmd *cobra.Command) string {
	_, name, _ := strings.Cut(cmd.CommandPath(), " ")
	return name
}

// header returns the start of an object of this kind.
func (p *program) header(kind string) jsonHeader { return jsonHeader{jsonSchema, p.command, kind} }

// writeJSON writes one object that has the fields of all parts, which are structs.
func (p *program) writeJSON(parts ...any) {
	var fields []string
	for _, part := range parts {
		if part == nil {
			continue
		}
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(part); err != nil { // no JSON can be made of its type: a mistake in the program
			panic(err)
		}
		if text := strings.TrimSuffix(strings.TrimPrefix(b.String(), "{"), "}\n"); text != "" {
			fields = append(fields, text)
		}
	}
	io.WriteString(p.stdout, "{"+strings.Join(fields, ",")+"}\n")
}

// writeResult writes the last object.
func (p *program) writeResult(exit int) {
	ok := exit == 0 || p.json.outcome == run.OutcomeReused.String()
	outcome := jsonOutcome{ok, exit, p.json.outcome, p.json.diagnostics}
	if outcome.Diagnostics == nil {
		outcome.Diagnostics = []ui.Diagnostic{}
	}
	p.writeJSON(p.header("result"), outcome, p.json.result)
}

// keepDiagnostics keeps diags for the result.
func (p *program) keepDiagnostics(files map[string]*hcl.File, diags hcl.Diagnostics) {
	p.json.diagnostics = append(p.json.diagnostics, ui.PlainDiagnostics(files, diags)...)
}

// list returns s for JSON: never null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
