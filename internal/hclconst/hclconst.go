// Package hclconst reads values that a file gives without variables and functions. It does
// what gohcl does for single expressions, without the parts of HCL's library that write files.
package hclconst

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"
)

// Decode sets a variable to the value of an expression, which is converted to its type.
// If it cannot be, the variable is as before.
func Decode[T string | bool](expr hcl.Expression, into *T) hcl.Diagnostics {
	v, diags := expr.Value(nil)
	want, err := gocty.ImpliedType(into)
	if err == nil {
		v, err = convert.Convert(v, want)
	}
	if err == nil && !diags.HasErrors() {
		err = gocty.FromCtyValue(v, into)
	}
	if err != nil {
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Unsuitable value type", Detail: fmt.Sprintf("Unsuitable value: %s.", err),
			Subject: expr.StartRange().Ptr(), Context: expr.Range().Ptr(),
		})
	}
	return diags
}
