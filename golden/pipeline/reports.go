package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"

	"bake/golden/findings"
	"bake/internal/wholefile"
)

// write writes a document in all formats for programs.
func (p *pipeline) write(name, machine string, doc findings.Document) error {
	if err := os.MkdirAll(p.Reports, 0o755); err != nil { //nolint:gosec // whoever may read the directory that it is in may read it
		return err
	}
	if !strings.HasPrefix(name, machine+".") { // several machines have such a report
		name += "." + machine
	}
	var errs []error
	for _, format := range findings.Formats() {
		if format != findings.Plain {
			errs = append(errs, writeFile(filepath.Join(p.Reports, fileName(name)+format.Extension()), doc, format))
		}
	}
	return errors.Join(errs...)
}

func writeFile(path string, doc findings.Document, format findings.Format) error {
	return wholefile.Write(path, 0o644, func(f *os.File) error { return doc.Write(f, format) })
}

// fileName is a name as one of a file.
func fileName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '.', r == '-', r == '_':
			return r
		}
		return '_'
	}, name)
}
