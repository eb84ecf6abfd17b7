package lang

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Explain rewrites HCL's errors about unknown names in the terms of templates: which
// variable is not declared, and what may have been meant. For functions that panic, it
// keeps only the reason.
func (s *Scope) Explain(diags hcl.Diagnostics) hcl.Diagnostics {
	var out hcl.Diagnostics
	for _, d := range diags {
		out = append(out, s.explain(d))
	}
	return out
}

func (s *Scope) explain(d *hcl.Diagnostic) *hcl.Diagnostic {
	if d.Expression == nil || d.EvalContext == nil || d.Subject == nil {
		return d
	}
	better := *d
	switch d.Summary {
	case "Call to unknown function":
		call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallUnknownDiagExtra](d)
		if !ok {
			return d
		}
		hint, ok := otherLanguage[call.CalledFunctionName()]
		if !ok {
			return d
		}
		better.Detail = fmt.Sprintf("There is no function %s here; %s.", call.CalledFunctionName(), hint)
		return &better
	case "Error in function call":
		return withoutStack(d)
	case "Unknown variable":
		better.Detail += s.asText(d)
		return &better
	case "Unsupported attribute":
	default:
		return d
	}
	for _, ref := range d.Expression.Variables() {
		if !overlaps(ref.SourceRange(), *d.Subject) {
			continue
		}
		if what, name, names := s.missing(ref, d.EvalContext); what != "" {
			return unknownName(what, name, names, ref.SourceRange())
		}
	}
	return d
}

// asText returns a sentence on how to write an unknown name if it is not meant as one: it
// may be for a shell, or lack its quotation marks.
func (s *Scope) asText(d *hcl.Diagnostic) string {
	ref, ok := d.Expression.(*hclsyntax.ScopeTraversalExpr)
	if !ok || s.Before == nil || strings.Contains(d.Detail, "Did you mean") {
		return ""
	}
	before := strings.TrimRight(s.Before(*d.Subject), " ~")
	switch {
	case !strings.HasSuffix(before, "${"):
		return " If a text is meant, it needs quotation marks."
	case len(ref.Traversal) == 1:
		return fmt.Sprintf(" If this is for a shell or another program, write $${%s}.", ref.Traversal.RootName())
	}
	return ""
}

// withoutStack leaves of a function that has panicked the reason.
func withoutStack(d *hcl.Diagnostic) *hcl.Diagnostic {
	call, ok := hcl.DiagnosticExtra[hclsyntax.FunctionCallDiagExtra](d)
	if !ok {
		return d
	}
	panicked, ok := errors.AsType[function.PanicError](call.FunctionCallError())
	if !ok {
		return d
	}
	better := *d
	better.Detail = fmt.Sprintf("Call to function %q failed: it has no result for these arguments (%v).", call.CalledFunctionName(), panicked.Value)
	return &better
}

func unknownName(what, name string, names []string, at hcl.Range) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Unknown name", Subject: &at,
		Detail: fmt.Sprintf("There is no %s %q here.%s", what, name, DidYouMean(name, names)),
	}
}

// missing finds the first name in ref that does not exist. It returns what kind of name it
// is, the name, and the names that exist in its place.
func (s *Scope) missing(ref hcl.Traversal, ec *hcl.EvalContext) (what, name string, names []string) {
	root := ref.RootName()
	first, ok := stepName(ref, 1)
	if !ok {
		return "", "", nil
	}
	absent := func(names []string, name string) bool { return !slices.Contains(names, name) }
	switch root {
	case "var":
		if names := s.Names("var"); absent(names, first) {
			return "variable", first, names
		}
	case "local":
		if names := s.Names("local"); absent(names, first) {
			return "local value", first, names
		}
	case "data":
		if names := s.Names("data"); absent(names, first) {
			return "data source of type", first, names
		}
		if second, ok := stepName(ref, 2); ok {
			if names := s.Names("data." + first); absent(names, second) {
				return fmt.Sprintf("data source of type %q and name", first), second, names
			}
		}
	case "build", "source", "path", "packer":
		for ; ec != nil; ec = ec.Parent() {
			v, ok := ec.Variables[root]
			if !ok || !v.Type().IsObjectType() {
				continue
			}
			if names := slices.Sorted(maps.Keys(v.Type().AttributeTypes())); absent(names, first) {
				return "value " + root + ".NAME with the name", first, names
			}
			break
		}
	}
	return "", "", nil
}

func overlaps(a, b hcl.Range) bool {
	return a.Filename == b.Filename && a.Start.Byte < b.End.Byte && b.Start.Byte < a.End.Byte
}

// otherLanguage has the functions that users of Terraform look for.
var otherLanguage = map[string]string{
	"tostring":  "write convert(value, string)",
	"tonumber":  "write convert(value, number)",
	"tobool":    "write convert(value, bool)",
	"tolist":    "write convert(value, list(any))",
	"toset":     "write convert(value, set(any))",
	"tomap":     "write convert(value, map(any))",
	"sensitive": "mark the variable or the local block with sensitive = true",
	"env":       `env("NAME") may only be the default of a variable`,
}

// DidYouMean returns a sentence that suggests the closest of names, with a
// leading space, or nothing if none is close.
func DidYouMean(name string, names []string) string {
	best, bestDistance := "", 4
	for _, n := range names {
		if d := levenshtein.Distance(name, n, nil); d < bestDistance && 3*d < 2*len(name) {
			best, bestDistance = n, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" Did you mean %q?", best)
}

// References returns every traversal in bodies whose schema is not known. It may
// return more than are used: a JSON string that is taken literally counts too.
func References(bodies ...hcl.Body) []hcl.Traversal {
	var refs []hcl.Traversal
	for _, b := range bodies {
		if native, ok := b.(*hclsyntax.Body); ok {
			refs = append(refs, nativeReferences(native)...)
			continue
		}
		attrs, _ := b.JustAttributes() // errors are reported when the body is decoded
		for _, a := range attrs {
			refs = append(refs, a.Expr.Variables()...)
		}
	}
	return refs
}

func nativeReferences(b *hclsyntax.Body) []hcl.Traversal {
	var refs []hcl.Traversal
	for _, a := range b.Attributes {
		refs = append(refs, a.Expr.Variables()...)
	}
	for _, block := range b.Blocks {
		refs = append(refs, nativeReferences(block.Body)...)
	}
	return refs
}

// Strings calls f with every string within v that is known and not empty.
func Strings(v cty.Value, f func(string)) {
	v, _ = v.UnmarkDeep()
	_ = cty.Walk(v, func(_ cty.Path, v cty.Value) (bool, error) {
		if v.Type() == cty.String && v.IsKnown() && !v.IsNull() && v.AsString() != "" {
			f(v.AsString())
		}
		return true, nil
	})
}
