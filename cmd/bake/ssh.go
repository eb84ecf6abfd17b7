package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"bake/internal/login"
	"bake/internal/shellquote"
)

func (p *program) sshCommand() *cobra.Command {
	var build string
	cmd := &cobra.Command{
		Use:   "ssh [RUN|BUILD] [-- COMMAND...]",
		Short: "Log in to the machine of a run",
		Long: `Log in to the machine of a run that is waiting at a breakpoint or, with -on-error=ask,
after a failed step, or that left its machine behind, as -on-error=abort does. This
runs ssh with the key of the run, through the template's bastion host if there is one.
Local machines can be reached only while the bake that serves them is running.

RUN is the id of a run or the start of one, and BUILD the name of a build; both can be
omitted when there is only one machine. COMMAND is run on the machine instead of a
shell.`,
		Example: `  bake ssh
  bake ssh amazon-ebs.web
  bake ssh 5e0d7c1e -build amazon-ebs.web
  bake ssh -- sudo journalctl -b`,
		Annotations: map[string]string{exitCodes: `any  exit code of the command or the shell on the machine
1    no such machine, or ssh cannot be run
255  ssh cannot log in`},
		RunE: func(cmd *cobra.Command, args []string) error {
			run, remote := args, []string(nil)
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				run, remote = args[:dash], args[dash:]
			}
			if len(run) > 1 {
				return usageError{"bake ssh takes one run or build; a command for the machine comes after --", cmd.CommandPath()}
			}
			return p.ssh(cmd.Context(), strings.Join(run, ""), build, remote)
		},
	}
	cmd.Flags().StringVar(&build, "build", "", "`name` of the build that the machine belongs to, such as amazon-ebs.web")
	return cmd
}

// exitStatus is the error of a command that ends with the status of another program, which
// has already printed the reason.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func (p *program) ssh(ctx context.Context, run, build string, command []string) error {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	found, err := login.Find(state.Runs(), run, build)
	if err == nil && run != "" && build == "" { // which may be the name of a build
		var named []login.Machine
		named, err = login.Find(state.Runs(), "", run)
		found = append(found, slices.DeleteFunc(named, func(m login.Machine) bool { return strings.HasPrefix(m.Run, run) })...)
	}
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return errors.New("no such machine: bake ssh logs in to machines of runs that are waiting at a breakpoint or, with -on-error=ask, after a failed step, or that left their machines behind")
	}
	if len(found) > 1 {
		var b strings.Builder
		for _, m := range found {
			fmt.Fprintf(&b, "\n  bake ssh %s -build %s", m.Run, shellquote.For(runtime.GOOS, m.Build))
		}
		return fmt.Errorf("there are several machines; choose one:%s", b.String())
	}
	m := found[0]
	if m.Through != "" {
		return fmt.Errorf("the machine of %s can be reached only through %s", m.Build, m.Through)
	}
	client, err := exec.LookPath("ssh")
	if err != nil {
		return fmt.Errorf("cannot run ssh: %w; install the OpenSSH client", err)
	}
	ctx, _, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	cmd := exec.CommandContext(ctx, client, append(m.Args(), command...)...)
	cmd.Cancel = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err == nil { // so that it restores the terminal
			return nil
		}
		return cmd.Process.Kill() // Windows has no such signal
	}
	cmd.Env = p.env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.stdin, p.stdout.Writer, p.stderr.Writer
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return exitStatus(exit.ExitCode())
	}
	return err
}

// ncProxy returns the command that connects to a machine of the local cloud.
func ncProxy() []string {
	self, err := os.Executable()
	if err != nil {
		self = "bake"
	}
	return []string{self, "nc", "%h", "%p"}
}
