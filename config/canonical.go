package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
)

// canonical writes the contents of bodies in a form that is independent of layout,
// comments and the order of arguments. It records the expressions that it has seen.
type canonical struct {
	strings.Builder
	files   map[string]*hcl.File
	without []string // top-level arguments and blocks to ignore
	seen    []hcl.Expression
}

func (c *canonical) printf(format string, args ...any) { fmt.Fprintf(c, format, args...) }

// body writes a body and its contents.
func (c *canonical) body(b hcl.Body, top bool) {
	native, ok := b.(*hclsyntax.Body)
	if !ok {
		attrs, _ := b.JustAttributes() // errors are reported when the body is decoded
		for _, a := range inOrder(attrs) {
			c.argument(a.Name, a.Expr, top)
		}
		return
	}
	names := make([]string, 0, len(native.Attributes))
	for name := range native.Attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		c.argument(name, native.Attributes[name].Expr, top)
	}
	for _, inner := range native.Blocks {
		if top && (slices.Contains(c.without, inner.Type) || inner.Type == dynamicBlock.Type && len(inner.Labels) == 1 && slices.Contains(c.without, inner.Labels[0])) {
			continue
		}
		c.printf("%s %q{", inner.Type, inner.Labels)
		c.body(inner.Body, false)
		c.printf("}")
	}
}

func (c *canonical) argument(name string, e hcl.Expression, top bool) {
	if top && slices.Contains(c.without, name) {
		return
	}
	c.printf("%s=", name)
	c.expression(e)
	c.printf(";")
}

// expression writes an expression. An expression in JSON is written as its text.
func (c *canonical) expression(e hcl.Expression) {
	c.seen = append(c.seen, e)
	if native, ok := e.(hclsyntax.Expression); ok {
		c.native(native)
		return
	}
	at := e.Range()
	var dense bytes.Buffer
	if f := c.files[at.Filename]; f == nil || !at.CanSliceBytes(f.Bytes) || json.Compact(&dense, at.SliceBytes(f.Bytes)) != nil {
		c.printf("?")
		return
	}
	c.Write(dense.Bytes())
}

func (c *canonical) native(e hclsyntax.Expression) {
	switch e := e.(type) {
	case *hclsyntax.LiteralValueExpr:
		c.value(e.Val)
	case *hclsyntax.TemplateExpr:
		c.template(e.Parts)
	case *hclsyntax.TemplateWrapExpr:
		c.list("only", e.Wrapped)
	case *hclsyntax.TemplateJoinExpr:
		c.list("join", e.Tuple)
	case *hclsyntax.ParenthesesExpr:
		c.native(e.Expression)
	case *hclsyntax.ScopeTraversalExpr:
		c.traversal(e.Traversal)
	case *hclsyntax.RelativeTraversalExpr:
		c.list("of", e.Source)
		c.traversal(e.Traversal)
	case *hclsyntax.FunctionCallExpr:
		c.list(e.Name, e.Args...)
		if e.ExpandFinal {
			c.printf("...")
		}
	case *hclsyntax.ConditionalExpr:
		c.list("if", e.Condition, e.TrueResult, e.FalseResult)
	case *hclsyntax.IndexExpr:
		c.list("index", e.Collection, e.Key)
	case *hclsyntax.TupleConsExpr:
		c.list("list", e.Exprs...)
	case *hclsyntax.ObjectConsExpr:
		c.object(e)
	case *hclsyntax.ObjectConsKeyExpr:
		c.key(e)
	case *hclsyntax.ForExpr:
		c.loop(e)
	case *hclsyntax.SplatExpr:
		c.list("splat", e.Source, e.Each)
	case *hclsyntax.AnonSymbolExpr:
		c.printf("*")
	case *hclsyntax.BinaryOpExpr:
		c.list(fmt.Sprintf("op%s", operators[e.Op]), e.LHS, e.RHS)
	case *hclsyntax.UnaryOpExpr:
		c.list(fmt.Sprintf("op%s", operators[e.Op]), e.Val)
	default: // an unknown syntax
		c.printf("%T", e)
	}
}

