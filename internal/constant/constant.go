// Package constant reads and writes expressions that may not refer to anything, such as the description of a variable.
package constant

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	"bake/internal/prose"
)

// String returns the string that an expression gives. A number or a bool is converted to one.
func String(expr hcl.Expression) (string, hcl.Diagnostics) {
	v, diags := value(expr, cty.String)
	if diags.HasErrors() {
		return "", diags
	}
	return v.AsString(), diags
}

// Bool returns the bool that an expression gives. The strings "true" and "false" are converted to one.
func Bool(expr hcl.Expression) (bool, hcl.Diagnostics) {
	v, diags := value(expr, cty.Bool)
	return !diags.HasErrors() && v.True(), diags
}

// Quote writes s as a string of the template language, which [String] reads.
func Quote(s string) string {
	return `"` + strings.NewReplacer(
		`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "${", "$${", "%{", "%%{",
	).Replace(s) + `"`
}

func value(expr hcl.Expression, want cty.Type) (cty.Value, hcl.Diagnostics) {
	v, diags := expr.Value(nil)
	if diags.HasErrors() {
		return v, diags
	}
	v, err := convert.Convert(v, want)
	if err == nil && !v.IsNull() {
		return v, diags
	}
	return v, append(diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Unsuitable value type",
		Detail:  prose.Sprintf("A %s is required here.", want.FriendlyName()),
		Subject: expr.StartRange().Ptr(), Context: expr.Range().Ptr(),
	})
}
