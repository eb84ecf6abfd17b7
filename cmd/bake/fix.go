package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bake/internal/login"
)

func (p *program) fixCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fix FILE",
		Short: "Explain how to convert an old template",
		Long: `Explain how to convert an old template. Packer's fix updates legacy JSON
templates, which bake does not run: bake hcl2_upgrade converts them to HCL. An HCL
template needs no fixing. Either way the exit code is 1,
as nothing was written.`,
		Example:     `  bake hcl2_upgrade old.json`,
		Annotations: map[string]string{exitCodes: `1    always`},
		Args:        exactly("the file"),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			info, err := os.Stat(name)
			switch {
			case err != nil:
				return err
			case info.IsDir(), strings.HasSuffix(name, ".hcl"), strings.HasSuffix(name, ".pkr.json"):
				return fmt.Errorf("%s is not a legacy JSON template, so there is nothing to fix; bake validate checks it", name)
			}
			return fmt.Errorf("%s was not changed: legacy JSON templates are converted, not fixed; run: bake hcl2_upgrade %s", name, login.Quote(name))
		},
	}
	p.jsonFlag(cmd)
	cmd.Flags().Bool("validate", true, "validate what was fixed; without effect, as nothing is")
	return cmd
}

// absentCommands are those of Packer's that bake has no use for. Each says why.
func absentCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, c := range [][2]string{
		{"execute", "runs one component of Packer's own in a process of its own; bake's components run inside bake"},
		{"sbom-generate", "scans a machine for the hcp-sbom provisioner, which bake does not have; run syft in a shell provisioner instead"},
		{"verify-attestation", "checks what Packer's provenance post-processor has signed, which bake does not have; cosign verify-blob-attestation checks such files"},
	} {
		name, why := c[0], c[1]
		out = append(out, &cobra.Command{
			Use: name, Short: "Not there: " + why, Hidden: true, DisableFlagParsing: true,
			Annotations: map[string]string{exitCodes: `1    always`},
			RunE:        func(*cobra.Command, []string) error { return errors.New("packer " + name + " " + why) },
		})
	}
	return out
}
