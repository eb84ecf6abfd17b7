package config

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"bake/config/lang"
	"bake/config/schema"
	"bake/internal/constant"
	"bake/internal/hostpath"
	"bake/internal/limits"
	"bake/internal/redact"
)

// Variable is a declared input of a template.
type Variable struct {
	Name        string
	Description string
	Sensitive   bool
	Type        cty.Type // cty.DynamicPseudoType if any will do
	Range       hcl.Range

	Value cty.Value // cty.NilVal as long as there is none
	From  hcl.Range // where Value was written

	defaults    *typeexpr.Defaults // of optional attributes in Type; nil if there are none
	validations []validation

	unset  bool // nothing has given it a value
	failed bool // its value may be wrong or missing only because of a mistake that is reported

	refused []hcl.Range // where values were written that could not be read or do not fit
}

// validation is a rule that the value of a variable must meet.
type validation struct {
	condition hcl.Expression
	message   string
}

var variableSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{
		{Name: "type"}, {Name: "default"}, {Name: "description"}, {Name: "sensitive"},
	},
	Blocks: []hcl.BlockHeaderSchema{{Type: "validation"}},
}

// variableBlock decodes a variable block. ec is the context of its default value.
func variableBlock(block *hcl.Block, ec *hcl.EvalContext) (*Variable, hcl.Diagnostics) {
	v := &Variable{Name: block.Labels[0], Type: cty.DynamicPseudoType, Range: block.DefRange}
	diags := checkName(v.Name, block.LabelRanges[0])
	content, more := block.Body.Content(variableSchema)
	diags = append(diags, more...)
	if attr, ok := content.Attributes["type"]; ok {
		v.Type, v.defaults, more = typeexpr.TypeConstraintWithDefaults(attr.Expr)
		diags = append(diags, more...)
		if more.HasErrors() {
			v.Type = cty.DynamicPseudoType
		}
	}
	if attr, ok := content.Attributes["description"]; ok {
		v.Description, more = constant.String(attr.Expr)
		diags = append(diags, more...)
	}
	if attr, ok := content.Attributes["sensitive"]; ok {
		v.Sensitive, more = constant.Bool(attr.Expr)
		diags = append(diags, more...)
	}
	if attr, ok := content.Attributes["default"]; ok {
		_, typed := content.Attributes["type"]
		diags = append(diags, v.setDefault(attr, ec, typed)...)
	}
	v.failed = diags.HasErrors()
	for _, b := range content.Blocks {
		rule, more := validationBlock(b, v.Name)
		diags = append(diags, more...)
		if !more.HasErrors() {
			v.validations = append(v.validations, rule)
		}
	}
	return v, diags
}

// setDefault gives v its default value, and the default's type if v has none.
func (v *Variable) setDefault(attr *hcl.Attribute, ec *hcl.EvalContext, typed bool) hcl.Diagnostics {
	if refs := attr.Expr.Variables(); len(refs) > 0 {
		v.refuse(attr.Expr.Range())
		rng := refs[0].SourceRange()
		return problem(&rng, "Default is not constant",
			"The default of a variable cannot refer to other values. Use a local value for what has to be computed.")
	}
	val, diags := attr.Expr.Value(ec)
	if diags.HasErrors() {
		v.refuse(attr.Expr.Range())
		return diags
	}
	if !typed {
		v.Type = val.Type()
		if v.Type.Equals(cty.EmptyObject) || v.Type.Equals(cty.EmptyTuple) {
			v.Type = cty.DynamicPseudoType // {} and [] do not determine the element type
		}
	}
	return append(diags, v.set(val, attr.Expr.Range())...)
}

var validationSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "condition", Required: true}, {Name: "error_message", Required: true}},
}

func validationBlock(block *hcl.Block, variable string) (validation, hcl.Diagnostics) {
	var rule validation
	content, diags := block.Body.Content(validationSchema)
	diags, _ = schema.Misspelt(diags)
	if attr, ok := content.Attributes["condition"]; ok {
		rule.condition = attr.Expr
		diags = append(diags, checkCondition(attr.Expr, variable)...)
	}
	if attr, ok := content.Attributes["error_message"]; ok {
		message, more := constant.String(attr.Expr)
		diags = append(diags, more...)
		rule.message = strings.TrimSpace(message) // a heredoc ends in a new line
		if rng := attr.Expr.Range(); !more.HasErrors() && !isSentence(rule.message) {
			diags = append(diags, problem(&rng, "Invalid validation message",
				"The message must be one or more whole sentences: start with an upper-case letter and end with a period, question mark or exclamation mark.")...)
		}
	}
	return rule, diags
}

