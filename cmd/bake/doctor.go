package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/internal/local"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run local machines",
		Long: `Check everything that local machines need from this host. For whatever is missing,
explain whether they can run without it and how to get it. Nothing is left behind.`,
		Example: `  bake doctor`,
		Annotations: map[string]string{exitCodes: `0    local machines can run here
1    they cannot`},
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return interruptible(cmd.Context(), p.doctor) },
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) doctor(ctx context.Context) error {
	dir, err := p.env.cloudDir()
	if err != nil {
		return err
	}
	findings, failed := local.Examine(ctx, dir, p.log.Logger)
	fatal := false
	for _, f := range findings {
		p.say(f.String())
		fatal = fatal || f.Fatal && !f.OK
	}
	p.json.result = struct {
		Findings []local.Finding `json:"findings"`
	}{list(findings)}
	if failed != nil {
		return failed
	}
	if fatal {
		p.say("\nLocal machines cannot run here.")
		return errReported
	}
	p.say("\nLocal machines can run here.")
	return nil
}
