package inspect

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"bake/config"
	"bake/config/lang"
	"bake/engine"
	"bake/inspect/graph"
)

// Picture is a template as a graph: data sources, sources, builds with their provisioners
// and post-processors, and the images of bake files.
type Picture struct {
	graph graph.Graph
	trees []graph.Tree

	o    *config.Outline
	data map[string]int // address of a data source -> its box
	ends map[string]int // full name of a build -> the last box before its image
}

// Draw draws what inspected, which is of o, has left of a template, and the images of its
// bake files that are made of that.
func Draw(ctx context.Context, o *config.Outline, inspected Template, images []config.ImageOf) *Picture {
	p := &Picture{o: o, data: map[string]int{}, ends: map[string]int{}}
	var data graph.Tree
	for _, address := range inspected.Data {
		name := strings.TrimPrefix(address, "data.")
		p.data[address] = p.graph.Add("data", p.shown(name))
		data.Below = append(data.Below, graph.Tree{Text: p.shown(name)})
	}
	if data.Text = "data sources"; len(data.Below) > 0 {
		p.trees = append(p.trees, data)
	}
	for i, b := range inspected.Builds {
		name := b.Name
		if name == "" {
			name = fmt.Sprintf("<unnamed build %d>", i)
		}
		p.build(p.shown(name), b)
	}
	p.images(ctx, images)
	return p
}

// Text writes the picture as trees.
func (p *Picture) Text(w io.Writer) {
	for i, t := range p.trees {
		if i > 0 {
			fmt.Fprintln(w)
		}
		t.Write(w)
	}
}

// SVG writes the picture as an SVG document with that title.
func (p *Picture) SVG(w io.Writer, title string) error { return p.graph.SVG(w, title) }

func (p *Picture) shown(s string) string { return p.o.Secrets().Redact(s) }

// needs names the data sources that a component refers to, and returns their boxes.
func (p *Picture) needs(c *config.Component) (text string, boxes []int) {
	var names []string
	for _, address := range c.Data() {
		if box, ok := p.data[address]; ok {
			names, boxes = append(names, p.shown(address)), append(boxes, box)
		}
	}
	if names != nil {
		text = " ← " + strings.Join(names, ", ")
	}
	return text, boxes
}

func (p *Picture) build(name string, b Build) {
	tree := graph.Tree{Text: "build " + name}
	var sources []int
	for _, s := range b.Sources {
		text, from := "", []int(nil)
		for _, built := range p.o.Builds {
			if p.o.Secrets().RedactMessage(built.Name) == s.For[0] {
				text, from = p.needs(built.Builder)
			}
		}
		sources = append(sources, p.graph.Add("source", p.shown(s.String()), from...))
		tree.Below = append(tree.Below, graph.Tree{Text: "source " + p.shown(s.String()) + text})
	}
	end := p.graph.Add("build", name, sources...)
	steps := func(kind string, all ...Step) {
		for _, s := range all {
			label := p.shown(s.String())
			if len(s.For) < len(b.Sources) {
				label += " (only " + p.shown(strings.Join(s.For, ", ")) + ")"
			}
			tree.Below = append(tree.Below, graph.Tree{Text: kind + " " + label})
			if kind == "provisioner" {
				end = p.graph.Add(kind, label, end)
			} else {
				p.graph.Add(kind, label, end)
			}
		}
	}
	begin := end
	steps("provisioner", b.Provisioners...)
	for _, chain := range b.PostProcessors {
		last := end
		at := &tree.Below
		for _, s := range chain {
			last = p.graph.Add("post-processor", p.shown(s.String()), last)
			*at = append(*at, graph.Tree{Text: "post-processor " + p.shown(s.String())})
			at = &(*at)[len(*at)-1].Below
		}
	}
	if b.ErrorCleanup != nil {
		last := end
		end = begin
		steps("error-cleanup-provisioner", *b.ErrorCleanup)
		end = last
	}
	for _, s := range b.Sources {
		p.ends[s.For[0]] = end
	}
	p.trees = append(p.trees, tree)
}

