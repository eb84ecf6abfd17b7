// Package inspect describes templates to people and to programs, without what is secret
// in them.
package inspect

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/zclconf/go-cty/cty"

	"bake/config"
	"bake/config/lang"
	"bake/engine"
)

// Of describes a template, and of its builds those that only and except leave, as
// [engine.Options] has them. The diagnostics are about these.
func Of(o *config.Outline, only, except []string) (Template, hcl.Diagnostics) {
	builds, diags := engine.Select(o.Template, engine.Options{Only: only, Except: except})
	if diags.HasErrors() {
		return Template{}, diags
	}
	var bakeFiles []string
	for _, f := range o.BakeFiles {
		bakeFiles = append(bakeFiles, f.Name)
	}
	return Template{
		BakeFiles: bakeFiles,
		Variables: ValuesOf(o, o.Variables),
		Locals:    ValuesOf(o, o.Locals),
		Data:      append([]string{}, o.Data...),
		Builds:    buildsOf(o.Blocks, builds),
	}, diags
}

// Template is what there is to know about a template without running it.
type Template struct {
	Variables []Value  `json:"variables"`
	Locals    []Value  `json:"locals"`
	Data      []string `json:"data_sources"`
	Builds    []Build  `json:"builds"`
	BakeFiles []string `json:"bake_files,omitempty"` // those beside the template
}

// Value is a value for people and for programs, without what is secret.
type Value struct {
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type"`
	Sensitive   bool   `json:"sensitive"` // some of it is secret: null in value
	Known       bool   `json:"known"`     // false if some of it is not known: null in value
	Value       any    `json:"value"`
	Text        string `json:"text"` // as it is shown to people
	simple      bool   // it is no collection
}

// Build is a build block.
type Build struct {
	Name           string   `json:"name"` // may be empty
	Description    string   `json:"description,omitempty"`
	Sources        []Step   `json:"sources"` // under their names in the build
	Provisioners   []Step   `json:"provisioners"`
	ErrorCleanup   *Step    `json:"error_cleanup_provisioner,omitempty"`
	PostProcessors [][]Step `json:"post_processors"` // chains
}

// Step is a component within a build.
type Step struct {
	Type string   `json:"type"`
	Name string   `json:"name"`   // may be empty
	For  []string `json:"builds"` // the full names of the builds that it is for
}

func (s Step) String() string {
	if s.Name == "" {
		return s.Type
	}
	return s.Type + "." + s.Name
}

// ValuesOf shows variables or local values.
func ValuesOf(o *config.Outline, values []config.Value) []Value {
	out := []Value{}
	for _, v := range values {
		shown := valueOf(o, v.Value)
		shown.Name, shown.Description = v.Name, v.Description
		out = append(out, shown)
	}
	return out
}

// valueOf shows a value of a template.
func valueOf(o *config.Outline, v cty.Value) Value {
	redact := o.Secrets().Redact
	plain, _ := v.UnmarkDeep()
	return Value{
		Type: typeexpr.TypeString(plain.Type()), Sensitive: v.ContainsMarked(), Known: plain.IsWhollyKnown(),
		Value: lang.Plain(v, redact), Text: redact(lang.Show(v)),
		simple: !plain.IsKnown() || plain.IsNull() || plain.Type().IsPrimitiveType() || v.IsMarked(),
	}
}