// checkCondition checks that a condition refers to its variable and to no other value.
func checkCondition(expr hcl.Expression, variable string) hcl.Diagnostics {
	rng := expr.Range()
	found := false
	for _, ref := range expr.Variables() {
		name := ""
		if len(ref) > 1 && ref.RootName() == "var" {
			if attr, ok := ref[1].(hcl.TraverseAttr); ok {
				name = attr.Name
			}
		}
		if name != variable {
			rng := ref.SourceRange()
			return problem(&rng, "Invalid validation condition", "The condition can refer only to var.%s.", variable)
		}
		found = true
	}
	if !found {
		return problem(&rng, "Invalid validation condition", "The condition must refer to var.%s; otherwise it would have the same result for every value.", variable)
	}
	return nil
}

func isSentence(s string) bool {
	first, _ := utf8.DecodeRuneInString(s)
	last, _ := utf8.DecodeLastRuneInString(s)
	return s != "" && (!unicode.IsLetter(first) || unicode.IsUpper(first)) && strings.ContainsRune(".?!", last)
}

// set converts val to the variable's type and makes it its value.
func (v *Variable) set(val cty.Value, from hcl.Range) hcl.Diagnostics {
	if v.defaults != nil && !val.IsNull() {
		val = v.defaults.Apply(val)
	}
	converted, err := convert.Convert(val, v.Type)
	if err != nil {
		v.refuse(from)
		return problem(&from, "Invalid value for variable", "The value of variable %q does not fit its type %s: %s.",
			v.Name, typeexpr.TypeString(v.Type), err)
	}
	if err := outOfRange(converted); err != nil {
		v.refuse(from)
		return problem(&from, "Invalid value for variable", "The value of variable %q is out of range: %s.", v.Name, err)
	}
	v.Value, v.From = converted, from
	return nil
}

// outOfRange returns an error if [limits.Number] refuses a number in val. A number may come from a
// text.
func outOfRange(val cty.Value) error {
	return cty.Walk(val, func(_ cty.Path, v cty.Value) (bool, error) {
		if v, _ = v.Unmark(); v.Type() != cty.Number || v.IsNull() || !v.IsKnown() {
			return true, nil
		}
		return false, limits.Number(v.AsBigFloat())
	})
}

// refuse records that the text at rng is not a valid value for v.
func (v *Variable) refuse(rng hcl.Range) {
	v.failed = true
	v.refused = append(v.refused, rng)
}

// setText parses a value that came as text, from the environment or the command
// line, and makes it the value of v. source names it in diagnostics.
func (in *inputs) setText(v *Variable, text, source string) hcl.Diagnostics {
	if v.Sensitive { // even if it turns out to be unusable
		in.secrets.Add(text)
	}
	in.reader.files[source] = &hcl.File{Bytes: []byte(text)}
	in.reader.log.Debug("variable set", "name", v.Name, "by", source)
	whole := hcl.Range{Filename: source, Start: hcl.InitialPos, End: endOf(text)}
	if v.Type == cty.String || v.Type == cty.Number || v.Type == cty.DynamicPseudoType {
		return v.set(cty.StringVal(text), whole)
	}
	if err := limits.Source([]byte(text), limits.HCL); err != nil {
		v.failed = true
		return problem(placeOf(err, source), "Invalid value for variable", "The value of variable %q cannot be read: %s.", v.Name, err)
	}
	expr, diags := hclsyntax.ParseExpression([]byte(text), source, hcl.InitialPos)
	if diags.HasErrors() {
		v.failed = true
		return diags
	}
	val, diags := expr.Value(nil)
	if diags.HasErrors() {
		v.failed = true
		if hclsyntax.ValidIdentifier(strings.TrimSpace(text)) {
			return problem(&whole, "Invalid value for variable",
				"The value of variable %q, of type %s, is written as an expression: strings in it need quotes.",
				v.Name, typeexpr.TypeString(v.Type))
		}
		return diags
	}
	return v.set(val, whole)
}

func endOf(text string) hcl.Pos {
	lines := strings.Split(text, "\n")
	last := lines[len(lines)-1]
	return hcl.Pos{Line: len(lines), Column: utf8.RuneCountInString(last) + 1, Byte: len(text)}
}

