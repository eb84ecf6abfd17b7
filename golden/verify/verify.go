// Package verify checks a finished image before it is distributed: it launches machines
// from the image, reboots them and checks them.
package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bake/builder"
	"bake/golden/asroot"
	"bake/golden/findings"
	"bake/internal/delay"
	"bake/step"
)

// Plan defines how an image is verified.
type Plan struct {
	Name      string
	Types     []string // of machines; none: that of the build
	User      string   // to log in as; empty: that of the build
	Reboots   int
	Timeout   time.Duration        // of each machine, from launch to deletion
	OnFailure builder.RejectAction // for an image that fails

	// Check runs the user's checks on a machine. Nil: there are none.
	Check func(ctx context.Context, s *step.Scope, m builder.Machine, machine string) error

	// Files compares the files of a machine launched from the image with those of the
	// build's machine.
	Files func(ctx context.Context, m builder.Machine) (findings.Finding, error)

	// Leftovers searches a machine launched from the image for leftovers.
	Leftovers func(ctx context.Context, m builder.Machine) (findings.Report, error)

	// Provision runs the user's provisioners on a machine. Nil: there are none.
	Provision func(ctx context.Context, m builder.Machine) error

	// Judge returns an error if the findings on a machine close the gate.
	Judge func(ctx context.Context, s *step.Scope, machine string, reports []findings.Report) error
}

// Boots returns the machines that the plan requires.
func (p Plan) Boots() []builder.Boot {
	if len(p.Types) == 0 {
		return []builder.Boot{{User: p.User}}
	}
	var all []builder.Boot
	for _, t := range p.Types {
		all = append(all, builder.Boot{InstanceType: t, User: p.User})
	}
	return all
}

// Run verifies an image that was made from the machine of. An error is a
// *[builder.RejectedError], unless ctx has ended.
func (p Plan) Run(ctx context.Context, s *step.Scope, image builder.Image, of Identity) error {
	for _, boot := range p.Boots() {
		if err := p.boot(ctx, s, image, of, boot); err != nil {
			if context.Cause(ctx) != nil {
				return err
			}
			return &builder.RejectedError{Action: p.OnFailure, Err: err}
		}
	}
	return nil
}

func (p Plan) boot(ctx context.Context, s *step.Scope, image builder.Image, of Identity, boot builder.Boot) error {
	name := fmt.Sprintf("verify the image (%s)", p.Name)
	if boot.InstanceType != "" {
		name = fmt.Sprintf("verify the image (%s) on %s", p.Name, boot.InstanceType)
	}
	return step.Run(ctx, s, name, func(ctx context.Context) error {
		late := fmt.Errorf("verification %q took longer than %s, its timeout", p.Name, p.Timeout)
		within, cancel := context.WithTimeoutCause(ctx, p.Timeout, late)
		defer cancel()
		err := image.Boot(within, boot, func(ctx context.Context, m builder.Machine) error {
			return p.machine(ctx, s, image, of, boot, m)
		})
		if err != nil && context.Cause(ctx) == nil && errors.Is(context.Cause(within), late) && !errors.Is(err, late) {
			err = fmt.Errorf("%w: %w", late, err)
		}
		return err
	})
}

// machine verifies one machine launched from the image.
func (p Plan) machine(ctx context.Context, s *step.Scope, image builder.Image, of Identity, boot builder.Boot, m builder.Machine) error {
	report := findings.Report{Name: "verify." + p.Name, Tool: "bake:verify", Started: time.Now()}
	seen, err := settle(ctx, m)
	if err != nil {
		return fmt.Errorf("looking at the machine: %w", err)
	}
	report.Findings = seen.judge(of)
	for n := 1; n <= p.Reboots; n++ {
		f, err := reboot(ctx, s, m, seen, n)
		if err != nil {
			return err
		}
		report.Findings = append(report.Findings, f...)
	}
	files, err := p.Files(ctx, m)
	if err != nil {
		return fmt.Errorf("comparing the files: %w", err)
	}
	report.Findings = append(report.Findings, files)
	left, err := p.Leftovers(ctx, m)
	if err != nil {
		return fmt.Errorf("looking for leftovers: %w", err)
	}
	if err := p.Judge(ctx, s, machineName(image, boot), []findings.Report{report, left}); err != nil {
		return err
	}
	if p.Check != nil {
		if err := p.Check(ctx, s, m, machineName(image, boot)); err != nil {
			return err
		}
	}
	if p.Provision == nil {
		return nil
	}
	return p.Provision(ctx, m)
}

func machineName(image builder.Image, boot builder.Boot) string {
	if boot.InstanceType == "" {
		return image.ID
	}
	return image.ID + " on " + boot.InstanceType
}

// pause is the interval between checks of whether a machine has started.
const pause = time.Second

// settle waits until the machine has started, or has failed to, and returns its state. ctx
// limits the wait.
func settle(ctx context.Context, m builder.Machine) (sight, error) {
	for {
		seen, err := look(ctx, m)
		if err != nil || !seen.starting() {
			return seen, err
		}
		if err := delay.For(ctx, pause); err != nil {
			return seen, fmt.Errorf("the machine is still starting (systemd says %q, cloud-init %q): %w", seen.state, seen.cloudInit, err)
		}
	}
}

// reboot reboots the machine and judges its state afterwards.
func reboot(ctx context.Context, s *step.Scope, m builder.Machine, before sight, n int) ([]findings.Finding, error) {
	return step.Do(ctx, s, fmt.Sprintf("restart the machine (%d)", n), func(ctx context.Context) ([]findings.Finding, error) {
		last, err := look(ctx, m) // it may have been rebooted before
		if err != nil {
			return nil, err
		}
		// The command's result does not matter: the reboot interrupts it.
		_, _ = asroot.Run(ctx, m, "(sleep 1; systemctl reboot || shutdown -r now || reboot) >/dev/null 2>&1 &")
		for {
			if err := delay.For(ctx, pause); err != nil {
				return nil, fmt.Errorf("the machine has not come back from restart %d: %w", n, err)
			}
			again, err := look(ctx, m)
			if err != nil || again.started == last.started { // the reboot is still in progress
				continue
			}
			if again, err = settle(ctx, m); err != nil {
				return nil, err
			}
			return again.afterReboot(before, n), nil
		}
	})
}
