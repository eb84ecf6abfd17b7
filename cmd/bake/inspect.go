package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/spf13/cobra"
	"github.com/zclconf/go-cty/cty"

	"bake/config"
	"bake/config/lang"
	"bake/engine"
)

// inspectOptions are the flags of bake inspect.
type inspectOptions struct {
	templateFlags
	path string
}

func (p *program) inspectCommand() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:   "inspect TEMPLATE",
		Short: "Show the variables, local values and builds of a template",
		Long: `Show a template's variables and local values, and for each build its sources, its
provisioners in order, and its chains of post-processors. Nothing is run, and data
sources are not read: values that depend on them are shown as <unknown>, as are
variables without a value. Sensitive values are shown as <sensitive>.`,
		Example: `  bake inspect template.pkr.hcl
  bake inspect -only='*.web' .`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return p.inspect(cmd.Context(), o)
		},
	}
	o.register(cmd.Flags())
	withoutEffect(cmd.Flags(), "use-sequential-evaluation")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) inspect(ctx context.Context, o inspectOptions) error {
	load, err := o.options(p, "bake inspect", o.path)
	if err != nil {
		return err
	}
	outline, diags := config.ReadOutline(ctx, load)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: outline.Files()}
	}
	builds, more := engine.Select(outline.Template, engine.Options{Only: o.only, Except: o.except})
	if more.HasErrors() {
		return &templateError{Diags: more, Files: outline.Files()}
	}
	inspected := inspected{
		Variables: shownValues(outline, outline.Variables),
		Locals:    shownValues(outline, outline.Locals),
		Data:      list(outline.Data),
		Builds:    shownBuilds(outline.Blocks, builds),
	}
	if p.json.on {
		for _, d := range outline.Doubts {
			d.Severity = hcl.DiagWarning // nothing that was asked for has failed
		}
		p.diagnostics(outline.Files(), outline.Doubts)
		p.json.result = inspected
		return nil
	}
	var b strings.Builder
	inspected.write(&b)
	p.say(b.String())
	return nil
}

// inspected is what bake inspect shows.
type inspected struct {
	Variables []shownValue `json:"variables"`
	Locals    []shownValue `json:"locals"`
	Data      []string     `json:"data_sources"`
	Builds    []shownBuild `json:"builds"`
}

// shownValue is a value for people and for programs, without what is secret.
type shownValue struct {
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type"`
	Sensitive   bool   `json:"sensitive"` // some of it is secret: null in value
	Known       bool   `json:"known"`     // false if some of it is not known: null in value
	Value       any    `json:"value"`
	Text        string `json:"text"` // as it is shown to people
	simple      bool   // it is no collection
}

// shownBuild is a build block.
type shownBuild struct {
	Name           string        `json:"name"` // may be empty
	Description    string        `json:"description,omitempty"`
	Sources        []shownStep   `json:"sources"` // under their names in the build
	Provisioners   []shownStep   `json:"provisioners"`
	ErrorCleanup   *shownStep    `json:"error_cleanup_provisioner,omitempty"`
	PostProcessors [][]shownStep `json:"post_processors"` // chains
}

// shownStep is a component within a build.
type shownStep struct {
	Type string   `json:"type"`
	Name string   `json:"name"`   // may be empty
	For  []string `json:"builds"` // the full names of the builds that it is for
}

func (s shownStep) String() string {
	if s.Name == "" {
		return s.Type
	}
	return s.Type + "." + s.Name
}

func shownValues(o *config.Outline, values []config.Value) []shownValue {
	out := []shownValue{}
	for _, v := range values {
		shown := showValue(o, v.Value)
		shown.Name, shown.Description = v.Name, v.Description
		out = append(out, shown)
	}
	return out
}

func showValue(o *config.Outline, v cty.Value) shownValue {
	redact := o.Secrets().Redact
	plain, _ := v.UnmarkDeep()
	return shownValue{
		Type: typeexpr.TypeString(plain.Type()), Sensitive: v.ContainsMarked(), Known: plain.IsWhollyKnown(),
		Value: lang.Plain(v, redact), Text: redact(lang.Show(v)),
		simple: !plain.IsKnown() || plain.IsNull() || plain.Type().IsPrimitiveType() || v.IsMarked(),
	}
}

// shownBuilds returns what is left of blocks when only selected builds are run.
func shownBuilds(blocks []config.Block, selected []*config.Build) []shownBuild {
	out := []shownBuild{}
	for _, block := range blocks {
		mine := slices.DeleteFunc(slices.Clone(selected), func(s *config.Build) bool {
			return !slices.ContainsFunc(block.Builds, func(b *config.Build) bool { return b.Builder == s.Builder })
		})
		if len(mine) == 0 {
			continue
		}
		b := shownBuild{
			Name: block.Name, Description: block.Description,
			Provisioners: []shownStep{}, PostProcessors: [][]shownStep{},
		}
		for _, s := range mine {
			b.Sources = append(b.Sources, shownStep{s.Type, s.Local, []string{s.Name}})
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
				b.Provisioners = append(b.Provisioners, shownStep{pr.Type, pr.Name, names})
			}
		}
		if pr := block.ErrorCleanup; pr != nil {
			if names := users(pr.Component, provisionersOf); names != nil {
				b.ErrorCleanup = &shownStep{pr.Type, pr.Name, names}
			}
		}
		for _, chain := range block.PostProcessors {
			var steps []shownStep
			for _, pp := range chain {
				if names := users(pp.Component, postProcessorsOf); names != nil {
					steps = append(steps, shownStep{pp.Type, pp.Name, names})
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

// write writes i in Packer's layout.
func (i inspected) write(w io.Writer) {
	fmt.Fprint(w, "Packer Inspect: HCL2 mode\n\n")
	writeValues(w, i.Variables, i.Locals)
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
			writeSteps(w, "error-cleanup-provisioner", []shownStep{*b.ErrorCleanup})
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
}

func writeSteps(w io.Writer, title string, steps []shownStep) {
	fmt.Fprintf(w, "    %s:\n\n", title)
	if len(steps) == 0 {
		fmt.Fprintf(w, "      <no %s>\n", strings.TrimSuffix(title, "s"))
	}
	for _, s := range steps {
		fmt.Fprintf(w, "      %s\n", s)
	}
	fmt.Fprintln(w)
}

// writeValues lists variables and local values.
func writeValues(w io.Writer, variables, locals []shownValue) {
	section := func(title, prefix string, values []shownValue) {
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
func (v shownValue) line() string {
	if v.simple {
		return strconv.Quote(v.Text)
	}
	return v.Text
}
