// Package schema decodes HCL bodies into plain Go structs and documents these structs.
//
// One struct is the only description of a component's options: its fields are
// the decode target, its tags name the arguments, its doc comments are the
// reference documentation, and its default value gives the defaults.
//
// A tag is `hcl:"name"` for a required argument, followed by any of these words,
// separated by commas:
//
//	optional  the argument may be absent; the field then keeps its default
//	block     a nested block: of type T or *T for at most one, []T for any number
//	deferred  the text holds {{ }} that the component renders itself, when it uses it
//	again     as deferred, but nothing in it may need values that come later: it must render now
//	secret    the value must never be shown
//
// A field of type [hcl.Expression] holds what was written, which is not evaluated here.
//
// An optional argument whose value is null, an empty text or 0 is not set: the
// field keeps its default, and no rule counts it as written. Templates pass the
// empty values of variables on to mean just that. An empty text is no duration,
// though, for Packer refuses that. A bool, a list and a map are
// always what was written, and so is whatever a pointer holds.
//
// Embedded structs contribute their fields as if they were written in place.
package schema

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/gocty"

	"bake/internal/lazyregexp"
	"bake/internal/prose"
)

// Input is the input for decoding a struct of options.
type Input struct {
	Body    hcl.Body
	Context *hcl.EvalContext

	// Render expands the {{ }} layer of a string, or only checks it if it is deferred. Nil
	// leaves strings unchanged.
	Render func(text string, deferred bool) (string, error)

	// Secret is called with every value that must not be shown. It may be nil.
	Secret func(string)

	// Reads is called with every file and directory of this host that determines what the
	// component does, as its options name it. It may be nil.
	Reads func(path string)

	// Build describes the build that the component is part of; zero for data sources.
	Build Build
}

// Reader is implemented by options that name files and directories of this host which
// determine what the component does. Options whose values are not known yet then have
// their defaults.
type Reader interface{ Reads() []string }

// Build is what a component knows about the build that it is part of.
type Build struct {
	Name, Type   string // of the source
	Force, Debug bool   // -force, -debug
	OnError      string // the value of -on-error
	Run          string // its id; empty while the template is only being checked

	Sensitive []string // names of the variables whose values must not be shown
}

// Source remembers where each field of a decoded struct was written.
// Fields are identified by their address, so naming one is type-checked
// and survives a rename.
type Source struct {
	fields  map[any]place // every field, with its body
	unknown map[any]bool
	failed  map[any]bool // an error in the field has been reported
	secret  func(string)
}

type place struct {
	name string
	rng  hcl.Range
	set  bool
}

// Range returns where the field at ptr was written, or the block that could
// have held it. It panics if ptr is not the address of a decoded field.
func (s *Source) Range(ptr any) *hcl.Range {
	p := s.place(ptr)
	return &p.rng
}

func (s *Source) place(ptr any) place {
	p, ok := s.fields[ptr]
	if !ok {
		panic(fmt.Sprintf("schema: %T is not the address of an option", ptr))
	}
	return p
}

// Name returns the argument's name in the template.
func (s *Source) Name(ptr any) string { return s.place(ptr).name }

// Set reports whether the template sets the field at ptr, other than to null or to the
// equivalent empty value.
func (s *Source) Set(ptr any) bool { return s.place(ptr).set }

// Known reports whether the field's value is known yet. Values that depend on
// a running machine are unknown while a template is only being checked. A value
// that is missing or wrong, which has been reported, is never known.
func (s *Source) Known(ptr any) bool { return !s.unknown[ptr] && !s.failed[ptr] }

// Secret registers a text that must not be shown, which a component has learned while it
// runs.
func (s *Source) Secret(text string) {
	if s.secret != nil && text != "" {
		s.secret(text)
	}
}

// Unknowns reports every value that is not known, for use when all values must be known.
func (s *Source) Unknowns() hcl.Diagnostics {
	var diags hcl.Diagnostics
	for ptr := range s.unknown {
		p := s.fields[ptr]
		diags = append(diags, &hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Value not known", Subject: &p.rng,
			Detail: fmt.Sprintf("The value of argument %q is needed here, but it depends on a value that is never known here.", p.name),
		})
	}
	sort.Slice(diags, func(i, j int) bool { return diags[i].Subject.Start.Byte < diags[j].Subject.Start.Byte })
	return diags
}

