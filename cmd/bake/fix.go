package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"bake/internal/shellquote"
)

func (p *program) fixCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "fix FILE",
		Short: "Explain how to convert an old template",
		Long: `Explain how to convert an old template. Packer's fix updates legacy JSON
templates, which bake does not run: bake hcl2_upgrade converts them to HCL. An HCL
template needs no fixing. Nothing is written, so the exit code is always 1.`,
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
			return fmt.Errorf("%s was not changed: legacy JSON templates are converted, not fixed; run: bake hcl2_upgrade %s", name, shellquote.For(runtime.GOOS, name))
		},
	}
	p.jsonFlag(cmd)
	cmd.Flags().Bool("validate", true, "no effect: nothing is fixed, so there is nothing to validate")
	return cmd
}

// absentCommands returns Packer's commands that bake does not have. Each explains why.
func absentCommands() []*cobra.Command {
	var out []*cobra.Command
	for _, c := range [][2]string{
		{"execute", "runs a Packer component in its own process; bake's components run inside bake"},
		{"sbom-generate", "scans a machine for the hcp-sbom provisioner, which needs no scanner in bake; set auto_generate = true there"},
	} {
		name, why := c[0], c[1]
		out = append(out, &cobra.Command{
			Use: name, Short: "Not available: " + why, Hidden: true, DisableFlagParsing: true,
			Annotations: map[string]string{exitCodes: `1    always`},
			RunE:        func(*cobra.Command, []string) error { return errors.New("packer " + name + " " + why) },
		})
	}
	return out
}
