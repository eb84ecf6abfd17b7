// Package windowsrestart is the provisioner windows-restart: it restarts a Windows
// machine and waits until it is back.
package windowsrestart

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/component"
	"bake/config/schema"
	"bake/internal/delay"
	"bake/provisioner"
	"bake/step"
)

// Options are the arguments of a windows-restart provisioner.
type Options struct {
	// Command line that restarts the machine.
	RestartCommand string `hcl:"restart_command,optional"`

	// Command line that succeeds once the machine is back. It is repeated until it
	// succeeds; after that, PowerShell must work too.
	RestartCheckCommand string `hcl:"restart_check_command,optional"`

	// How long the restart may take before the build fails. Installing updates can take much
	// longer than the default.
	RestartTimeout time.Duration `hcl:"restart_timeout,optional"`

	// Also wait until none of the `registry_keys` exists, that is, until Windows has
	// finished its pending work.
	CheckRegistry bool `hcl:"check_registry,optional"`

	// Registry keys that exist while a restart is pending. Needs `check_registry`.
	RegistryKeys []string `hcl:"registry_keys,optional"`
}

func defaults() Options {
	const cbs = `HKLM:SOFTWARE\Microsoft\Windows\CurrentVersion\Component Based Servicing\`
	return Options{
		RestartCommand: `shutdown /r /f /t 0 /c "packer restart"`,
		RestartTimeout: 5 * time.Minute,
		RegistryKeys:   []string{cbs + "RebootPending", cbs + "PackagesPending", cbs + "RebootInProgress"},
	}
}

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if o.RestartTimeout <= 0 {
		c.Errorf(&o.RestartTimeout, "Invalid timeout", "restart_timeout must be greater than 0.")
	}
}

// Factory returns the factory of the windows-restart provisioner.
func Factory() component.Factory[provisioner.Provisioner] {
	return component.Define("windows-restart", defaults,
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return &restart{o} })
}

type restart struct{ *Options }

// The exit statuses of shutdown that matter here.
const (
	inProgress   = 1115 // a shutdown is in progress
	notScheduled = 1116 // there is none to abort
	scheduled    = 1190 // a shutdown has been scheduled already
	logonBusy    = 1717 // the interface is unknown: Windows is shutting down or starting
)

// The command lines that determine whether the machine has shut down.
const (
	testShutdown  = `shutdown /r /f /t 60 /c "packer restart test"`
	abortShutdown = `shutdown /a`
	greeting      = "restarted."
	checkBack     = `powershell -NoProfile -NonInteractive -Command "echo ('{0} restarted.' -f [Net.Dns]::GetHostName())"`
)

// The intervals between attempts.
const (
	busyPause  = 10 * time.Second
	checkPause = 5 * time.Second
)

var errTimeout = errors.New("the machine was not back")

// Provision implements [provisioner.Provisioner].
func (p *restart) Provision(ctx context.Context, s *step.Scope, m builder.Machine) error {
	ctx, cancel := context.WithTimeoutCause(ctx, p.RestartTimeout,
		fmt.Errorf("%w within %s (restart_timeout)", errTimeout, p.RestartTimeout))
	defer cancel()
	s.Say(ctx, "Restarting the machine")
	if s.Run.MachinesEnd > 0 { // Windows accepts only one scheduled shutdown, so the one at the time limit has to be cancelled
		if _, _, err := run(ctx, m, abortShutdown); err != nil {
			return err
		}
	}
	code, _, err := run(ctx, m, p.RestartCommand)
	// A machine that is shutting down may not answer, so err is not fatal.
	if err == nil && !slices.Contains([]int{0, inProgress, scheduled}, code) {
		return fmt.Errorf("restart_command ended with status %d", code)
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	s.Say(ctx, "Waiting for the machine to restart...")
	if err := goneDown(ctx, m); err != nil {
		return err
	}
	if err := p.back(ctx, s, m); err != nil {
		return err
	}
	s.Say(ctx, "The machine has restarted")
	return nil
}

// run runs a command line and returns its standard output.
func run(ctx context.Context, m builder.Machine, line string) (code int, out string, err error) {
	b := communicator.Head{Max: 64 << 10}
	st, err := m.Run(ctx, communicator.Command{Line: line, Stdout: &b})
	return st.Code, b.String(), err
}

// goneDown waits until the machine has shut down: until it does not answer, or until it is back
// already and accepts another shutdown.
func goneDown(ctx context.Context, m builder.Machine) error {
	for {
		code, _, err := run(ctx, m, testShutdown)
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err != nil || code == 1:
			return nil
		case code == 0:
			return takeBack(ctx, m)
		case !slices.Contains([]int{inProgress, scheduled, logonBusy}, code):
			return fmt.Errorf("%s ended with status %d", testShutdown, code)
		}
		if err := delay.For(ctx, busyPause); err != nil {
			return err
		}
	}
}

// takeBack cancels the test shutdown. If the answer is lost, the machine may be going down, which
// discards the test shutdown, or may restart a minute later, in the middle of the next step. So it
// repeats the command until the machine answers.
func takeBack(ctx context.Context, m builder.Machine) error {
	for {
		code, _, err := run(ctx, m, abortShutdown)
		switch {
		case context.Cause(ctx) != nil:
			return context.Cause(ctx)
		case err == nil && (code == 0 || code == notScheduled):
			return nil
		case err == nil && !slices.Contains([]int{inProgress, logonBusy}, code):
			return fmt.Errorf("%s ended with status %d", abortShutdown, code)
		}
		if err := delay.For(ctx, checkPause); err != nil {
			return err
		}
	}
}

// back waits until the machine is back, by the criteria in the options.
func (p *restart) back(ctx context.Context, s *step.Scope, m builder.Machine) error {
	if p.RestartCheckCommand != "" {
		if err := until(ctx, m, p.RestartCheckCommand, func(code int, _ string) bool { return code == 0 }); err != nil {
			return err
		}
	}
	if err := until(ctx, m, checkBack, func(_ int, out string) bool { return strings.Contains(out, greeting) }); err != nil {
		return err
	}
	if !p.CheckRegistry || len(p.RegistryKeys) == 0 {
		return nil
	}
	s.Say(ctx, "Waiting until Windows has finished its pending work...")
	for i := 0; i < len(p.RegistryKeys); i++ {
		waited := false
		line := `powershell -NoProfile -NonInteractive -Command "Test-Path '` + strings.ReplaceAll(p.RegistryKeys[i], "'", "''") + `'"`
		err := until(ctx, m, line, func(_ int, out string) bool {
			gone := strings.TrimSpace(out) == "False"
			waited = waited || !gone
			return gone
		})
		if err != nil {
			return err
		}
		if waited && len(p.RegistryKeys) > 1 {
			i = -1 // the others may exist by now
		}
	}
	return nil
}

// until repeats a command line until good accepts the result. It tolerates lost
// connections, which are part of a restart.
func until(ctx context.Context, m builder.Machine, line string, good func(code int, out string) bool) error {
	last := ""
	for {
		code, out, err := run(ctx, m, line)
		switch {
		case err == nil && good(code, out):
			return nil
		case err == nil:
			last = fmt.Sprintf("%.200q ended with status %d and printed %.500q", line, code, strings.TrimSpace(out))
		case context.Cause(ctx) == nil:
			last = err.Error()
		}
		if err := delay.For(ctx, checkPause); err != nil {
			if last != "" && errors.Is(err, errTimeout) {
				err = fmt.Errorf("%w; the last attempt: %s", err, last)
			}
			return err
		}
	}
}