// Errorf returns an error that points to the field at ptr, for a component that finds at
// run time that the value is invalid.
func (s *Source) Errorf(ptr any, summary, format string, args ...any) error {
	return hcl.Diagnostics{{
		Severity: hcl.DiagError, Summary: summary,
		Detail: prose.Sprintf(format, args...), Subject: s.Range(ptr),
	}}
}

// Checker collects errors in decoded options.
type Checker struct {
	*Source
	Build Build
	Diags hcl.Diagnostics
}

// Missing reports that this computer lacks something that the field at ptr is about,
// which is an error only if it is about to be used.
func (c *Checker) Missing(ptr any, summary, format string, args ...any) {
	if c.Build.Run == "" {
		c.Warnf(ptr, summary, format, args...)
		return
	}
	c.Errorf(ptr, summary, format, args...)
}

// Errorf reports a problem with the field at ptr. It ignores a field whose value is not
// known yet.
func (c *Checker) Errorf(ptr any, summary, format string, args ...any) {
	c.add(hcl.DiagError, ptr, summary, format, args)
}

// Warnf is Errorf for a problem that does not stop the build.
func (c *Checker) Warnf(ptr any, summary, format string, args ...any) {
	c.add(hcl.DiagWarning, ptr, summary, format, args)
}

func (c *Checker) add(sev hcl.DiagnosticSeverity, ptr any, summary, format string, args []any) {
	if !c.Known(ptr) {
		return
	}
	c.Diags = c.Diags.Append(&hcl.Diagnostic{
		Severity: sev, Summary: summary,
		Detail: prose.Sprintf(format, args...), Subject: c.Range(ptr),
	})
}

// Validator is implemented by option structs with rules beyond types. It is
// called on the decoded struct and on each of its blocks, innermost first. Fields
// that could not be decoded have their defaults then, and are not known. Embedded
// structs are not visited: the struct that embeds them calls their rules.
type Validator interface{ Validate(*Checker) }

// Choices is implemented by enumerated option types.
type Choices interface{ Choices() []string }

type field struct {
	name                                              string
	optional, block, label, deferred, again, isSecret bool
	index                                             []int
	typ                                               reflect.Type
}

// fields returns the fields of a struct of options and of those that it embeds.
func fields(t reflect.Type) []field { return appendFields(make([]field, 0, countFields(t)), t, nil) }

// countFields returns the number of fields, or some more.
func countFields(t reflect.Type) (n int) {
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && f.Type.Kind() == reflect.Struct {
			n += countFields(f.Type)
		} else {
			n++
		}
	}
	return n
}

func appendFields(out []field, t reflect.Type, prefix []int) []field {
	for i := range t.NumField() {
		f := t.Field(i)
		idx := slices.Concat(prefix, []int{i})
		tag, ok := f.Tag.Lookup("hcl")
		if !ok {
			if f.Anonymous && f.Type.Kind() == reflect.Struct {
				out = appendFields(out, f.Type, idx)
			}
			continue
		}
		name, words, more := strings.Cut(tag, ",")
		fl := field{name: name, index: idx, typ: f.Type}
		for more {
			var w string
			w, words, more = strings.Cut(words, ",")
			switch w {
			case "optional":
				fl.optional = true
			case "block":
				fl.block = true
			case "label":
				fl.label, fl.optional = true, true
			case "deferred":
				fl.deferred = true
			case "again":
				fl.again = true
			case "secret":
				fl.isSecret = true
			default:
				panic(fmt.Sprintf("schema: %s.%s: unknown word %q in tag", t, f.Name, w))
			}
		}
		out = append(out, fl)
	}
	return out
}

