package main

import (
	"context"
	"slices"
	"sort"

	"github.com/spf13/cobra"

	"bake/builtin/reference"
	"bake/plugin/installed"
)

func (p *program) docsCommand() *cobra.Command {
	var markdown string
	cmd := &cobra.Command{
		Use:   "docs [COMPONENT]",
		Short: "Explain the options of a component, or list the components",
		Long: `Explain the options of a component of any kind, or of a block of bake files
(*.bake.hcl): what each option does, its type and its default, and the values that the
component makes available to the template.
Without a name, list all components, including those of installed plugins, whose options
have only a name and a type.`,
		Example: `  bake docs
  bake docs amazon-ebs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.docs(ctx, args, markdown) })
		},
	}
	cmd.Flags().StringVar(&markdown, "markdown", "", "write the reference of every component into the `directory`, which it then fills alone")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) docs(ctx context.Context, args []string, markdown string) error {
	refs, err := reference.Of(p.parts().Catalog())
	switch {
	case err != nil:
		return err
	case markdown != "":
		return reference.WriteMarkdown(markdown, refs)
	}
	wanted := func(name string) bool { return len(args) == 1 && args[0] == name }
	if !slices.ContainsFunc(refs, func(r reference.Component) bool { return wanted(r.Name) }) {
		more, err := installed.Reference(ctx, p.installedPlugins(), wanted)
		if err != nil {
			return err
		}
		refs = append(refs, more...)
		sort.SliceStable(refs, func(i, j int) bool { return order(refs[i].Kind) < order(refs[j].Kind) })
	}
	if len(args) == 1 {
		all := refs
		if refs = reference.Named(all, args[0]); len(refs) == 0 {
			return reference.Unknown(all, args[0])
		}
	}
	switch {
	case p.json.on:
		p.json.result = reference.Describe(refs, len(args) == 1)
	case len(args) == 1:
		reference.Explain(p.stdout, refs)
	default:
		reference.List(p.stdout, refs)
	}
	return nil
}

// order is that of the kinds of components in a list.
func order(kind string) int {
	return slices.Index([]string{"builder", "provisioner", "post-processor", "data-source", "bake-file"}, kind)
}
