package ui

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/hcl/v2"

	"bake/internal/prose"
)

// Diagnostics writes diags to w, each with its source lines, wrapped to width. files are the parsed
// files, by name; others are read from disk.
func Diagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, width int, color bool) error {
	sources := map[string]*hcl.File{}
	var shown hcl.Diagnostics
	for _, d := range diags {
		d := *d
		d.Summary, d.Detail = prose.PrintableLines(d.Summary), prose.PrintableLines(d.Detail) // they may quote a plugin or a server
		if d.Subject != nil {
			name := d.Subject.Filename
			if f := source(files, name); f != nil && d.Subject.Start.Byte <= len(f.Bytes) {
				sources[name] = f
			} else {
				d.Detail = fmt.Sprintf("In %s. %s", d.Subject, d.Detail)
				d.Subject, d.Context, d.Expression, d.EvalContext = nil, nil, nil, nil
			}
		}
		shown = append(shown, &d)
	}
	return hcl.NewDiagnosticTextWriter(w, sources, uint(width), color).WriteDiagnostics(shown)
}

func source(files map[string]*hcl.File, name string) *hcl.File {
	if f, ok := files[name]; ok && f != nil {
		return f
	}
	return SourceFile(name)
}

// maxSource is the maximum size, in bytes, of a file whose lines are shown.
const maxSource = 4 << 20

// SourceFile reads a file whose lines are to be shown. It returns nil if the file cannot be read,
// is not a regular file, or is too large.
func SourceFile(name string) *hcl.File {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || info.Size() > maxSource {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return &hcl.File{Bytes: b}
}

// Diagnostic is a diagnostic for JSON. Lines and columns count from 1, bytes from 0.
type Diagnostic struct {
	Severity string   `json:"severity"` // "error" or "warning"
	Summary  string   `json:"summary"`
	Detail   string   `json:"detail"`
	Range    *Range   `json:"range,omitempty"`
	Snippet  *Snippet `json:"snippet,omitempty"`
}

// Range is the part of a file that a diagnostic concerns.
type Range struct {
	File  string   `json:"file"`
	Start Position `json:"start"`
	End   Position `json:"end"` // exclusive
}

// Position is a position in a file.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
	Byte   int `json:"byte"`
}

// Snippet is the source of a range: the complete lines that contain it, and its position in them in
// bytes.
type Snippet struct {
	Context        string `json:"context,omitempty"` // such as `source "null" "x"`
	Code           string `json:"code"`
	StartLine      int    `json:"start_line"`
	HighlightStart int    `json:"highlight_start"`
	HighlightEnd   int    `json:"highlight_end"`
}

// PlainDiagnostics returns diags with the same content that [Diagnostics] shows.
func PlainDiagnostics(files map[string]*hcl.File, diags hcl.Diagnostics) []Diagnostic {
	var out []Diagnostic
	for _, d := range diags {
		p := Diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			p.Severity = "warning"
		}
		if r := d.Subject; r != nil {
			p.Range = &Range{r.Filename, Position(r.Start), Position(r.End)}
			p.Snippet = snippet(source(files, r.Filename), *r)
		}
		out = append(out, p)
	}
	return out
}

// snippet returns the lines of f that contain r; nil if they are unknown.
func snippet(f *hcl.File, r hcl.Range) *Snippet {
	if f == nil || r.Start.Byte < 0 || r.End.Byte < r.Start.Byte || r.End.Byte > len(f.Bytes) {
		return nil
	}
	start := bytes.LastIndexByte(f.Bytes[:r.Start.Byte], '\n') + 1
	end := len(f.Bytes)
	if i := bytes.IndexByte(f.Bytes[r.End.Byte:], '\n'); i >= 0 {
		end = r.End.Byte + i
	}
	s := &Snippet{
		Code: string(f.Bytes[start:end]), StartLine: r.Start.Line,
		HighlightStart: r.Start.Byte - start, HighlightEnd: r.End.Byte - start,
	}
	if nav, ok := f.Nav.(interface{ ContextString(offset int) string }); ok {
		s.Context = nav.ContextString(r.Start.Byte)
	}
	return s
}