// Decode fills dst, a pointer to a struct that holds defaults, and checks it.
// Arguments that the struct does not name are errors at the place they are
// written. dst must not move afterwards: the Source knows fields by address.
func Decode(in Input, dst any) (*Source, hcl.Diagnostics) {
	n := countFields(reflect.TypeOf(dst).Elem())
	d := &decoder{Input: in, src: &Source{fields: make(map[any]place, n), unknown: map[any]bool{}, failed: map[any]bool{}, secret: in.Secret}}
	d.body(in.Body, reflect.ValueOf(dst).Elem())
	c := &Checker{Source: d.src, Build: d.Build}
	for _, v := range append(d.blocks, dst) {
		if v, ok := v.(Validator); ok {
			v.Validate(c)
		}
	}
	for _, v := range append(d.blocks, dst) {
		if r, ok := v.(Reader); ok && in.Reads != nil {
			for _, path := range r.Reads() {
				if path != "" {
					in.Reads(path)
				}
			}
		}
	}
	return d.src, append(d.diags, c.Diags...)
}

type decoder struct {
	Input
	src    *Source
	blocks []any // pointers to decoded blocks, innermost first
	diags  hcl.Diagnostics
}

func (d *decoder) body(body hcl.Body, v reflect.Value) {
	fs := fields(v.Type())
	schema := &hcl.BodySchema{Attributes: make([]hcl.AttributeSchema, 0, len(fs))}
	for _, f := range fs {
		switch {
		case f.block:
			schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: f.name, LabelNames: labels(f.typ)})
		case !f.label:
			schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: f.name, Required: !f.optional})
		}
	}
	content, diags := body.Content(schema)
	var meant, misplaced map[string]bool
	if diags.HasErrors() {
		diags, meant = Misspelt(diags)
		misplaced = otherForm(body, fs)
	}
	d.diags = append(d.diags, diags...)
	missing := body.MissingItemRange()
	for _, f := range fs {
		fv := v.FieldByIndex(f.index)
		ptr := fv.Addr().Interface()
		d.src.fields[ptr] = place{name: f.name, rng: missing}
		attr, written := content.Attributes[f.name]
		switch {
		case f.label:
		case misplaced[f.name], meant[f.name] && !written && len(content.Blocks.OfType(f.name)) == 0:
			d.src.failed[ptr] = true
		case f.block:
			d.block(f, content.Blocks.OfType(f.name), fv)
		case written:
			d.attribute(f, attr, fv)
		case !f.optional:
			d.src.failed[ptr] = true
		}
	}
}

// suggested matches what the parser suggests for an unknown name.
var suggested = lazyregexp.New(`Did you mean "([^"]+)"\?`)

// Misspelt returns the names that were probably meant by the unknown ones in diags, and the
// diagnostics without those that follow from that: required arguments that are missing.
func Misspelt(diags hcl.Diagnostics) (hcl.Diagnostics, map[string]bool) {
	meant, follows := map[string]bool{}, map[string]bool{}
	for _, d := range diags {
		if m := suggested.Get().FindStringSubmatch(d.Detail); m != nil {
			meant[m[1]] = true
			follows[fmt.Sprintf("The argument %q is required, but no definition was found.", m[1])] = true
		}
	}
	return slices.DeleteFunc(diags, func(d *hcl.Diagnostic) bool { return follows[d.Detail] }), meant
}

// otherForm finds the blocks that were written as arguments, and the arguments
// that were written as blocks.
func otherForm(body hcl.Body, fs []field) map[string]bool {
	schema := &hcl.BodySchema{}
	for _, f := range fs {
		switch {
		case f.block:
			schema.Attributes = append(schema.Attributes, hcl.AttributeSchema{Name: f.name})
		case !f.label:
			schema.Blocks = append(schema.Blocks, hcl.BlockHeaderSchema{Type: f.name})
		}
	}
	content, _, _ := body.PartialContent(schema) // errors have been reported
	found := map[string]bool{}
	for name := range content.Attributes {
		found[name] = true
	}
	for _, b := range content.Blocks {
		found[b.Type] = true
	}
	return found
}

