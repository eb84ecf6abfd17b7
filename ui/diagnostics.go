package ui

import (
	"fmt"
	"io"
	"os"

	"github.com/hashicorp/hcl/v2"
)

// Diagnostics writes diags to w, each with the lines of source that it blames,
// wrapped to width. files are the files that were parsed, by name; one that is
// not among them is read from the disk.
func Diagnostics(w io.Writer, files map[string]*hcl.File, diags hcl.Diagnostics, width int, color bool) error {
	sources := map[string]*hcl.File{}
	var shown hcl.Diagnostics
	for _, d := range diags {
		d := *d
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
	b, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	return &hcl.File{Bytes: b}
}
