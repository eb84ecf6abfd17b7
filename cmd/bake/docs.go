package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"bake/builtin/reference"
	"bake/docs"
	"bake/internal/prose"
	"bake/plugin/installed"
)

// docsOptions are the flags of bake docs.
type docsOptions struct {
	markdown, man, search string
	schema                bool
}

func (p *program) docsCommand() *cobra.Command {
	var o docsOptions
	cmd := &cobra.Command{
		Use:   "docs [COMPONENT [OPTION] | functions [NAME] | settings | guide [CHAPTER]]",
		Short: "Show the reference of components and functions, and the guide",
		Long: `Show the options of a component, or of a block of templates or bake files (*.bake.hcl):
what each option does, its type and default, and the values that the component exports to
the template. With OPTION, show only that option or group of options, such as network.

Without a name, list all components. For those of installed plugins, only the names and
types of options are known. 'functions' shows the functions that templates can call,
'settings' the settings that apply to all templates, and 'guide' the guide.`,
		Example: `  bake docs amazon-ebs
  bake docs amazon-ebs ami_users
  bake docs amazon-ebs network
  bake docs provisioner
  bake docs functions formatdate
  bake docs guide 1
  bake docs -search 'share image'
  bake docs -man /usr/local/share/man/man1
  bake docs -schema >template.schema.json`,
		Args: atMost("the component", "its option"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.docs(ctx, cmd, args, o) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.search, "search", "", "search commands, variables of the environment, options, functions, settings and the guide for all words of a `text`")
	flags.StringVar(&o.markdown, "markdown", "", "write the reference of every component to this `directory`; other pages in its subdirectories (*/*.md) are deleted")
	flags.StringVar(&o.man, "man", "", "write a manual page for each command to this `directory`")
	flags.BoolVar(&o.schema, "schema", false, "print a JSON schema of templates in JSON (*.pkr.json), for editors")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) docs(ctx context.Context, cmd *cobra.Command, args []string, o docsOptions) error {
	set := slices.DeleteFunc([]string{"search", "markdown", "man", "schema"}, func(name string) bool { return !cmd.Flags().Changed(name) })
	if len(set) > 1 {
		return usageError{fmt.Sprintf("-%s and -%s cannot be used together", set[0], set[1]), cmd.CommandPath()}
	}
	if len(args) > 0 && len(set) > 0 {
		return usageError{fmt.Sprintf("%q: -search, -markdown, -man and -schema cannot be combined with a name", args[0]), cmd.CommandPath()}
	}
	refs, err := reference.Of(p.parts().Catalog())
	switch {
	case err != nil:
		return err
	case o.markdown != "":
		return reference.WriteMarkdown(o.markdown, refs)
	case o.man != "":
		return writeMan(o.man, cmd.Root())
	case o.schema:
		return p.docsSchema(refs)
	case cmd.Flags().Changed("search"):
		return p.docsSearch(refs, cmd.Root(), o.search)
	case len(args) > 0 && args[0] == "functions":
		return p.docsFunctions(args[1:])
	case len(args) > 0 && args[0] == "settings":
		return p.docsSettings(cmd, args[1:])
	case len(args) > 0 && args[0] == "guide":
		return p.docsGuide(args[1:])
	}
	return p.docsComponents(ctx, refs, args)
}

// docsComponents lists components, including those of plugins, or explains one.
func (p *program) docsComponents(ctx context.Context, refs []reference.Component, args []string) error {
	wanted := func(name string) bool { return len(args) > 0 && args[0] == name }
	if !slices.ContainsFunc(refs, func(r reference.Component) bool { return wanted(r.Name) }) {
		more, err := installed.Reference(ctx, p.installedPlugins(), wanted)
		if err != nil {
			return err
		}
		refs = append(refs, more...)
		reference.Sort(refs)
	}
	if len(args) > 0 {
		all := refs
		if refs = reference.Named(all, args[0]); len(refs) == 0 {
			return reference.Unknown(all, args[0])
		}
	}
	if len(args) == 2 {
		var err error
		if refs, err = reference.Narrow(refs, args[1]); err != nil {
			return err
		}
	}
	switch {
	case p.json.on:
		p.json.result = reference.Describe(refs, len(args) > 0)
	case len(args) > 0:
		reference.Explain(p.stdout, refs)
	default:
		reference.List(p.stdout, refs)
	}
	return nil
}

func (p *program) docsFunctions(args []string) error {
	all, err := reference.Functions()
	if err != nil {
		return err
	}
	if len(args) > 0 {
		f, err := reference.FunctionNamed(all, args[0])
		if err != nil {
			return err
		}
		all = []reference.Function{f}
	}
	switch {
	case p.json.on:
		p.json.result = struct {
			Functions []reference.Function `json:"functions"`
		}{all}
	case len(args) > 0:
		reference.ExplainFunction(p.stdout, all[0])
	default:
		reference.ListFunctions(p.stdout, all)
	}
	return nil
}

// docsSettings shows the page about settings.
func (p *program) docsSettings(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Sprintf("%q: bake docs settings shows all settings", args[0]), cmd.CommandPath()}
	}
	text, err := reference.Settings()
	if err != nil {
		return err
	}
	if p.json.on {
		p.json.result = struct {
			Settings string `json:"settings"`
		}{text}
		return nil
	}
	fmt.Fprint(p.stdout, docs.Plain(text, reference.Width))
	return nil
}