func (d *decoder) block(f field, blocks hcl.Blocks, fv reflect.Value) {
	if len(blocks) == 0 {
		return
	}
	ptr := fv.Addr().Interface()
	d.src.fields[ptr] = place{f.name, blocks[0].DefRange, true}
	switch f.typ.Kind() {
	case reflect.Slice:
		fv.Set(reflect.MakeSlice(f.typ, len(blocks), len(blocks)))
		for i, b := range blocks {
			ev := fv.Index(i)
			if raw, ok := ev.Addr().Interface().(*Block); ok {
				raw.Block = b
				continue
			}
			setDefaults(ev)
			d.body(b.Body, ev)
			d.label(b, ev)
			d.blocks = append(d.blocks, ev.Addr().Interface())
		}
		return
	case reflect.Pointer:
		if fv.IsNil() {
			fv.Set(reflect.New(f.typ.Elem()))
			setDefaults(fv.Elem())
		}
		fv = fv.Elem()
	}
	for _, b := range blocks[1:] {
		d.diags = d.diags.Append(&hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: "Duplicate block",
			Detail:  fmt.Sprintf("Only one %q block is allowed here; the first one is at %s.", f.name, blocks[0].DefRange),
			Subject: &b.DefRange,
		})
	}
	d.body(blocks[0].Body, fv)
	d.blocks = append(d.blocks, fv.Addr().Interface())
}

// Block is a block that is not decoded here: it has one label, and other code decodes its
// content.
type Block struct{ Block *hcl.Block }

// labels returns the names of the labels of a block, which is decoded as a t.
func labels(t reflect.Type) (names []string) {
	if t.Kind() == reflect.Slice || t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t == reflect.TypeFor[Block]() {
		return []string{"type"}
	}
	for _, f := range fields(t) {
		if f.label {
			names = append(names, f.name)
		}
	}
	return names
}

// label puts the labels of a block into its fields, which are strings.
func (d *decoder) label(b *hcl.Block, v reflect.Value) {
	n := 0
	for _, f := range fields(v.Type()) {
		if f.label {
			fv := v.FieldByIndex(f.index)
			fv.SetString(b.Labels[n])
			d.src.fields[fv.Addr().Interface()] = place{f.name, b.LabelRanges[n], true}
			n++
		}
	}
}

// Defaulter is implemented by blocks that have defaults.
type Defaulter interface{ SetDefaults() }

func setDefaults(v reflect.Value) {
	if d, ok := v.Addr().Interface().(Defaulter); ok {
		d.SetDefaults()
	}
}

func (d *decoder) attribute(f field, attr *hcl.Attribute, fv reflect.Value) {
	ptr := fv.Addr().Interface()
	rng := attr.Expr.Range()
	d.src.fields[ptr] = place{f.name, rng, true}
	if f.typ == expressionType {
		fv.Set(reflect.ValueOf(attr.Expr))
		return
	}
	val, diags := attr.Expr.Value(d.Context)
	d.diags = append(d.diags, diags...)
	if diags.HasErrors() {
		d.src.failed[ptr] = true
		return
	}
	complain := func(summary, format string, args ...any) {
		d.src.failed[ptr] = true
		d.diags = d.diags.Append(&hcl.Diagnostic{
			Severity: hcl.DiagError, Summary: summary, Detail: prose.Sprintf(format, args...),
			Subject: &rng, Expression: attr.Expr, EvalContext: d.Context,
		})
	}
	val, _ = val.UnmarkDeep()
	if val.IsNull() {
		d.src.fields[ptr] = place{f.name, rng, false}
		if !f.optional {
			complain("Missing required argument", "The argument %q is required, but its value is null.", f.name)
		}
		return
	}
	if path := nullWithin(val); path != "" && f.typ != ctyValueType {
		complain("Null value", "Argument %q: %s is null. Omit it or set a value.", f.name, path)
		return
	}
	if !val.IsWhollyKnown() {
		d.src.unknown[ptr] = true
		if err := assignable(val.Type(), fv); err != nil {
			complain("Unsuitable value type", "Argument %q: %s.", f.name, err)
		}
		return
	}
	val, err := d.render(val, f)
	if err != nil {
		complain("Invalid {{ }} template", "Argument %q: %s.", f.name, err)
		return
	}
	if _, ok := attr.Expr.(Loose); ok {
		val = listed(val, f.typ)
	}
	if val, err = convert.Convert(val, wanted(f.typ)); err != nil {
		complain("Invalid value", "Argument %q: %s.", f.name, err)
		return
	}
	if f.optional && isZero(val, f.typ) {
		d.src.fields[ptr] = place{f.name, rng, false}
		return
	}
	if err := set(val, fv); err != nil {
		complain("Invalid value", "Argument %q: %s.", f.name, err)
		return
	}
	if f.isSecret && d.Secret != nil {
		d.secrets(val)
	}
}

