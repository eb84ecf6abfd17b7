// Package breakpoint is the provisioner that pauses until the user continues.
package breakpoint

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"bake/builder"
	"bake/component"
	"bake/config/schema"
	"bake/internal/terminal"
	"bake/provisioner"
	"bake/step"
)

// Options are the arguments of a breakpoint provisioner.
type Options struct {
	// Do not pause here. Set it from a variable to turn breakpoints on and off.
	Disable bool `hcl:"disable,optional"`

	// Text to show during the pause.
	Note string `hcl:"note,optional"`
}

// Factory returns the factory of the breakpoint provisioner. open opens the source of the
// user's input; nil means the controlling terminal.
func Factory(open func() (io.ReadCloser, error)) component.Factory[provisioner.Provisioner] {
	if open == nil {
		open = func() (io.ReadCloser, error) { return terminal.Open() }
	}
	return component.Define("breakpoint", func() Options { return Options{} },
		func(o *Options, _ *schema.Source) provisioner.Provisioner { return &breakpoint{o, open} })
}

type breakpoint struct {
	*Options
	open func() (io.ReadCloser, error)
}

// Provision implements [provisioner.Provisioner].
func (p *breakpoint) Provision(ctx context.Context, s *step.Scope, _ builder.Machine) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if p.Disable {
		if p.Note != "" {
			s.Say(ctx, "Breakpoint with note %q is disabled; continuing.", p.Note)
		} else {
			s.Say(ctx, "Breakpoint is disabled; continuing.")
		}
		return nil
	}
	tty, err := p.open()
	if err != nil {
		return fmt.Errorf("a breakpoint needs a terminal to wait at (disable = true skips it): %w", err)
	}
	defer tty.Close()
	if p.Note != "" {
		s.Say(ctx, "Pausing at breakpoint: %s", p.Note)
	} else {
		s.Say(ctx, "Pausing at breakpoint.")
	}
	s.Say(ctx, "Press enter to continue.")
	read := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(tty).ReadString('\n')
		read <- err
	}()
	select {
	case err := <-read:
		if errors.Is(err, io.EOF) {
			return errors.New("the terminal was closed at a breakpoint")
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
