package main

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"bake/builtin/reference"
	"bake/config/schema"
	"bake/config/upgrade"
	"bake/internal/hostpath"
	"bake/internal/wholefile"
)

// upgradeOptions are the flags of bake hcl2_upgrade.
type upgradeOptions struct {
	path, output string
	annotate     bool
}

func (p *program) upgradeCommand() *cobra.Command {
	var o upgradeOptions
	cmd := &cobra.Command{
		Use:   "hcl2_upgrade TEMPLATE.json",
		Short: "Convert a legacy JSON template to HCL",
		Long: `Convert a JSON template (builders, provisioners, post-processors, variables) to an HCL
template that does the same. What cannot be converted is reported with its place in
the JSON file; everything else is still written, and the exit code is 1.`,
		Example: `  bake hcl2_upgrade web.json
  bake hcl2_upgrade -output-file=web.pkr.hcl -with-annotations web.json`,
		Args: exactly("the JSON template"),
		RunE: func(_ *cobra.Command, args []string) error {
			o.path = args[0]
			return p.upgrade(o)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.output, "output-file", "", "write the HCL template to this `file` instead of TEMPLATE.json.pkr.hcl")
	flags.BoolVar(&o.annotate, "with-annotations", false, "add comments that explain the parts of the HCL template")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) upgrade(o upgradeOptions) error {
	if o.output == "" {
		o.output = o.path + ".pkr.hcl"
	}
	if filepath.Clean(o.output) == filepath.Clean(o.path) {
		return usageError{"-output-file must not be the JSON template itself", "bake hcl2_upgrade"}
	}
	src, err := hostpath.Read(o.path, hostpath.Limit)
	if err != nil {
		return fmt.Errorf("cannot read the template: %w", err)
	}
	refs, err := reference.Of(p.parts().Catalog())
	if err != nil {
		return err
	}
	docs := func(kind, typ string) []schema.Doc {
		for _, r := range refs {
			if r.Kind == kind && r.Name == typ {
				return r.Options
			}
		}
		return nil
	}
	out, diags := upgrade.Convert(o.path, src, upgrade.Options{Annotate: o.annotate, Docs: docs})
	p.diagnostics(map[string]*hcl.File{o.path: {Bytes: src}}, diags)
	if out == nil {
		return errReported
	}
	if err := wholefile.WriteData(o.output, 0o644, out); err != nil {
		return fmt.Errorf("cannot write the HCL template: %w", err)
	}
	p.json.result = struct {
		Output string `json:"output"` // the file that was written
	}{o.output}
	if diags.HasErrors() {
		p.say(fmt.Sprintf("Created %s, but not all of %s could be converted: see the errors above.", o.output, o.path))
		return errReported
	}
	p.say("Successfully created " + o.output)
	return nil
}
