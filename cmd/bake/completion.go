package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"bake/builtin/reference"
	"bake/config"
	"bake/internal/local"
	"bake/internal/prose"
	"bake/internal/startup"
)

func (p *program) completionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "completion SHELL",
		Short: "Generate a shell completion script",
		Long: `Generate a completion script for bash, zsh, fish or PowerShell. It completes commands,
flags, templates, build names for -only and -except, variable names for -var, the ids of
runs, and what bake docs explains. Bash needs the bash-completion package.

bake -autocomplete-install makes your shells load it at startup, and
bake -autocomplete-uninstall undoes that.`,
		Example: `  source <(bake completion bash)
  complete -o default -F __start_bake packer    # after: alias packer=bake
  bake completion fish >~/.config/fish/completions/bake.fish
  bake completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      exactly("the shell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(p.stdout, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(p.stdout)
			case "fish":
				return cmd.Root().GenFishCompletion(p.stdout, true)
			case "powershell":
				return cmd.Root().GenPowerShellCompletionWithDesc(p.stdout)
			}
			return usageError{fmt.Sprintf("%q is not one of bash, zsh, fish, powershell", args[0]), cmd.CommandPath()}
		},
	}
}

// asksForCompletion reports whether a shell requests completions of a command line.
func asksForCompletion(args []string) bool {
	return len(args) > 1 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}

// completeWith adapts root's completion for a shell to flags with one dash: it returns the
// arguments to complete instead, and a function that then writes the answer.
func (p *program) completeWith(root *cobra.Command, args []string) (asked []string, answer func()) {
	p.completions(root)
	asked = singleDash(args)
	last := len(args) - 1
	one := strings.HasPrefix(args[last], "-") && !strings.HasPrefix(args[last], "--")
	if one && !strings.HasPrefix(asked[last], "--") { // "-" and "-o" can become long flags yet
		asked[last] = "-" + asked[last]
	}
	var out bytes.Buffer
	root.SetOut(&out)
	return asked, func() {
		p.json.on = false // a flag that is only being completed has no effect
		for line := range strings.Lines(out.String()) {
			if one && strings.HasPrefix(line, "--") {
				line = line[1:]
			}
			io.WriteString(p.stdout, strings.ReplaceAll(line, "`", ""))
		}
	}
}

// completions sets the completion of arguments for every command below cmd.
func (p *program) completions(cmd *cobra.Command) {
	switch commandName(cmd) {
	case "docs":
		cmd.ValidArgsFunction = p.completeDocs
	case "cloud base":
		cmd.ValidArgsFunction = argument(0, local.Releases)
	case "cloud alias":
		cmd.ValidArgsFunction = argument(1, local.Releases)
	}
	if strings.HasSuffix(strings.TrimSuffix(cmd.Use, "]"), "TEMPLATE") && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"pkr.hcl", "pkr.json"}, cobra.ShellCompDirectiveFilterFileExt
		}
	}
	if strings.Contains(cmd.Use, " [RUN") && cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = p.completeRuns
	}
	p.completesFleets(cmd)
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		complete := p.completesFleetFlag(cmd, f.Name)
		if complete == nil {
			complete = p.flagCompletion(f)
		}
		if complete == nil || cmd.InheritedFlags().Lookup(f.Name) != nil {
			return
		}
		if err := cmd.RegisterFlagCompletionFunc(f.Name, complete); err != nil {
			panic(err) // the flag is there, and this is the only call for it
		}
	})
	for _, c := range cmd.Commands() {
		p.completions(c)
	}
}

