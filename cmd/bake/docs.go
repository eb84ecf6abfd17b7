package main

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"bake/builtin/reference"
	"bake/plugin/installed"
)

func (p *program) docsCommand() *cobra.Command {
	var markdown string
	cmd := &cobra.Command{
		Use:   "docs [COMPONENT [OPTION]]",
		Short: "Explain the options of a component, or list the components",
		Long: `Explain the options of a component of any kind, or of a block of templates or of bake
files (*.bake.hcl): what each option does, its type and its default, and the values that
the component makes available to the template. With an option, or a group of options such
as network, explain nothing else.
Without a name, list all components, including those of installed plugins, whose options
have only a name and a type.`,
		Example: `  bake docs
  bake docs amazon-ebs
  bake docs amazon-ebs ami_users
  bake docs amazon-ebs network
  bake docs provisioner`,
		Args: cobra.MaximumNArgs(2),
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
