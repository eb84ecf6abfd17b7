package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const intro = `bake makes machine images from HCL templates: it launches a machine, provisions it
over SSH, turns it into an image, copies and shares it, and takes everything else
down again. It reads Packer's HCL2 templates unchanged. With -local it does all of
that without a cloud account, on an embedded EC2 with real Linux machines.`

// root returns the command tree: only the command that args begin with, or all commands.
func (p *program) root(args []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "bake",
		Short:         intro,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
	}
	showVersion := root.Flags().BoolP("version", "v", false, "print the version")
	root.FParseErrWhitelist.UnknownFlags = true // those of a command that does not exist
	install := root.Flags().Bool("autocomplete-install", false, "install shell completion")
	uninstall := root.Flags().Bool("autocomplete-uninstall", false, "undo -autocomplete-install")
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if *install || *uninstall {
			return p.autocomplete(*install)
		}
		if *showVersion {
			return p.version()
		}
		return p.noCommand(cmd, args)
	}
	root.PersistentFlags().Bool(machineReadable, false, "print machine-readable records instead of text; accepted anywhere on the command line")
	root.AddCommand(p.commands(args)...)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		p.command = commandName(cmd)
		if cmd.Flags().Changed(machineReadable) {
			fmt.Fprintln(p.stderr, "Note: as in Packer, machine-readable output needs exactly -machine-readable, with one dash and no value.")
		}
		if p.json.on && p.machineReadable {
			return usageError{"-json and -machine-readable cannot be used together", cmd.CommandPath()}
		}
		return nil
	}
	root.SetOut(p.stdout)
	root.SetErr(p.stderr)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(p.stdout, cmd, p.stdout.helpColumns()) })
	root.CompletionOptions.DisableDefaultCmd = true // bake has its own
	root.SetHelpCommand(p.helpCommand(root))
	root.SetFlagErrorFunc(flagError)
	return root
}

// commands returns the command that args begin with, or all: to make the others, with all
// their flags, costs a validation a tenth of its time.
func (p *program) commands(args []string) []*cobra.Command {
	all := []struct {
		name string
		make func() *cobra.Command
	}{
		{"build", p.buildCommand},
		{"plan", p.planCommand},
		{"validate", p.validateCommand},
		{"fmt", p.fmtCommand},
		{"hcl2_upgrade", p.upgradeCommand},
		{"inspect", p.inspectCommand},
		{"policy", p.policyCommand},
		{"console", p.consoleCommand},
		{"init", p.initCommand},
		{"plugins", p.pluginsCommand},
		{"fix", p.fixCommand},
		{"sweep", p.sweepCommand},
		{"images", p.imagesCommand},
		{"fleet", p.fleetCommand},
		{"worker", p.workerCommand},
		{"cloud", p.cloudCommand},
		{"doctor", p.doctorCommand},
		{"docs", p.docsCommand},
		{"runs", p.runsCommand},
		{"log", p.logCommand},
		{"report", p.reportCommand},
		{"resume", p.resumeCommand},
		{"ssh", p.sshCommand},
		{"nc", p.ncCommand},
		{"version", p.versionCommand},
		{"verify-attestation", p.verifyCommand},
		{"checks", p.checksCommand},
		{"sbom", p.sbomCommand},
		{"completion", p.completionCommand},
	}
	if len(args) > 0 && args[0] != "docs" && args[0] != "completion" { // these are about all
		for _, c := range all {
			if c.name == args[0] {
				return []*cobra.Command{c.make()}
			}
		}
	}
	out := absentCommands()
	for _, c := range all {
		out = append(out, c.make())
	}
	return out
}

// insteadOf, before the name of a subcommand that other programs have, is the key of the annotation of
// a command group that says what does the same here.
const insteadOf = "instead of "

// noCommand handles a command group that was called without a subcommand.
func (p *program) noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		writeHelp(p.stderr, cmd, p.stderr.helpColumns())
		return errors.Join(errReported, unknownCommand{})
	}
	if args[0] == "help" && cmd.HasParent() {
		if len(args) > 1 {
			if c, rest, err := cmd.Find(args[1:]); err == nil && len(rest) == 0 {
				cmd = c
			}
		}
		writeHelp(p.stdout, cmd, p.stdout.helpColumns())
		return nil
	}
	text := fmt.Sprintf("%s has no command %q", cmd.CommandPath(), args[0])
	if how, known := cmd.Annotations[insteadOf+args[0]]; known {
		return unknownCommand{text + ": " + how}
	}
	cmd.SuggestionsMinimumDistance = 2
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		distance := func(name string) int { return levenshtein.Distance(args[0], name, nil) }
		text += fmt.Sprintf("; did you mean %q?", slices.MinFunc(s, func(a, b string) int { return distance(a) - distance(b) }))
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
			writeHelp(p.stdout, cmd, p.stdout.helpColumns())
			return nil
		},
	}
}

// exactly returns a check that a command has exactly the named arguments.
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

// atMost returns a check that a command has no more arguments than those named.
func atMost(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= len(names) {
			return nil
		}
		return usageError{fmt.Sprintf("%s takes at most %s; got %d arguments", cmd.CommandPath(), strings.Join(names, " and "), len(args)), cmd.CommandPath()}
	}
}

// singleDash rewrites the command line for pflag, which parses "-var" as three flags of one
// letter: Packer's users type long flags with one dash.
func singleDash(args []string) []string {
	out := make([]string, len(args))
	for i, a := range args {
		if a == "--" {
			copy(out[i:], args[i:])
			break
		}
		if longFlag(a) {
			a = "-" + a
		}
		out[i] = a
	}
	return out
}

// longFlag reports whether a has one dash and a name of more than one letter.
func longFlag(a string) bool {
	letter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	return len(a) > 2 && a[0] == '-' && letter(a[1]) && (letter(a[2]) || a[2] == '-')
}

// flagError explains the error of a flag, and suggests the flag that was probably meant.
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
		text = fmt.Sprintf("-%s=%s: %s", f.Name, badValue.GetValue(), refusal(badValue.Unwrap()))
	}
	return usageError{text, cmd.CommandPath()}
}

// refusal is why the value of a flag is not one.
func refusal(err error) string {
	number, ok := errors.AsType[*strconv.NumError](err)
	switch {
	case !ok:
		return err.Error()
	case number.Func == "ParseBool":
		return "must be true or false"
	case errors.Is(err, strconv.ErrRange):
		return "is too large"
	}
	return "must be a whole number"
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
