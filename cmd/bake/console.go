package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"bake/config"
	"bake/inspect"
	"bake/internal/lineedit"
	"bake/internal/terminal"
)

// consoleOptions are the flags of bake console.
type consoleOptions struct {
	templateFlags
	path string // empty for none
}

const consoleHelp = `Type an expression, such as var.name, upper("x") or [for x in local.list : x.name],
to see its value. It continues on the next line while brackets are open.
  variables  shows the variables and the local values
  help       shows this
  exit       ends, as do Ctrl-D and Ctrl-C
Up and Down recall earlier lines; Tab completes names. Lines are saved for the next
session, except those that start with a space or contain a sensitive value.`

func (p *program) consoleCommand() *cobra.Command {
	var o consoleOptions
	cmd := &cobra.Command{
		Use:   "console [TEMPLATE]",
		Short: "Evaluate expressions with the values and functions of a template",
		Long: `Evaluate expressions with the variables, local values and functions of a template, or
with the functions alone if no template is given.

` + consoleHelp + `

With input from a pipe or a file, the value of each expression is printed, and the
first one that fails ends the console with exit code 1. Sensitive values are shown as
<sensitive>, unknown ones as <unknown>. Data sources are not read.`,
		Example: `  bake console template.pkr.hcl
  echo 'var.region' | bake console -var-file=prod.pkrvars.hcl .`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return exactly("the template")(cmd, args)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.path = args[0]
			}
			return p.console(cmd.Context(), o)
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().Lookup("config-type").Usage = "without a template: the `language` of expressions; only hcl2 is supported"
	withoutEffect(cmd.Flags(), "use-sequential-evaluation")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) console(ctx context.Context, o consoleOptions) error {
	if o.path == "" && o.configType.value == "json" {
		return usageError{"-config-type=json: {{ }} calls of legacy JSON templates are not supported; leave the flag out to try expressions of HCL templates", "bake console"}
	}
	load, err := o.options(p, "bake console", o.path)
	if err != nil {
		return err
	}
	outline, diags := config.ReadOutline(ctx, load)
	if diags.HasErrors() {
		return &templateError{Diags: diags, Files: outline.Files()}
	}
	c := &console{program: p, session: inspect.Session{Outline: outline}}
	if terminal.Is(p.stdin) && p.stdout.draws() && !p.machineReadable && !p.json.on {
		return c.interact(ctx)
	}
	return c.read(ctx)
}

// console evaluates its input line by line.
type console struct {
	*program
	session inspect.Session
}

// read evaluates the lines of standard input, up to the first that fails.
func (c *console) read(ctx context.Context) error {
	in := bufio.NewReader(c.stdin)
	for {
		line, err := in.ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("cannot read standard input: %w", err)
		}
		done, failed := c.line(ctx, strings.TrimRight(line, "\r\n"), err != nil)
		if failed {
			return errReported
		}
		if done || err != nil {
			return nil
		}
	}
}

// line processes one line of input, and shows the result. last means that no further line
// can complete the expression. done reports whether the user has asked to leave, and
// failed whether the line had an error, which has been shown then.
func (c *console) line(ctx context.Context, text string, last bool) (done, failed bool) {
	a, err := c.session.Line(ctx, text, last)
	if err != nil {
		c.report(fmt.Errorf("the console cannot continue: %w", err))
		return true, true
	}
	switch a.Command {
	case inspect.Exit:
		return true, false
	case inspect.Help:
		c.say(consoleHelp)
	case inspect.Variables:
		c.values()
	}
	c.diagnostics(c.session.Outline.Files(), a.Diags)
	if a.Value == nil {
		return false, a.Diags.HasErrors()
	}
	if c.json.on {
		c.writeJSON(c.header("value"), struct {
			Expression string `json:"expression"`
		}{a.Expression}, *a.Value)
	}
	c.say(a.Value.Text)
	return false, false
}

// values shows the variables and local values.
func (c *console) values() {
	variables, locals := inspect.ValuesOf(c.session.Outline, c.session.Outline.Variables), inspect.ValuesOf(c.session.Outline, c.session.Outline.Locals)
	if c.json.on {
		c.writeJSON(c.header("variables"), struct {
			Variables []inspect.Value `json:"variables"`
			Locals    []inspect.Value `json:"locals"`
		}{variables, locals})
	}
	var b strings.Builder
	inspect.WriteValues(&b, variables, locals)
	c.say(strings.TrimRight(b.String(), "\n"))
}

// interact evaluates the lines that a user types at the terminal.
func (c *console) interact(ctx context.Context) (err error) {
	ctx, _, release := c.interrupts(ctx, ignoreSignals)
	defer release()
	history, err := c.openHistory()
	if err != nil {
		fmt.Fprintf(c.stderr, "The console's history is not saved: %v\n", err)
	}
	defer func() { err = errors.Join(err, history.Close()) }()
	words := c.session.Outline.Words()
	slices.Sort(words)
	e := &lineedit.Editor{In: c.stdin.(*os.File), Out: c.stdout.file(), History: history, Words: words}
	for {
		prompt := "> "
		if c.session.Pending() {
			prompt = "  "
		}
		text, err := e.Read(ctx, prompt)
		switch {
		case errors.Is(err, lineedit.ErrDiscarded) && (c.session.Pending() || text != ""):
			c.session.Discard()
			continue
		case err != nil && (errors.Is(err, lineedit.ErrDiscarded) || errors.Is(err, io.EOF) || context.Cause(ctx) != nil):
			return nil
		case err != nil:
			return err
		}
		if done, failed := c.line(ctx, text, false); done {
			if failed {
				return errReported
			}
			return nil
		}
	}
}

// openHistory opens the lines of earlier times. It is never nil: without a file it
// only remembers.
func (c *console) openHistory() (*lineedit.History, error) {
	secret := func(line string) bool { return c.session.Outline.Secrets().Redact(line) != line }
	state, err := c.env.stateDir()
	if err != nil {
		return lineedit.NewHistory(), err
	}
	return lineedit.OpenHistory(state, secret)
}