// images draws the images after what they are made of. Each comes after those that it
// refers to.
func (p *Picture) images(ctx context.Context, images []config.ImageOf) {
	boxes := map[string]int{}
	for _, i := range images {
		body := p.block(i.Image)
		if body == nil {
			continue
		}
		tree := graph.Tree{Text: "image " + i.Name()}
		add := func(text string) { tree.Below = append(tree.Below, graph.Tree{Text: text}) }
		t := p.o.For(i.Instance)
		from := map[int]bool{}
		for _, name := range p.made(ctx, t, body) {
			from[p.ends[name]] = true
			add("build " + p.shown(name))
		}
		if len(from) == 0 {
			continue // -only and -except leave nothing that makes it
		}
		var needs []string
		for name := range i.Needs {
			needs = append(needs, name)
		}
		sort.Strings(needs)
		for _, name := range needs {
			if box, ok := boxes[name]; ok {
				from[box] = true
			}
			add("needs image " + name)
		}
		var sorted []int
		for box := range from {
			sorted = append(sorted, box)
		}
		sort.Ints(sorted)
		image := p.graph.Add("image", i.Name(), sorted...)
		boxes[i.Name()] = image
		p.distribution(ctx, t, body, image, add)
		tree.Below = append(tree.Below, p.channels(ctx, t, body, image)...)
		p.trees = append(p.trees, tree)
	}
}

// block is the block of an image.
func (p *Picture) block(label string) *hclsyntax.Body {
	for _, f := range p.o.BakeFiles {
		for _, b := range f.Body.Blocks {
			if b.Type == "image" && len(b.Labels) == 1 && b.Labels[0] == label {
				return b.Body
			}
		}
	}
	return nil
}

// made are the full names of the builds that make an image, of those that are drawn.
func (p *Picture) made(ctx context.Context, t *config.Template, body *hclsyntax.Body) (names []string) {
	block := p.words(ctx, t, body, "build")
	sources := p.words(ctx, t, body, "sources")
	var chosen []*config.Build
	if len(sources) > 0 {
		chosen, _ = engine.Select(t, engine.Options{Only: sources}) // validate says what is wrong with them
	}
	for _, b := range t.Builds {
		name := p.o.Secrets().RedactMessage(b.Name) // as those that are selected are called
		selected := slices.ContainsFunc(chosen, func(c *config.Build) bool { return c.Builder == b.Builder })
		if _, drawn := p.ends[name]; drawn && (selected || b.Block != "" && slices.Contains(block, b.Block)) {
			names = append(names, name)
		}
	}
	return names
}

// distribution draws the regions and accounts that an image goes to.
func (p *Picture) distribution(ctx context.Context, t *config.Template, body *hclsyntax.Body, image int, add func(string)) {
	for _, b := range body.Blocks {
		if b.Type != "distribute" {
			continue
		}
		for _, what := range []struct{ attr, kind string }{{"regions", "region"}, {"accounts", "account"}} {
			for _, name := range p.words(ctx, t, b.Body, what.attr) {
				p.graph.Add(what.kind, name, image)
				add(what.kind + " " + name)
			}
		}
	}
}

// channels draws the channels of an image, each after the one that it follows.
func (p *Picture) channels(ctx context.Context, t *config.Template, body *hclsyntax.Body, image int) (trees []graph.Tree) {
	boxes := map[string]int{}
	for _, b := range body.Blocks {
		if b.Type != "channel" || len(b.Labels) != 1 {
			continue
		}
		from, text := image, "channel "+b.Labels[0]
		for _, name := range p.words(ctx, t, b.Body, "from") {
			if box, ok := boxes[name]; ok {
				from = box
			}
			text += " ← " + name
		}
		boxes[b.Labels[0]] = p.graph.Add("channel", b.Labels[0], from)
		trees = append(trees, graph.Tree{Text: text})
	}
	return trees
}

// words are the texts of an argument that is one or a list of them. What is not known, or
// secret, is said to be.
func (p *Picture) words(ctx context.Context, t *config.Template, body *hclsyntax.Body, name string) []string {
	attr := body.Attributes[name]
	if attr == nil {
		return nil
	}
	in, _ := t.Input(ctx, &hclsyntax.Body{Attributes: hclsyntax.Attributes{name: attr}})
	val, diags := attr.Expr.Value(in.Context)
	switch {
	case diags.HasErrors(), !val.IsKnown():
		return []string{"<unknown>"}
	case val.ContainsMarked():
		return []string{"<sensitive>"}
	case val.IsNull():
		return nil
	case !val.CanIterateElements():
		return []string{p.shown(lang.Show(val))}
	}
	var all []string
	for it := val.ElementIterator(); it.Next(); {
		if _, v := it.Element(); v.Type() == cty.String && v.IsKnown() && !v.IsNull() {
			all = append(all, p.shown(v.AsString()))
		} else {
			all = append(all, p.shown(lang.Show(v)))
		}
	}
	return all
}
