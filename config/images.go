package config

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"bake/config/lang"
	"bake/internal/lazyregexp"
)

// Instance is an image block of the bake files, or one of the images of a block with
// for_each. A template that is loaded for one has its variables, and no other image block.
// It is plain data except for Each.
type Instance struct {
	Image string           // label of the block; empty: builds without an image block
	Key   string           // of for_each; "" without it
	Known map[string]Built // images that it refers to, by their names

	Each cty.Value `json:"-"` // each.value; as [ReadImages] has it
}

// Name returns the name of the image.
func (i Instance) Name() string {
	if i.Key == "" {
		return i.Image
	}
	return i.Image + "/" + i.Key
}

// Address returns the reference to the image in bake files.
func (i Instance) Address() string {
	if i.Key == "" {
		return i.Image
	}
	return fmt.Sprintf("%s[%q]", i.Image, i.Key)
}

// Built is an existing image to which others can refer.
type Built struct {
	ID     string            // in the region of its build; empty if there is none
	IDs    map[string]string // by region
	Name   string
	Inputs string // the digest of its inputs
}

// ImageOf holds the location of an instance, and its references to others.
type ImageOf struct {
	Instance
	At    hcl.Range            // of its block
	Needs map[string]hcl.Range // locations of references to other images, by their names
}

// Images are the images of a template.
type Images struct {
	All   []ImageOf // each after the images that it refers to
	Apart bool      // each image must be loaded separately
	Files map[string]*hcl.File
}

// ReadImages reads the images of a template's bake files, without decoding them.
func ReadImages(ctx context.Context, o Options) (*Images, hcl.Diagnostics) {
	o.AllowUnset, o.Instance = true, &Instance{}
	l := newLoader(ctx, o)
	where, diags := l.reader.find(o.Path)
	if diags.HasErrors() || len(where.bakeFiles) == 0 {
		return &Images{}, nil // the error is reported when the template is loaded
	}
	l = newLoader(ctx, o)
	if diags := l.declarations(); diags.HasErrors() {
		return &Images{}, nil
	}
	g := &graph{l: l, blocks: map[string]*imageBlock{}}
	g.read()
	g.resolve()
	out := &Images{All: g.sorted(), Apart: g.apart, Files: l.t.Files()}
	return out, l.t.secrets.Diagnostics(g.diags)
}

// graph holds the images of a template and their references.
type graph struct {
	l      *loader
	blocks map[string]*imageBlock
	order  []*imageBlock
	apart  bool
	diags  hcl.Diagnostics
}

type imageBlock struct {
	*hclsyntax.Block
	instances []*ImageOf
	each      bool // it has for_each
	refs      []hcl.Traversal

	visiting, visited bool
}

func (g *graph) complain(at hcl.Range, summary, format string, args ...any) {
	g.diags = append(g.diags, problem(&at, summary, format, args...)...)
}

// read finds the image blocks and their instances.
func (g *graph) read() {
	for _, f := range g.l.t.BakeFiles {
		for _, b := range f.Body.Blocks {
			if b.Type != "image" || len(b.Labels) != 1 {
				continue
			}
			one := &imageBlock{Block: b}
			if g.blocks[b.Labels[0]] != nil {
				continue // decoding them reports the error
			}
			for _, ref := range lang.References(b.Body) {
				if ref.RootName() == "image" {
					one.refs = append(one.refs, ref)
				}
			}
			sort.Slice(one.refs, func(i, j int) bool {
				return one.refs[i].SourceRange().Start.Byte < one.refs[j].SourceRange().Start.Byte
			})
			g.blocks[b.Labels[0]] = one
			g.order = append(g.order, one)
			g.instances(one)
			g.apart = g.apart || one.each || len(one.refs) > 0
		}
	}
}