var operators = map[*hclsyntax.Operation]string{
	hclsyntax.OpLogicalOr: "||", hclsyntax.OpLogicalAnd: "&&", hclsyntax.OpLogicalNot: "!", hclsyntax.OpEqual: "==", hclsyntax.OpNotEqual: "!=",
	hclsyntax.OpGreaterThan: ">", hclsyntax.OpGreaterThanOrEqual: ">=", hclsyntax.OpLessThan: "<", hclsyntax.OpLessThanOrEqual: "<=",
	hclsyntax.OpAdd: "+", hclsyntax.OpSubtract: "-", hclsyntax.OpMultiply: "*", hclsyntax.OpDivide: "/", hclsyntax.OpModulo: "%", hclsyntax.OpNegate: "-",
}

func (c *canonical) list(name string, all ...hclsyntax.Expression) {
	c.printf("%s(", name)
	for _, e := range all {
		c.native(e)
		c.printf(",")
	}
	c.printf(")")
}

// template writes the parts of a string, in any notation.
func (c *canonical) template(parts []hclsyntax.Expression) {
	text := ""
	flush := func() {
		if text != "" {
			c.printf("%q", text)
		}
		text = ""
	}
	if len(parts) == 0 {
		c.printf("%q", "")
	}
	for i, p := range parts {
		if lit, ok := p.(*hclsyntax.LiteralValueExpr); ok && lit.Val.Type() == cty.String && lit.Val.IsKnown() && !lit.Val.IsNull() {
			if text += lit.Val.AsString(); text == "" && len(parts) == 1 {
				c.printf("%q", "")
			}
			continue
		}
		flush()
		if i > 0 || len(parts) > 1 {
			c.printf("+")
		}
		c.list("text", p)
	}
	flush()
}

func (c *canonical) value(v cty.Value) {
	if v.IsKnown() && !v.IsNull() && v.Type() == cty.String {
		c.printf("%q", v.AsString())
		return
	}
	c.printf("%s", lang.Show(v))
}

func (c *canonical) object(e *hclsyntax.ObjectConsExpr) {
	var items []string
	for _, item := range e.Items {
		one := &canonical{files: c.files}
		one.native(item.KeyExpr)
		one.printf("=")
		one.native(item.ValueExpr)
		items = append(items, one.String())
	}
	// Of two items with the same key the last one counts, so only the order of different
	// keys is irrelevant.
	sort.SliceStable(items, func(i, j int) bool {
		a, _, _ := strings.Cut(items[i], "=")
		b, _, _ := strings.Cut(items[j], "=")
		return a < b
	})
	c.printf("{%s}", strings.Join(items, ","))
}

// key writes the key of an object: a bare name is a text.
func (c *canonical) key(e *hclsyntax.ObjectConsKeyExpr) {
	if word := hcl.ExprAsKeyword(e.Wrapped); word != "" && !e.ForceNonLiteral {
		c.printf("%q", word)
		return
	}
	c.native(e.Wrapped)
}

func (c *canonical) loop(e *hclsyntax.ForExpr) {
	c.printf("for(%s,%s,", e.KeyVar, e.ValVar)
	for _, part := range []hclsyntax.Expression{e.CollExpr, e.KeyExpr, e.ValExpr, e.CondExpr} {
		if part != nil {
			c.native(part)
		}
		c.printf(",")
	}
	c.printf("%t)", e.Group)
}

func (c *canonical) traversal(t hcl.Traversal) {
	for _, step := range t {
		switch step := step.(type) {
		case hcl.TraverseRoot:
			c.printf("%s", step.Name)
		case hcl.TraverseAttr:
			c.printf("[%s]", strconv.Quote(step.Name)) // a.b and a["b"] are the same
		case hcl.TraverseIndex:
			c.printf("[")
			c.value(step.Key)
			c.printf("]")
		default:
			c.printf("[*]")
		}
	}
}