// buildsOf returns what is left of blocks when only selected builds are run.
func buildsOf(blocks []config.Block, selected []*config.Build) []Build {
	out := []Build{}
	for _, block := range blocks {
		mine := slices.DeleteFunc(slices.Clone(selected), func(s *config.Build) bool {
			return !slices.ContainsFunc(block.Builds, func(b *config.Build) bool { return b.Builder == s.Builder })
		})
		if len(mine) == 0 {
			continue
		}
		b := Build{
			Name: block.Name, Description: block.Description,
			Provisioners: []Step{}, PostProcessors: [][]Step{},
		}
		for _, s := range mine {
			b.Sources = append(b.Sources, Step{s.Type, s.Local, []string{s.Name}})
		}
		// users names the builds among mine that have the component of c's block.
		users := func(c *config.Component, of func(*config.Build) []*config.Component) (names []string) {
			for _, s := range mine {
				if slices.ContainsFunc(of(s), func(d *config.Component) bool { return d.Block() == c.Block() }) {
					names = append(names, s.Name)
				}
			}
			return names
		}
		for _, pr := range block.Provisioners {
			if names := users(pr.Component, provisionersOf); names != nil {
				b.Provisioners = append(b.Provisioners, Step{pr.Type, pr.Name, names})
			}
		}
		if pr := block.ErrorCleanup; pr != nil {
			if names := users(pr.Component, provisionersOf); names != nil {
				b.ErrorCleanup = &Step{pr.Type, pr.Name, names}
			}
		}
		for _, chain := range block.PostProcessors {
			var steps []Step
			for _, pp := range chain {
				if names := users(pp.Component, postProcessorsOf); names != nil {
					steps = append(steps, Step{pp.Type, pp.Name, names})
				}
			}
			if steps != nil {
				b.PostProcessors = append(b.PostProcessors, steps)
			}
		}
		out = append(out, b)
	}
	return out
}

func provisionersOf(b *config.Build) (all []*config.Component) {
	for _, p := range b.Provisioners {
		all = append(all, p.Component)
	}
	if b.ErrorCleanup != nil {
		all = append(all, b.ErrorCleanup.Component)
	}
	return all
}

func postProcessorsOf(b *config.Build) (all []*config.Component) {
	for _, chain := range b.PostProcessors {
		for _, p := range chain {
			all = append(all, p.Component)
		}
	}
	return all
}

// Write writes i in Packer's layout, and what Packer does not have after that.
func (i Template) Write(w io.Writer) {
	fmt.Fprint(w, "Packer Inspect: HCL2 mode\n\n")
	WriteValues(w, i.Variables, i.Locals)
	fmt.Fprint(w, "> builds:\n")
	for n, b := range i.Builds {
		name := b.Name
		if name == "" {
			name = fmt.Sprintf("<unnamed build %d>", n)
		}
		fmt.Fprintf(w, "\n  > %s:\n\n", name)
		if b.Description != "" {
			fmt.Fprintf(w, "  > Description: %s\n\n", b.Description)
		}
		writeSteps(w, "sources", b.Sources)
		writeSteps(w, "provisioners", b.Provisioners)
		if b.ErrorCleanup != nil {
			writeSteps(w, "error-cleanup-provisioner", []Step{*b.ErrorCleanup})
		}
		fmt.Fprint(w, "    post-processors:\n\n")
		if len(b.PostProcessors) == 0 {
			fmt.Fprint(w, "      <no post-processor>\n")
		}
		for j, chain := range b.PostProcessors {
			if j > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "      %d:\n", j)
			for _, s := range chain {
				fmt.Fprintf(w, "        %s\n", s)
			}
		}
	}
	if len(i.BakeFiles) > 0 {
		fmt.Fprint(w, "\n> bake files:\n\n")
	}
	for _, name := range i.BakeFiles {
		fmt.Fprintf(w, "  %s\n", name)
	}
}

func writeSteps(w io.Writer, title string, steps []Step) {
	fmt.Fprintf(w, "    %s:\n\n", title)
	if len(steps) == 0 {
		fmt.Fprintf(w, "      <no %s>\n", strings.TrimSuffix(title, "s"))
	}
	for _, s := range steps {
		fmt.Fprintf(w, "      %s\n", s)
	}
	fmt.Fprintln(w)
}

// WriteValues lists variables and local values.
func WriteValues(w io.Writer, variables, locals []Value) {
	section := func(title, prefix string, values []Value) {
		fmt.Fprintf(w, "> %s:\n\n", title)
		for _, v := range values {
			fmt.Fprintf(w, "%s.%s: %s\n", prefix, v.Name, v.line())
		}
		if len(values) > 0 {
			fmt.Fprintln(w)
		}
	}
	section("input-variables", "var", variables)
	section("local-variables", "local", locals)
}

// line quotes what has one line; a collection is easier to read as it is.
func (v Value) line() string {
	if v.simple {
		return strconv.Quote(v.Text)
	}
	return v.Text
}
