package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/cloud/machine"
)

func (p *program) doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this host can run local machines",
		Long: `Try everything that the machines of the local cloud need of this host, and say for
what is missing whether they can run without it, and how to get it. Nothing stays
behind.`,
		Example: `  bake doctor`,
		Annotations: map[string]string{exitCodes: `0    local machines can run here
1    they cannot`},
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return p.doctor(cmd.Context()) },
	}
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) doctor(ctx context.Context) error {
	findings, err := p.examine(ctx)
	if err != nil {
		return err
	}
	type finding struct {
		Name   string `json:"name"`
		OK     bool   `json:"ok"`
		Fatal  bool   `json:"fatal"`
		Detail string `json:"detail"`
		Remedy string `json:"remedy,omitempty"`
	}
	found := []finding{}
	for _, f := range findings {
		found = append(found, finding(f))
		p.say(findingText(f))
	}
	p.json.result = struct {
		Findings []finding `json:"findings"`
	}{found}
	if fatal(findings) != nil {
		p.say("\nLocal machines cannot run here.")
		return errReported
	}
	p.say("\nLocal machines can run here.")
	return nil
}

// examine tries everything that local machines need of the host.
func (p *program) examine(ctx context.Context) ([]machine.Finding, error) {
	_, driver, err := p.driver()
	if err != nil {
		return nil, err
	}
	return driver.Check(ctx), nil
}

// fatal returns an error that names everything without which no machine can run.
func fatal(findings []machine.Finding) error {
	var texts []string
	for _, f := range findings {
		if f.Fatal && !f.OK {
			texts = append(texts, findingText(f))
		}
	}
	if texts == nil {
		return nil
	}
	return errors.New("local machines cannot run on this host (bake doctor says more)\n" + strings.Join(texts, "\n"))
}

// findingText shows a finding: whether it is good, what it is, and the remedy.
func findingText(f machine.Finding) string {
	mark := "ok    "
	switch {
	case f.OK:
	case f.Fatal:
		mark = "FATAL "
	default:
		mark = "note  "
	}
	text := fmt.Sprintf("%s %s: %s", mark, f.Name, f.Detail)
	if !f.OK && f.Remedy != "" {
		text += "\n        remedy: " + f.Remedy
	}
	return text
}
