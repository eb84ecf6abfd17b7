package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/fleet"
)

// completesFleets sets the completions of a command about fleets.
func (p *program) completesFleets(cmd *cobra.Command) {
	switch {
	case strings.HasSuffix(cmd.Use, " [FLEET]"):
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return fleetNames(p.fleetsOf(cmd)), cobra.ShellCompDirectiveNoFileComp
		}
	case strings.Contains(cmd.Use, " CELL"):
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			all := p.fleetsOf(cmd)
			for _, f := range all {
				for _, name := range cellNames(f) {
					if len(all) > 1 {
						name = f.Name + "/" + name
					}
					out = append(out, name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}
	}
}

// ofFleets completes a flag with comma-separated values. The values are those of the cells
// of the fleet in the arguments, or of all fleets.
func (p *program) ofFleets(values func(f *fleet.Fleet) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		for _, f := range p.fleetsOf(cmd) {
			if len(args) > 0 && f.Name != args[0] {
				continue
			}
			for _, v := range values(f) {
				if v = before + v; !slices.Contains(out, v) {
					out = append(out, v)
				}
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// fleetsOf returns the fleets of the template of a command, as far as it can be read.
func (p *program) fleetsOf(cmd *cobra.Command) []*fleet.Fleet {
	path := "."
	if f := cmd.Flags().Lookup("template"); f != nil {
		path = f.Value.String()
	}
	var flags templateFlags
	flags.vars, _ = cmd.Flags().GetStringArray("var") // a command without it has none
	flags.varFiles, _ = cmd.Flags().GetStringArray("var-file")
	o, err := flags.options(p, "bake completion", path)
	if err != nil {
		return nil
	}
	o.DataSources = p.components(o, false)(cmd.Context(), p.parts()).DataSources
	t, diags := fleet.Load(cmd.Context(), o)
	if diags.HasErrors() {
		return nil
	}
	return t.Fleets
}

func fleetNames(all []*fleet.Fleet) (names []string) {
	for _, f := range all {
		names = append(names, f.Name)
	}
	return names
}

// cellNames returns the names of the cells of a fleet.
func cellNames(f *fleet.Fleet) (names []string) {
	for _, c := range f.Cells {
		names = append(names, c.Short())
	}
	return names
}

// regionNames returns the regions of the cells of a fleet.
func regionNames(f *fleet.Fleet) (names []string) {
	for _, c := range f.Cells {
		names = append(names, c.Region)
	}
	return names
}

// completesFleetFlag returns the completion of a flag of a command about fleets, or nil if
// the flag has none or the command is a different one.
func (p *program) completesFleetFlag(cmd *cobra.Command, flag string) cobra.CompletionFunc {
	worker := cmd.Name() == "worker"
	if cmd.Flags().Lookup("template") == nil || !worker && (cmd.Parent() == nil || cmd.Parent().Name() != "fleet") {
		return nil
	}
	switch {
	case flag == "template":
		return cobra.FixedCompletions([]string{"pkr.hcl", "pkr.json"}, cobra.ShellCompDirectiveFilterFileExt)
	case flag == "only" && !worker:
		return p.ofFleets(cellNames)
	case flag == "fleet" && worker:
		return p.ofFleets(func(f *fleet.Fleet) []string { return []string{f.Name} })
	case flag == "account" && worker:
		return p.ofFleets((*fleet.Fleet).Accounts)
	case flag == "region" && worker:
		return p.ofFleets(regionNames)
	}
	return nil
}
