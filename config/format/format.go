// Package format formats templates, variable files and bake files in HCL's canonical
// layout. It changes only white space.
package format

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/rogpeppe/go-internal/diff"

	"bake/internal/limits"
	"bake/internal/prose"
)

// Source returns src in the canonical layout, see [Layout]. It does not change a file that is not HCL,
// and returns diagnostics that name the file.
func Source(name string, src []byte) ([]byte, hcl.Diagnostics) {
	if err := limits.Source(src, limits.HCL); err != nil {
		at := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
		return nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Cannot read file", Detail: prose.Sprintf("%s: %s.", name, err), Subject: &at}}
	}
	if _, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos); diags.HasErrors() {
		return nil, diags
	}
	return Layout(src), nil
}

// Files returns path itself if it is a file, or the templates, variable files and bake
// files in the directory, sorted by name, including its subdirectories if recursive is
// set. It skips the files of editors and version control.
func Files(path string, recursive bool) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if !isHCL(path) {
			return nil, fmt.Errorf("%s is neither a template (*.pkr.hcl) nor a variable file (*.pkrvars.hcl) nor a bake file (*.bake.hcl)", path)
		}
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		name := filepath.Join(path, e.Name())
		switch {
		case ignored(e.Name()):
		case e.IsDir() && recursive:
			below, berr := Files(name, true)
			names, err = append(names, below...), errors.Join(err, berr)
		case isHCL(name) && isFile(name, e):
			names = append(names, name)
		}
	}
	return names, err
}

func isHCL(name string) bool {
	return strings.HasSuffix(name, ".pkr.hcl") || strings.HasSuffix(name, ".pkrvars.hcl") || strings.HasSuffix(name, ".bake.hcl")
}

// isFile reports whether an entry of a directory is a file, or a link to one.
func isFile(name string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.Type().IsRegular()
	}
	info, err := os.Stat(name)
	return err == nil && info.Mode().IsRegular()
}

// ignored reports whether an entry of a directory is hidden, or a backup of an editor.
func ignored(name string) bool {
	return strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") ||
		strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#")
}

// Diff returns what formatting changes in the file name, as a unified diff from
// old/name to new/name. It is empty if nothing changes.
func Diff(name string, old, formatted []byte) string {
	text := string(diff.Diff("old/"+name, old, "new/"+name, formatted))
	_, text, _ = strings.Cut(text, "\n") // the command line that it begins with
	return text
}
