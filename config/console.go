package config

import (
	"context"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/config/lang"
	"bake/internal/limits"
	"bake/internal/prose"
)

// consoleName is the file that diagnostics about evaluated expressions point at.
const consoleName = "<console>"

// Limits of expressions that are typed in: without them, evaluation could take
// unlimited memory and time.
const (
	maxLength = 64 << 10 // bytes
	maxDepth  = 200      // of brackets
)

// Evaluate evaluates an expression. It may refer to everything that a local value may refer
// to, except data sources, which have not been read. The diagnostics hold no secrets; a
// value that does is marked with [lang.Sensitive]. The error means that the expression
// exceeds the limits: its evaluation may still be running, so the program should exit.
func (out *Outline) Evaluate(ctx context.Context, text string) (cty.Value, hcl.Diagnostics, error) {
	var val cty.Value
	var diags hcl.Diagnostics
	if err := limits.Run(ctx, func() { val, diags = out.evaluate(ctx, text) }); err != nil {
		return cty.DynamicVal, nil, err
	}
	return val, out.secrets.Diagnostics(diags), nil
}

func (out *Outline) evaluate(ctx context.Context, text string) (cty.Value, hcl.Diagnostics) {
	out.console.Bytes = []byte(text)
	if diags := excessive(text); diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), consoleName, hcl.InitialPos)
	if diags.HasErrors() {
		if strings.HasPrefix(strings.TrimSpace(text), "{{") {
			return cty.DynamicVal, problem(diags[0].Subject, "Invalid expression",
				"{{ }} calls of legacy JSON templates are not supported here. Write an expression as in an HCL template, such as var.name or upper(\"x\").")
		}
		return cty.DynamicVal, diags
	}
	refs := expr.Variables()
	for _, ref := range refs {
		if why := absentInConsole[ref.RootName()]; why != "" {
			rng := ref.SourceRange()
			diags = append(diags, problem(&rng, "Not available in the console", "%s", why)...)
		}
	}
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	ec, diags := out.scope.Context(ctx, refs)
	if diags.HasErrors() {
		return cty.DynamicVal, diags
	}
	val, more := expr.Value(ec)
	return val, append(diags, out.Explain(more)...)
}

// absentInConsole explains why an expression has no access to a value.
var absentInConsole = map[string]string{
	"data":   "Data sources are not read here, so that looking at a template changes nothing and needs no account. bake validate -evaluate-datasources reads them.",
	"build":  "The values of build exist only while a build runs.",
	"source": "The values of source exist only within the blocks of a source or a build.",
}

// excessive reports how an expression exceeds the limits.
func excessive(text string) hcl.Diagnostics {
	if len(text) > maxLength {
		return problem(nil, "Expression too long", "An expression can have at most %d bytes here.", maxLength)
	}
	tokens, _ := hclsyntax.LexExpression([]byte(text), consoleName, hcl.InitialPos)
	depth := 0
	for _, t := range tokens {
		if depth += nesting(t); depth > maxDepth {
			return problem(&t.Range, "Expression too deep", "More than %d brackets are open here.", maxDepth)
		}
		if t.Type == hclsyntax.TokenNumberLit {
			if err := limits.Literal(t.Bytes); err != nil {
				return problem(&t.Range, "Number out of range", "%s.", prose.Capital(err.Error()))
			}
		}
	}
	return nil
}

// Incomplete reports whether text ends within brackets, so that the expression continues
// on the next line.
func Incomplete(text string) bool {
	if len(text) > maxLength {
		return false
	}
	tokens, _ := hclsyntax.LexExpression([]byte(text), consoleName, hcl.InitialPos)
	depth := 0
	for _, t := range tokens {
		depth += nesting(t)
	}
	return depth > 0
}

// nesting returns how many levels deeper the text after t is.
func nesting(t hclsyntax.Token) int {
	switch t.Type {
	case hclsyntax.TokenOParen, hclsyntax.TokenOBrack, hclsyntax.TokenOBrace, hclsyntax.TokenOHeredoc,
		hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl:
		return 1
	case hclsyntax.TokenCParen, hclsyntax.TokenCBrack, hclsyntax.TokenCBrace, hclsyntax.TokenCHeredoc, hclsyntax.TokenTemplateSeqEnd:
		return -1
	}
	return 0
}

// Words lists the words that an expression may begin with: the functions, each with its
// opening bracket, and the names of values.
func (out *Outline) Words() []string {
	words := []string{"path.root", "path.cwd", "packer.version"}
	for name := range lang.Functions(lang.World{}) {
		words = append(words, name+"(")
	}
	for _, v := range out.Variables {
		words = append(words, fmt.Sprintf("var.%s", v.Name))
	}
	for _, v := range out.Locals {
		words = append(words, fmt.Sprintf("local.%s", v.Name))
	}
	return words
}
