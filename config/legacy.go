package config

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/json"

	"bake/internal/hcljson"
	"bake/internal/hostpath"
)

// legacySections are the sections of legacy JSON templates. No HCL template has them.
var legacySections = []string{"builders", "provisioners", "post-processors", "sensitive-variables", "min_packer_version", "error-cleanup-provisioner"}

// legacySection returns where src, a file called name, shows itself to be a legacy
// JSON template. A file of nothing but variables is none: it may as well
// be HCL in JSON syntax.
func legacySection(name string, src []byte) (at hcl.Range, ok bool) {
	expr, diags := json.ParseExpression(hcljson.Source(src), name)
	if diags.HasErrors() {
		return at, false
	}
	pairs, _ := hcl.ExprMap(expr)
	for _, p := range pairs {
		if key, diags := p.Key.Value(nil); !diags.HasErrors() && slices.Contains(legacySections, key.AsString()) {
			return p.Key.Range(), true
		}
	}
	return at, false
}

// legacyProblem returns a diagnostic with advice for a legacy JSON template.
func legacyProblem(name string, at hcl.Range) hcl.Diagnostics {
	return problem(&at, "Legacy JSON template",
		"This is a legacy JSON template, which bake does not run. Convert it, and use the result instead:\n\n  bake hcl2_upgrade %s\n\nThat writes %s.pkr.hcl and leaves this file unchanged.", shellWord(name), name)
}

// notHCL returns the error for a template file whose name ends neither in .pkr.hcl nor in
// .pkr.json.
func (r *reader) notHCL(path string) hcl.Diagnostics {
	src, err := hostpath.Read(r.abs(path), hostpath.Limit)
	if err != nil {
		return problem(nil, "Cannot read file", "%s.", err)
	}
	if at, ok := legacySection(path, src); ok {
		r.files[path] = &hcl.File{Bytes: src}
		return legacyProblem(path, at)
	}
	if strings.HasSuffix(path, bakeSuffix) {
		return problem(nil, "Not a template",
			"%s belongs to the templates in the same directory, and is read with each of them. Name a template or the directory instead.", path)
	}
	return problem(nil, "Not an HCL template",
		"%s ends neither in .pkr.hcl nor in .pkr.json. If it is an HCL template, rename it; if it is a legacy JSON template, with builders and provisioners, convert it with\n\n  bake hcl2_upgrade %s", path, shellWord(path))
}

// legacyIn returns a diagnostic with advice for a directory that holds only legacy JSON
// templates, or nil.
func (r *reader) legacyIn(dir string, entries []os.DirEntry) hcl.Diagnostics {
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		name := filepath.Join(dir, e.Name())
		src, err := hostpath.Read(r.abs(name), hostpath.Limit)
		if err != nil {
			continue
		}
		if at, ok := legacySection(name, src); ok {
			r.files[name] = &hcl.File{Bytes: src}
			return legacyProblem(name, at)
		}
	}
	return nil
}

// shellWord quotes a file name for a command line where it has to be.
func shellWord(s string) string {
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("-_./+:@%,=", r) && (r > 'z' || r < '0' || r > '9' && r < 'A' || r > 'Z' && r < 'a')
	}) && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