// validate checks the value against every rule.
func (v *Variable) validate(funcs map[string]function.Function) hcl.Diagnostics {
	ec := &hcl.EvalContext{
		Functions: funcs,
		Variables: map[string]cty.Value{"var": cty.ObjectVal(map[string]cty.Value{v.Name: v.Value})},
	}
	var diags hcl.Diagnostics
	for _, rule := range v.validations {
		rng := rule.condition.Range()
		val, more := rule.condition.Value(ec)
		diags = append(diags, more...)
		if more.HasErrors() {
			continue
		}
		val, _ = val.Unmark()
		val, err := convert.Convert(val, cty.Bool)
		switch {
		case err != nil:
			diags = append(diags, problem(&rng, "Invalid validation result", "The condition must be true or false: %s.", err)...)
		case val.IsNull():
			diags = append(diags, problem(&rng, "Invalid validation result", "The condition must be true or false, not null.")...)
		case !val.IsKnown(), val.True():
		default:
			diags = append(diags, problem(&v.From, "Invalid value for variable", "%s\n\nThis was checked by the validation rule of variable %q at %s.", rule.message, v.Name, rng)...)
		}
	}
	return diags
}

// inputs are the variables of a template while values are being collected.
type inputs struct {
	byName  map[string]*Variable
	reader  *reader
	secrets *redact.Set
}

// names lists the declared variables, in order.
func (in *inputs) names() []string { return slices.Sorted(maps.Keys(in.byName)) }

// fromEnv reads PKR_VAR_name=value. It ignores undeclared variables, since the environment
// may be for another template.
func (in *inputs) fromEnv(env []string) (diags hcl.Diagnostics) {
	for _, entry := range env {
		key, value, _ := strings.Cut(entry, "=")
		name, ok := strings.CutPrefix(key, "PKR_VAR_")
		if v := in.byName[name]; ok && v != nil {
			diags = append(diags, in.setText(v, value, "environment variable "+key)...)
		}
	}
	return diags
}

// fromFile reads the attributes of a variable file, or of what a command writes into a pipe of
// this process, in either syntax. If warn is set, it warns of values for
// undeclared variables.
func (in *inputs) fromFile(name string, warn bool) hcl.Diagnostics {
	if ext := filepath.Ext(name); ext != ".hcl" && ext != ".json" && !hostpath.OfProcess(name) {
		return problem(nil, "Unknown format of variable file", "%s ends neither in .hcl nor in .json, so its format is unknown.", name)
	}
	f, diags := in.reader.parse(name)
	if diags.HasErrors() {
		return diags
	}
	if native, ok := f.Body.(*hclsyntax.Body); ok {
		for _, b := range native.Blocks {
			if b.Type == "variable" && len(b.Labels) > 0 {
				return problem(b.DefRange().Ptr(), "Variable declared in a variable file",
					"A variable file gives values: write %s = ... here, and declare the variable in a .pkr.hcl file.", b.Labels[0])
			}
		}
	}
	attrs, more := f.Body.JustAttributes()
	diags = append(diags, more...)
	for _, attr := range inOrder(attrs) {
		v := in.byName[attr.Name]
		if v == nil {
			if warn {
				diags = append(diags, warning(&attr.NameRange, "Undeclared variable",
					"No variable %q is declared, so this value is not used.%s", attr.Name, lang.DidYouMean(attr.Name, in.names()))...)
			}
			continue
		}
		val, more := attr.Expr.Value(nil)
		diags = append(diags, more...)
		if more.HasErrors() {
			v.refuse(attr.Expr.Range())
			continue
		}
		diags = append(diags, v.set(val, attr.Expr.Range())...)
	}
	return diags
}

// fromArgument takes name=value from the command line.
func (in *inputs) fromArgument(arg string) hcl.Diagnostics {
	name, value, ok := strings.Cut(arg, "=")
	if !ok {
		return problem(nil, "Invalid -var argument", "%q must have the form name=value.", arg)
	}
	v := in.byName[name]
	if v == nil {
		return problem(nil, "Undeclared variable", "-var sets %q, but the template declares no such variable.%s",
			name, lang.DidYouMean(name, in.names()))
	}
	return in.setText(v, value, "argument -var "+name)
}

// checkName checks that expressions can refer to the name.
func checkName(name string, at hcl.Range) hcl.Diagnostics {
	if hclsyntax.ValidIdentifier(name) {
		return nil
	}
	return problem(&at, "Invalid name", "%q must start with a letter or underscore and consist of letters, digits, underscores and dashes.", name)
}