// keys matches the valid keys of for_each, which are part of names and tags.
var keys = lazyregexp.New(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// mostInstances limits the images of a block with for_each.
const mostInstances = 1000

func (g *graph) instances(b *imageBlock) {
	add := func(key string, each cty.Value) {
		b.instances = append(b.instances, &ImageOf{Instance: Instance{Image: b.Labels[0], Key: key, Each: each}, At: b.DefRange(), Needs: map[string]hcl.Range{}})
	}
	attr := b.Body.Attributes["for_each"]
	if attr == nil {
		add("", cty.NilVal)
		return
	}
	b.each = true
	at := attr.Expr.Range()
	val, diags := attr.Expr.Value(g.l.forEach())
	if g.diags = append(g.diags, g.l.t.Explain(diags)...); diags.HasErrors() {
		return
	}
	switch {
	case marked(val):
		g.complain(at, "Sensitive for_each", "The keys of for_each become names of images, which everybody can see, so that they cannot come of a sensitive value.")
	case !val.IsWhollyKnown():
		g.complain(at, "Unknown for_each", "The value of for_each must be known before anything is built. It can use variables that have a value, and functions, but no local values, data sources or images.")
	case val.IsNull(), !isObject(val) && !(val.Type().IsSetType() && val.Type().ElementType() == cty.String):
		g.complain(at, "Invalid for_each", "for_each must be a map, or a set of strings such as toset([\"debian\", \"ubuntu\"]), but it is %s.", friendly(val))
	case val.LengthInt() > mostInstances:
		g.complain(at, "Invalid for_each", "A block can define at most %d images; this one defines %d.", mostInstances, val.LengthInt())
	default:
		for it := val.ElementIterator(); it.Next(); {
			k, v := it.Element()
			if v.IsNull() && val.Type().IsSetType() || !keys.Get().MatchString(k.AsString()) {
				g.complain(at, "Invalid key", "%q cannot be a key of for_each, because it becomes part of the name of the image: it must start with a letter or digit and consist of letters, digits, dots, underscores and dashes.", lang.Show(k))
				continue
			}
			add(k.AsString(), v)
		}
	}
}

func friendly(v cty.Value) string {
	if v.IsNull() {
		return "null"
	}
	return v.Type().FriendlyName()
}

// marked reports whether some of a value is sensitive.
func marked(v cty.Value) bool { return v.ContainsMarked() }

// forEach returns the values that for_each can use.
func (l *loader) forEach() *hcl.EvalContext {
	vars := map[string]cty.Value{}
	for _, v := range l.t.Variables {
		vars[v.Name] = v.Value
		if v.Sensitive {
			vars[v.Name] = v.Value.Mark(lang.Sensitive)
		}
	}
	functions := lang.Functions(l.world(l.t.Root))
	maps.Copy(functions, imageFunctions())
	return &hcl.EvalContext{Functions: functions, Variables: map[string]cty.Value{"var": cty.ObjectVal(vars)}}
}

// imageFunctions returns the functions that image blocks have in addition to those of
// templates.
func imageFunctions() map[string]function.Function {
	return map[string]function.Function{"toset": stdlib.MakeToFunc(cty.Set(cty.DynamicPseudoType))}
}

// resolve finds the images that images refer to.
func (g *graph) resolve() {
	for _, b := range g.order {
		for _, ref := range b.refs {
			for _, name := range g.named(b, ref) {
				for _, i := range b.instances {
					i.Needs[name] = ref.SourceRange()
				}
			}
		}
	}
}

// outputs are the attributes of an image.
var outputs = []string{"id", "ids", "name"}

// named returns the names of the images that the reference ref in b denotes.
func (g *graph) named(b *imageBlock, ref hcl.Traversal) []string {
	at := ref.SourceRange()
	label, ok := traversed(ref, 1)
	if !ok {
		g.complain(at, "Invalid reference", "Name an image, as in image.NAME.id.")
		return nil
	}
	to := g.blocks[label]
	switch to {
	case nil:
		g.complain(at, "Unknown image", "There is no image %q.%s", label, lang.DidYouMean(label, slices.Sorted(maps.Keys(g.blocks))))
		return nil
	case b:
		g.complain(at, "Circular reference", "The image %q refers to itself.", label)
		return nil
	}
	var all []string
	for _, i := range to.instances {
		all = append(all, i.Name())
	}
	rest := 2
	if to.each {
		key, ok := traversed(ref, 2)
		if rest = 3; len(ref) < 3 || !ok && !isIndex(ref[2]) {
			return all // of a key that is computed
		}
		if _, attr := ref[2].(hcl.TraverseAttr); attr && slices.Contains(outputs, key) || ok && !slices.Contains(all, label+"/"+key) {
			var known []string
			for _, i := range to.instances {
				known = append(known, i.Address())
			}
			g.complain(at, "No such image", "The image %q is made for each of several keys, and not for this one. There are: %s.", label, strings.Join(known, ", "))
			return nil
		}
		if ok {
			all = []string{label + "/" + key}
		}
	}
	if name, ok := traversed(ref, rest); ok && !slices.Contains(outputs, name) {
		g.complain(at, "Unsupported attribute", "An image has no %q.%s It has these: %s.", name, lang.DidYouMean(name, outputs), strings.Join(outputs, ", "))
	}
	return all
}

func isIndex(step hcl.Traverser) bool { _, ok := step.(hcl.TraverseIndex); return ok }

func traversed(ref hcl.Traversal, i int) (string, bool) {
	if i >= len(ref) {
		return "", false
	}
	switch step := ref[i].(type) {
	case hcl.TraverseAttr:
		return step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String {
			return step.Key.AsString(), true
		}
	}
	return "", false
}

// sorted returns the images, each after those that it refers to.
func (g *graph) sorted() (all []ImageOf) {
	var chain []string       // labels of the images that are being visited
	var refs []hcl.Traversal // the reference of each of them but the last to the next
	var visit func(b *imageBlock)
	visit = func(b *imageBlock) {
		if b.visited {
			return
		}
		b.visiting = true
		chain = append(chain, b.Labels[0])
		for _, ref := range b.refs {
			label, _ := traversed(ref, 1)
			to := g.blocks[label]
			switch {
			case to == nil || to == b: // already reported
			case to.visiting:
				n := slices.Index(chain, label)
				g.circular(chain[n:], append(slices.Clone(refs[n:]), ref))
			default:
				refs = append(refs, ref)
				visit(to)
				refs = refs[:len(refs)-1]
			}
		}
		chain = chain[:len(chain)-1]
		b.visiting, b.visited = false, true
		for _, i := range b.instances {
			all = append(all, *i)
		}
	}
	for _, b := range g.order {
		visit(b)
	}
	return all
}

// circular reports a cycle of images at each of its references.
func (g *graph) circular(labels []string, refs []hcl.Traversal) {
	for i, ref := range refs {
		path := append(slices.Concat(labels[i:], labels[:i]), labels[i])
		g.complain(ref.SourceRange(), "Circular reference", "The image %q depends on itself:\n  %s", labels[i], strings.Join(path, " -> "))
	}
}

// imageValues returns each.* and image.* for the image that the template is loaded for.
func (t *Template) imageValues() map[string]cty.Value {
	unknown := map[string]cty.Value{"image": cty.DynamicVal, "each": cty.DynamicVal}
	i := t.instance
	if i == nil {
		return unknown
	}
	values := map[string]cty.Value{"image": cty.DynamicVal}
	if i.Key != "" {
		value := i.Each
		if value == cty.NilVal {
			value = cty.DynamicVal
		}
		values["each"] = cty.ObjectVal(map[string]cty.Value{"key": cty.StringVal(i.Key), "value": value})
	}
	if i.Known == nil {
		return values
	}
	images := map[string]cty.Value{}
	groups := map[string]map[string]cty.Value{}
	for name, b := range i.Known {
		label, key, several := strings.Cut(name, "/")
		if !several {
			images[label] = b.value()
			continue
		}
		if groups[label] == nil {
			groups[label] = map[string]cty.Value{}
		}
		groups[label][key] = b.value()
	}
	for label, all := range groups {
		images[label] = cty.ObjectVal(all)
	}
	values["image"] = cty.ObjectVal(images)
	return values
}

func (b Built) value() cty.Value {
	ids := map[string]cty.Value{}
	for region, id := range b.IDs {
		ids[region] = cty.StringVal(id)
	}
	values := map[string]cty.Value{"id": cty.StringVal(b.ID), "name": cty.StringVal(b.Name), "ids": cty.MapValEmpty(cty.String)}
	if len(ids) > 0 {
		values["ids"] = cty.MapVal(ids)
	}
	return cty.ObjectVal(values)
}

// Instance returns the image that the template is loaded for; nil if it is loaded for all
// images.
func (t *Template) Instance() *Instance { return t.instance }

// For returns the template as if it were loaded for that image, but for its variables.
func (t *Template) For(i Instance) *Template {
	return &Template{
		Root: t.Root, Plugins: t.Plugins, Variables: t.Variables, Builds: t.Builds, Open: t.Open, BakeFiles: t.BakeFiles,
		files: t.files, secrets: t.secrets, scope: t.scope, cwd: t.cwd, instance: &i,
	}
}