// docsGuide lists the chapters of the guide, or shows one.
func (p *program) docsGuide(args []string) error {
	all, err := reference.Chapters()
	if err != nil {
		return err
	}
	if len(args) > 0 {
		of := func(c reference.Chapter) bool { return c.Name == args[0] || strconv.Itoa(c.Number) == args[0] }
		i := slices.IndexFunc(all, of)
		if i < 0 {
			return fmt.Errorf("the guide has no chapter %q; bake docs guide lists them", args[0])
		}
		all = all[i : i+1]
	}
	if p.json.on {
		for i := range all {
			if len(args) == 0 {
				all[i].Text = ""
			}
		}
		p.json.result = struct {
			Chapters []reference.Chapter `json:"chapters"`
		}{all}
		return nil
	}
	if len(args) > 0 {
		fmt.Fprint(p.stdout, docs.Plain(all[0].Text, reference.Width))
		return nil
	}
	for _, c := range all {
		fmt.Fprintf(p.stdout, "%4d  %-18s  %s\n", c.Number, c.Name, c.Title)
	}
	fmt.Fprintln(p.stdout, "\nbake docs guide CHAPTER shows one, by its number or name.")
	return nil
}

func (p *program) docsSearch(refs []reference.Component, root *cobra.Command, text string) error {
	if strings.TrimSpace(text) == "" {
		return usageError{"-search needs words to look for", "bake docs"}
	}
	found, err := reference.Search(refs, text)
	if err != nil {
		return err
	}
	for _, m := range append(searchVariables(root, text), searchCommands(root, text)...) {
		found = append(found, reference.Match{Command: m[0], Text: m[1]})
	}
	if p.json.on {
		p.json.result = struct {
			Matches []reference.Match `json:"matches"`
		}{append([]reference.Match{}, found...)}
	}
	if len(found) == 0 {
		return fmt.Errorf("nothing in the documentation contains all of these words: %s", text)
	}
	if !p.json.on {
		reference.ListMatches(p.stdout, found)
	}
	return nil
}

// hasWords reports whether a text contains all words of another one, whatever their case.
func hasWords(text, words string) bool {
	text = strings.ToLower(text)
	return !slices.ContainsFunc(strings.Fields(strings.ToLower(words)), func(w string) bool { return !strings.Contains(text, w) })
}

// searchVariables returns how to get help on the environment, and each of its variables that
// has all words of a text in its row.
func searchVariables(root *cobra.Command, text string) (found [][2]string) {
	for _, row := range variableRows(root) {
		if hasWords(row[0]+" "+row[1], text) {
			found = append(found, [2]string{root.Name() + " -h", row[0] + ": " + prose.OneLine(row[1])})
		}
	}
	return found
}

// searchCommands returns, for each command whose description or flags contain all words of
// a text, how to get help on it, and its description.
func searchCommands(cmd *cobra.Command, text string) (found [][2]string) {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		var help strings.Builder
		writeHelp(&help, c, helpWidth)
		if hasWords(help.String(), text) && !c.HasAvailableSubCommands() {
			found = append(found, [2]string{c.CommandPath() + " -h", c.Short})
		}
		found = append(found, searchCommands(c, text)...)
	}
	return found
}

func (p *program) docsSchema(refs []reference.Component) error {
	schema := reference.JSONSchema(refs)
	if p.json.on {
		p.json.result = struct {
			Schema any `json:"json_schema"`
		}{schema}
		return nil
	}
	out := json.NewEncoder(p.stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	return out.Encode(schema)
}
