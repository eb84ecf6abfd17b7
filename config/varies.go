package config

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/internal/lazyregexp"
)

// variesPattern matches calls of functions whose value differs in each run: those of the
// language, and those in {{ }}.
var variesPattern = lazyregexp.New(`\b(timestamp|uuidv4|legacy_isotime|legacy_strftime|bcrypt)\s*\(|\{\{[^}]*\b(timestamp|isotime|strftime|uuid)\b`)

// Varies returns the name of a function that text calls and whose value differs in each
// run; empty if it calls none.
func Varies(text string) string {
	m := variesPattern.Get().FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	return m[1] + m[2]
}

// Varies returns the name of a function whose value differs in each run, and which the
// block of c, or a local value that it refers to, calls; empty if there is none.
func (t *Template) Varies(c *Component) string {
	text := []string{t.source(c.block.Body)}
	if c.override != nil {
		text = append(text, t.slice(c.override.Range()))
	}
	seen := map[string]bool{}
	refs := append([]hcl.Traversal(nil), c.refs...)
	for len(refs) > 0 {
		ref := refs[0]
		refs = refs[1:]
		if ref.RootName() != "local" {
			continue
		}
		for _, n := range t.scope.Nodes() {
			attr, named := ref[min(1, len(ref)-1)].(hcl.TraverseAttr)
			if !strings.HasPrefix(n.Address, "local.") || seen[n.Address] || named && n.Address != "local."+attr.Name {
				continue
			}
			seen[n.Address] = true
			text = append(text, t.localSource(n.Range))
			refs = append(refs, n.Refs...)
		}
	}
	return Varies(strings.Join(text, "\n"))
}

// source returns the source text of a body, as far as it is available.
func (t *Template) source(b hcl.Body) string {
	if native, ok := b.(*hclsyntax.Body); ok {
		return t.slice(native.SrcRange)
	}
	return t.all(b.MissingItemRange().Filename)
}

// localSource returns the source text of the local at that place. In JSON, it may be
// anywhere in the file.
func (t *Template) localSource(at hcl.Range) string {
	f := t.files[at.Filename]
	if f == nil {
		return ""
	}
	native, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return t.all(at.Filename)
	}
	for _, b := range native.Blocks {
		if b.Type != "locals" && b.Type != "local" || !b.Range().Overlaps(at) {
			continue
		}
		for _, attr := range b.Body.Attributes {
			if attr.NameRange == at {
				return t.slice(attr.Expr.Range())
			}
		}
		return t.slice(b.Body.SrcRange)
	}
	return ""
}

func (t *Template) slice(at hcl.Range) string {
	f := t.files[at.Filename]
	if f == nil || !at.CanSliceBytes(f.Bytes) {
		return ""
	}
	return string(at.SliceBytes(f.Bytes))
}

func (t *Template) all(name string) string {
	if f := t.files[name]; f != nil {
		return string(f.Bytes)
	}
	return ""
}
