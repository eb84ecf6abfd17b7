package main

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/internal/prose"
)

func (p *program) cloudFaultsCommand() *cobra.Command {
	remove := false
	cmd := &cobra.Command{
		Use:   "faults [FILE]",
		Short: "Show or replace the fault rules of the running local cloud",
		Long: `Show the fault rules of the local cloud that another bake process serves ('bake cloud up'
or a build with -local), and how often each has applied. With FILE, replace them with the
rules in it; its delays apply to operations started from then on. When a rule is removed,
so are its effects on instances: an instance that it suspended continues.`,
		Example: `  bake cloud faults
  bake cloud faults rehearsal.json
  bake cloud faults -clear`,
		Args: atMost("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && remove {
				return usageError{"-clear cannot be combined with a FILE", cmd.CommandPath()}
			}
			return p.cloudFaults(cmd.Context(), strings.Join(args, ""), remove)
		},
	}
	cmd.Flags().BoolVar(&remove, "clear", false, "remove all rules, but keep the delays")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) cloudFaults(ctx context.Context, file string, remove bool) error {
	dir, err := p.env.cloudDir()
	if err != nil {
		return err
	}
	var r local.Rehearsed
	if remove {
		r, err = local.ClearFaults(ctx, dir)
	} else {
		r, err = local.Rehearse(ctx, dir, file)
	}
	if err != nil {
		return err
	}
	if p.json.on {
		p.json.result = r
		return nil
	}
	var delays []string
	for _, name := range slices.Sorted(maps.Keys(r.Delays)) {
		delays = append(delays, name+" "+r.Delays[name])
	}
	if len(delays) > 0 {
		p.say("Delays: " + strings.Join(delays, ", "))
	}
	if len(r.Faults.Rules) == 0 {
		p.say("No fault rules apply.")
		return nil
	}
	p.rehearsing(len(r.Faults.Rules), r.Faults.Seed)
	table := prose.NewTable("SEEN", "APPLIED", "RULE")
	for i, rule := range r.Faults.Rules {
		table.Row(r.Counts[i].Seen, r.Counts[i].Applied, string(rule))
	}
	p.say(table.Within(p.stdout.columns()))
	return nil
}