// argument completes one argument, counted from 0, with fixed values, and no other.
func argument(at int, values func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != at {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return values(), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeDocs completes what bake docs explains: components and blocks, and then their
// options, functions, or chapters of the guide.
func (p *program) completeDocs(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	names, err := []string(nil), error(nil)
	switch {
	case len(args) == 0:
		names, err = reference.Names(p.parts().Catalog())
		names = append(names, "functions", "guide", "settings")
	case len(args) > 1 || args[0] == "settings":
	case args[0] == "functions":
		var all []reference.Function
		all, err = reference.Functions()
		for _, f := range all {
			names = append(names, f.Name)
		}
	case args[0] == "guide":
		var all []reference.Chapter
		all, err = reference.Chapters()
		for _, c := range all {
			names = append(names, c.Name)
		}
	default:
		names, err = reference.OptionNames(p.parts().Catalog(), args[0])
	}
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// flagCompletion returns the completion of the values of f; nil if they are file names.
func (p *program) flagCompletion(f *pflag.Flag) cobra.CompletionFunc {
	if c, ok := f.Value.(*choice); ok {
		return cobra.FixedCompletions(c.values, cobra.ShellCompDirectiveNoFileComp)
	}
	switch f.Name {
	case "only", "except":
		return func(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
			before := typed[:strings.LastIndex(typed, ",")+1]
			if t := p.outlined(cmd.Context(), args); t != nil {
				for _, b := range t.Builds {
					out = append(out, before+b.Name)
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp
		}
	case "var":
		return func(cmd *cobra.Command, args []string, typed string) (out []string, _ cobra.ShellCompDirective) {
			if t := p.outlined(cmd.Context(), args); t != nil && !strings.Contains(typed, "=") {
				for _, v := range t.Variables {
					out = append(out, v.Name+"=")
				}
			}
			return out, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
	case "run":
		return p.completeRuns
	case "graph":
		return cobra.FixedCompletions([]string{"text", "svg"}, cobra.ShellCompDirectiveNoFileComp)
	case "delays":
		return cobra.FixedCompletions([]string{"instant", "aws"}, cobra.ShellCompDirectiveNoFileComp)
	case "as": // of bake cloud import
		return cobra.FixedCompletions(local.Releases(), cobra.ShellCompDirectiveNoFileComp)
	case "regions": // of bake sweep; the others are known to the account
		return cobra.FixedCompletions([]string{"all"}, cobra.ShellCompDirectiveNoFileComp)
	case "older-than":
		return cobra.FixedCompletions([]string{"24h", "7d"}, cobra.ShellCompDirectiveNoFileComp)
	case "cache-limit":
		return cobra.FixedCompletions([]string{"2GB", "20GB"}, cobra.ShellCompDirectiveNoFileComp)
	case "var-file":
		return cobra.FixedCompletions([]string{"hcl", "json"}, cobra.ShellCompDirectiveFilterFileExt)
	}
	return nil
}

// completeRuns completes the ids of runs; for bake resume, of those that it can continue.
func (p *program) completeRuns(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	const ordered = cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	state, err := p.env.state()
	if err != nil || len(args) > 0 {
		return nil, ordered
	}
	all, _ := state.List() // those whose logs can be read
	for _, r := range all {
		if r.Resumable || cmd.Name() != "resume" {
			out = append(out, cobra.CompletionWithDesc(r.Run, r.Started.Local().Format(time.DateTime)+" "+prose.OneLine(r.Command)))
		}
	}
	return out, ordered
}

// outlined reads as much as possible of the template in args, or else of the one in the
// working directory. It returns nil if there is none.
func (p *program) outlined(ctx context.Context, args []string) *config.Outline {
	load, err := new(templateFlags).options(p, "bake completion", slices.Concat(args, []string{"."})[0])
	if err != nil {
		return nil
	}
	out, diags := config.ReadOutline(ctx, load)
	if diags.HasErrors() {
		return nil
	}
	return out
}

// autocomplete makes the user's shells load the completion when they start, or no longer.
func (p *program) autocomplete(install bool) error {
	shells := startup.Shells{Home: p.env.get("HOME"), Config: p.env.get("XDG_CONFIG_HOME"), Login: p.env.get("SHELL")}
	change := shells.Remove
	if install {
		change = shells.Add
	}
	changed, err := change("completion of bake", map[string]string{
		"bash": "command -v bake >/dev/null && source <(bake completion bash)",
		"zsh":  "command -v bake >/dev/null && source <(bake completion zsh)",
		"fish": "type -q bake; and bake completion fish | source",
	})
	for _, file := range changed {
		p.say(file + " changed")
	}
	switch {
	case err != nil || len(changed) > 0:
		return err
	case install:
		return errors.New("no file changed: completion is already installed, or there is no startup file for bash, zsh or fish and SHELL is set to none of them")
	}
	return errors.New("no file changed: completion is not installed")
}
