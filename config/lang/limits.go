package lang

import (
	"fmt"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"bake/internal/lazyregexp"
)

// Limits on the result of one function call. Without them, a single call could exhaust
// memory or take days.
const (
	maxPad        = 9_999   // columns that indent, format and formatlist put in
	maxProduct    = 100_000 // elements of setproduct
	maxBcryptCost = 16      // each one more doubles the time: this takes some seconds
)

var (
	indent     = limited(stdlib.IndentFunc, narrow)
	format     = limited(stdlib.FormatFunc, narrowVerbs)
	formatList = limited(stdlib.FormatListFunc, narrowVerbs)
	setProduct = limited(stdlib.SetProductFunc, smallProduct)
)

// limited returns f, which fails if check does. check may get unknown and null
// arguments.
func limited(f function.Function, check func(args []cty.Value) error) function.Function {
	return function.New(&function.Spec{
		Params:   f.Params(),
		VarParam: f.VarParam(),
		Type: func(args []cty.Value) (cty.Type, error) {
			if err := check(args); err != nil {
				return cty.NilType, err
			}
			return f.ReturnTypeForValues(args)
		},
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f.Call(args) },
	})
}

func settled(v cty.Value) bool { return v.IsKnown() && !v.IsNull() }

func narrow(args []cty.Value) error {
	if !settled(args[0]) {
		return nil
	}
	if args[0].GreaterThan(cty.NumberIntVal(maxPad)).True() || args[0].LessThan(cty.Zero).True() {
		return function.NewArgErrorf(0, "must be from 0 to %d", maxPad)
	}
	return nil
}

var wideVerb = lazyregexp.New(`%[-+# 0-9.\[\]]*[0-9]{5}`)

func narrowVerbs(args []cty.Value) error {
	if v, _ := args[0].Unmark(); settled(v) && wideVerb.Get().MatchString(v.AsString()) {
		return function.NewArgErrorf(0, "a width or precision in it is greater than %d", maxPad)
	}
	return nil
}

func smallProduct(args []cty.Value) error {
	size := 1
	for _, v := range args {
		if v, _ := v.Unmark(); v.CanIterateElements() {
			if size *= v.LengthInt(); size > maxProduct {
				return fmt.Errorf("the result would have more than %d elements", maxProduct)
			}
		}
	}
	return nil
}
