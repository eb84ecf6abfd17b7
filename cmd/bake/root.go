package main

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const intro = `bake makes machine images from HCL templates: it launches a machine, provisions it
over SSH, turns it into an image, copies and shares it, and takes everything else
down again. It reads Packer's HCL2 templates unchanged. With -local it does all of
that without a cloud account, on an embedded EC2 with real Linux machines.`

const environmentHelp = `Environment:
  BAKE_STATE_DIR    ledgers and logs of runs; default $XDG_STATE_HOME/bake or ~/.local/state/bake
  BAKE_CLOUD_DIR    images and machines of the local cloud; default $XDG_DATA_HOME/bake/cloud
                    or ~/.local/share/bake/cloud
  PKR_VAR_name      value of the template's variable name
  NO_COLOR, PACKER_NO_COLOR
                    no colours if not empty
  AWS_...           credentials, region and endpoint, as every AWS tool reads them

Exit codes:
  0    done
  1    failed or cancelled, or something was left behind that could not be deleted
  127  there is no such command`

// root returns the whole command line.
func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "bake",
		Short:         intro,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
	}
	showVersion := root.Flags().BoolP("version", "v", false, "print the version")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *showVersion {
			return p.version()
		}
		return p.noCommand(cmd, args)
	}
	root.PersistentFlags().BoolVar(&p.machineReadable, "machine-readable", false, "write records for programs instead of text")
	root.AddCommand(
		p.buildCommand(),
		p.validateCommand(),
		p.sweepCommand(),
		p.cloudCommand(),
		p.doctorCommand(),
		p.docsCommand(),
		p.ncCommand(),
		p.versionCommand(),
	)
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(p.stdout, cmd) })
	root.SetHelpCommand(p.helpCommand(root))
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	return root
}

// noCommand is what a command that only holds others does when none of them was named.
func (p *program) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		writeHelp(p.stderr, cmd)
		return errors.Join(errReported, unknownCommand{})
	}
	text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		text += fmt.Sprintf("; did you mean %q?", s[0])
	} else {
		text += fmt.Sprintf("; %s -h lists them", cmd.CommandPath())
	}
	return unknownCommand{text}
}

func (p *program) helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:    "help [command]",
		Short:  "Explain a command",
		Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			cmd, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return p.noCommand(root, args)
			}
			writeHelp(p.stdout, cmd)
			return nil
		},
	}
}

// exactly returns a check that a command gets as many arguments as it has names for.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		want := "no arguments"
		if len(names) == 1 {
			want = "exactly one argument, " + names[0]
		} else if len(names) > 1 {
			want = fmt.Sprintf("exactly %d arguments, %s", len(names), strings.Join(names, " and "))
		}
		return usageError{fmt.Sprintf("%s takes %s; got %d", cmd.CommandPath(), want, len(args)), cmd.CommandPath()}
	}
}

var longFlag = regexp.MustCompile(`^-[A-Za-z][A-Za-z-]`)

// singleDash makes the command line readable for pflag, which takes "-var" for
// three flags of one letter: Packer's users type long flags with one dash.
func singleDash(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if longFlag.MatchString(a) {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// flagError explains what is wrong with a flag, and names the one that was meant.
func flagError(cmd *cobra.Command, err error) error {
	var missing *pflag.NotExistError
	var noValue *pflag.ValueRequiredError
	var badValue *pflag.InvalidValueError
	text := err.Error()
	switch {
	case errors.As(err, &missing):
		name := missing.GetSpecifiedName()
		text = fmt.Sprintf("%s has no flag -%s", cmd.CommandPath(), name)
		if near := nearestFlag(cmd, name); near != "" {
			text += fmt.Sprintf("; did you mean -%s?", near)
		}
	case errors.As(err, &noValue):
		text = fmt.Sprintf("-%s needs a value", noValue.GetFlag().Name)
	case errors.As(err, &badValue):
		f := badValue.GetFlag()
		text = fmt.Sprintf("-%s=%s: %v", f.Name, badValue.GetValue(), badValue.Unwrap())
	}
	return usageError{text, cmd.CommandPath()}
}

func nearestFlag(cmd *cobra.Command, name string) (near string) {
	best := len(name)/3 + 2
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if d := levenshtein.Distance(name, f.Name, nil); d < best && !f.Hidden {
			near, best = f.Name, d
		}
	})
	return near
}

// writeHelp explains cmd: what it does, its commands, its flags.
func writeHelp(w io.Writer, cmd *cobra.Command) {
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(w, "%s\n\nUsage: %s\n", about, usageLine(cmd))
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintln(w, "\nCommands:")
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				fmt.Fprintf(w, "  %-10s %s\n", c.Name(), c.Short)
			}
		}
	}
	var lines [][2]string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, about := pflag.UnquoteUsage(f)
		head := "-" + f.Name
		if f.Value.Type() != "bool" && value != "" {
			head += " " + value
		}
		switch {
		case f.Value.Type() == "bool" && f.DefValue == "true":
			head += "=false"
		case f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0":
			about += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		lines = append(lines, [2]string{head, about})
	})
	if len(lines) > 0 {
		fmt.Fprintln(w, "\nFlags:")
		for _, l := range lines {
			fmt.Fprintf(w, "  %-28s %s\n", l[0], l[1])
		}
	}
	if cmd.Example != "" {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	if !cmd.HasParent() {
		fmt.Fprintf(w, "\n%s\n", environmentHelp)
	}
}

func usageLine(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() {
		return cmd.CommandPath() + " COMMAND"
	}
	_, args, _ := strings.Cut(cmd.Use, " ")
	line := cmd.CommandPath()
	if cmd.HasAvailableFlags() {
		line += " [flags]"
	}
	return strings.TrimSpace(line + " " + args)
}