// secrets passes the strings in the value of a secret option to d.Secret.
func (d *decoder) secrets(val cty.Value) {
	_ = cty.Walk(val, func(_ cty.Path, v cty.Value) (bool, error) {
		if v.Type() == cty.String && !v.IsNull() && v.AsString() != "" {
			d.Secret(v.AsString())
		}
		return true, nil
	})
}

// Loose is an expression that is decoded leniently: a single element may replace a list of
// one element.
type Loose struct{ hcl.Expression }

// listed wraps val in a list if t is decoded from a list and val is not one.
func listed(val cty.Value, t reflect.Type) cty.Value {
	if ty := val.Type(); wanted(t).IsListType() && !ty.IsListType() && !ty.IsSetType() && !ty.IsTupleType() {
		return cty.TupleVal([]cty.Value{val})
	}
	return val
}

// isZero reports whether val, which t is decoded from, means that nothing is set.
func isZero(val cty.Value, t reflect.Type) bool {
	if t.Kind() == reflect.Pointer || t == ctyValueType {
		return false
	}
	switch val.Type() {
	case cty.String:
		if t == durationType {
			wait, err := parseDuration(val)
			return err == nil && wait == 0
		}
		return val.AsString() == ""
	case cty.Number:
		return val.RawEquals(cty.Zero)
	}
	return false
}

// nullWithin returns which element of val is null; empty if none is.
func nullWithin(val cty.Value) (name string) {
	_ = cty.Walk(val, func(path cty.Path, v cty.Value) (bool, error) {
		if !v.IsNull() {
			return name == "", nil
		}
		name = "an element"
		switch step := path[len(path)-1].(type) {
		case cty.GetAttrStep:
			name = fmt.Sprintf("%q", step.Name)
		case cty.IndexStep:
			switch {
			case step.Key.IsNull(): // the key of an element of a set is the element itself
			case step.Key.Type() == cty.String:
				name = fmt.Sprintf("%q", step.Key.AsString())
			case step.Key.Type() == cty.Number:
				name = fmt.Sprintf("the element with index %s", step.Key.AsBigFloat().Text('f', 0))
			}
		}
		return false, nil
	})
	return name
}

func parseDuration(val cty.Value) (time.Duration, error) {
	if val.AsString() == "" {
		return 0, errors.New(`"" is not a duration; leave the argument out, or set it to null, if it is not to be set`)
	}
	wait, err := time.ParseDuration(val.AsString())
	if err != nil {
		return 0, fmt.Errorf("%q is not a duration such as \"90s\" or \"5m\"", val.AsString())
	}
	return wait, nil
}

func (d *decoder) render(val cty.Value, f field) (cty.Value, error) {
	if d.Render == nil {
		return val, nil
	}
	return renderStrings(val, func(s string) (string, error) {
		if !strings.Contains(s, "{{") {
			return s, nil
		}
		text, err := d.Render(s, f.deferred)
		if f.again {
			text = s
		}
		return text, err
	})
}

