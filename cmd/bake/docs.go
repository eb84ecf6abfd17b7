package main

import (
	"github.com/spf13/cobra"

	"bake/builtin/reference"
)

func (p *program) docsCommand() *cobra.Command {
	var markdown string
	cmd := &cobra.Command{
		Use:   "docs [COMPONENT]",
		Short: "Explain the options of a component, or list the components",
		Long: `Explain the options of a component of any kind: what each option does, its type and
its default, and the values that the component makes available to the template.
Without a name, list all built-in components.`,
		Example: `  bake docs
  bake docs amazon-ebs`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			refs, err := reference.Of(p.parts().Catalog())
			switch {
			case err != nil:
				return err
			case markdown != "":
				return reference.WriteMarkdown(markdown, refs)
			case len(args) == 1:
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
		},
	}
	cmd.Flags().StringVar(&markdown, "markdown", "", "write the reference of every component into the `directory`, which it then fills alone")
	p.jsonFlag(cmd)
	return cmd
}