// renderStrings applies f to every string in val, map keys included.
func renderStrings(val cty.Value, f func(string) (string, error)) (cty.Value, error) {
	ty := val.Type()
	switch {
	case val.IsNull():
		return val, nil
	case ty == cty.String:
		s, err := f(val.AsString())
		return cty.StringVal(s), err
	case ty.IsMapType() || ty.IsObjectType():
		out := map[string]cty.Value{}
		for k, v := range val.AsValueMap() {
			key, err := f(k)
			if err != nil {
				return val, err
			}
			if out[key], err = renderStrings(v, f); err != nil {
				return val, err
			}
		}
		if len(out) == 0 {
			return val, nil
		}
		if ty.IsMapType() {
			return cty.MapVal(out), nil
		}
		return cty.ObjectVal(out), nil
	case ty.IsListType() || ty.IsSetType() || ty.IsTupleType():
		var out []cty.Value
		for _, v := range val.AsValueSlice() {
			r, err := renderStrings(v, f)
			if err != nil {
				return val, err
			}
			out = append(out, r)
		}
		switch {
		case len(out) == 0:
			return val, nil
		case ty.IsListType():
			return cty.ListVal(out), nil
		case ty.IsSetType():
			return cty.SetVal(out), nil
		}
		return cty.TupleVal(out), nil
	}
	return val, nil
}

var (
	durationType   = reflect.TypeFor[time.Duration]()
	expressionType = reflect.TypeFor[hcl.Expression]()
	textType       = reflect.TypeFor[encoding.TextUnmarshaler]()
	ctyValueType   = reflect.TypeFor[cty.Value]()
)

// wanted returns the cty type from which a Go type is decoded.
func wanted(t reflect.Type) cty.Type {
	switch {
	case t == ctyValueType:
		return cty.DynamicPseudoType
	case t == durationType || reflect.PointerTo(t).Implements(textType):
		return cty.String
	}
	switch t.Kind() {
	case reflect.Pointer:
		return wanted(t.Elem())
	case reflect.Slice:
		return cty.List(wanted(t.Elem()))
	case reflect.Map:
		return cty.Map(wanted(t.Elem()))
	}
	ty, err := gocty.ImpliedType(reflect.Zero(t).Interface())
	if err != nil {
		panic(err) // a bug in the option struct, not in the template
	}
	return ty
}

func assignable(ty cty.Type, fv reflect.Value) error {
	want := wanted(fv.Type())
	if ty == cty.DynamicPseudoType || want == cty.DynamicPseudoType {
		return nil
	}
	if _, err := convert.Convert(cty.UnknownVal(ty), want); err != nil {
		return err
	}
	return nil
}

// set stores val, which has the type that is wanted, in fv.
func set(val cty.Value, fv reflect.Value) error {
	t := fv.Type()
	switch {
	case t == ctyValueType:
		fv.Set(reflect.ValueOf(val))
		return nil
	case t == durationType:
		wait, err := parseDuration(val)
		fv.SetInt(int64(wait))
		return err
	case reflect.PointerTo(t).Implements(textType):
		return fv.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(val.AsString()))
	}
	switch t.Kind() {
	case reflect.Pointer:
		fv.Set(reflect.New(t.Elem()))
		return set(val, fv.Elem())
	case reflect.Slice:
		elems := val.AsValueSlice()
		fv.Set(reflect.MakeSlice(t, len(elems), len(elems)))
		for i, e := range elems {
			if err := set(e, fv.Index(i)); err != nil {
				return err
			}
		}
		return nil
	case reflect.Map:
		fv.Set(reflect.MakeMap(t))
		for k, e := range val.AsValueMap() {
			ev := reflect.New(t.Elem()).Elem()
			if err := set(e, ev); err != nil {
				return err
			}
			fv.SetMapIndex(reflect.ValueOf(k), ev)
		}
		return nil
	}
	return gocty.FromCtyValue(val, fv.Addr().Interface())
}

// ParseChoice checks text against the choices of an enumerated option type. It
// is the body of such a type's UnmarshalText.
func ParseChoice[T ~string](dst *T, text []byte, choices []string) error {
	if !slices.Contains(choices, string(text)) {
		return fmt.Errorf("%q is not one of %s", text, quoted(choices))
	}
	*dst = T(text)
	return nil
}

func quoted(words []string) string {
	var q []string
	for _, w := range words {
		q = append(q, fmt.Sprintf("%q", w))
	}
	return strings.Join(q, ", ")
}
