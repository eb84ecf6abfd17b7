package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bake/builder"
	"bake/config"
	"bake/internal/delay"
	"bake/step"
)

// provision runs the build's provisioners one after the other. If one fails, it runs the
// error-cleanup-provisioner. It is the builder's [builder.Provision].
func (x *execution) provision(ctx context.Context, m builder.Machine) (err error) {
	defer func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.failed = err != nil && !errors.Is(err, step.ErrBoundary)
	}()
	defer recovered(&err)
	x.mu.Lock()
	x.machine = m
	x.mu.Unlock()
	m.Leftovers, m.Uploads = new(builder.Leftovers), x.options.Uploads
	for _, s := range m.Data.Secrets() {
		x.secret(s)
	}
	first, err := x.first()
	if err != nil {
		return err
	}
	if x.byStages() {
		if first, err = x.nextProvisioner(ctx, m); err != nil {
			return err
		}
	}
	if x.options.Ready != nil && first == 0 && x.usesMachine() {
		if err := x.options.Ready(ctx, x.scope, m); err != nil {
			return err
		}
	}
	if used, _ := step.Recall[bool](x.scope, cached); used && x.options.Cache == nil {
		x.scope.Say(ctx, "No machines are added to the cache: after a resume, the state of the machine is not known")
	}
	if x.options.Cache != nil && !x.cache.started {
		x.scope.Say(ctx, "The cache is not used: builders of type %s cannot start from it", x.build.Type)
	}
	for i := max(first, x.cache.done); i < len(x.build.Provisioners); i++ {
		if err := x.runProvisioner(ctx, m, i); err != nil {
			return err
		}
	}
	if err := x.tidy(ctx, m); err != nil {
		return err
	}
	if err := x.provisioned(ctx, m); err != nil {
		x.cleanUp(ctx, m)
		return err
	}
	return x.unmark(ctx, m)
}

// runProvisioner runs a provisioner of the build, including retries.
func (x *execution) runProvisioner(ctx context.Context, m builder.Machine, i int) error {
	if err := x.begin(ctx, m, i); err != nil {
		return err
	}
	p := x.build.Provisioners[i]
	name := "provision with " + title(p)
	if n := len(x.build.Provisioners); n > 1 {
		name += fmt.Sprintf(" (%d of %d)", i+1, n)
	}
	if err := x.attempts(ctx, name, p, m); err != nil {
		x.cleanUp(ctx, m)
		x.abandon(ctx, m)
		return err
	}
	x.keep(ctx, m, i)
	return x.end(ctx, m, i)
}

// usesMachine reports whether anything runs on the machine before it becomes an image.
func (x *execution) usesMachine() bool {
	p := x.pipeline(x.build)
	return len(x.build.Provisioners) > 0 || p != nil && p.Provisioned != nil
}

// tidy removes the provisioners' temporary files from a machine that will become an image.
func (x *execution) tidy(ctx context.Context, m builder.Machine) error {
	for _, l := range m.Leftovers.Take() {
		err := step.Run(ctx, x.scope, "remove "+l.Path+" from the machine", func(ctx context.Context) error {
			return l.Remove(ctx)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// abandonGrace is the time limit for removing files from a machine after a failure.
const abandonGrace = 5 * time.Second

// abandon tries to remove the provisioners' temporary files from a machine that will not become an
// image but may outlive the build.
func (x *execution) abandon(ctx context.Context, m builder.Machine) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), abandonGrace, fmt.Errorf("no answer within %s", abandonGrace))
	defer cancel()
	defer context.AfterFunc(x.runner.stop, cancel)()
	for _, l := range m.Leftovers.Take() {
		err := l.Remove(ctx)
		if err != nil && x.runner.stop.Err() == nil { // otherwise the machine may be gone
			x.scope.Warn(ctx, "Left on the machine: %s, which could not be removed: %s", l.Path, err)
		}
	}
}

// cleanUp runs the error-cleanup-provisioner, unless the machine is to be left untouched. If the
// provisioner fails, cleanUp only warns, since the build has already failed.
func (x *execution) cleanUp(ctx context.Context, m builder.Machine) {
	p := x.build.ErrorCleanup
	if p == nil || context.Cause(ctx) != nil || x.leaves() && x.options.OnError != RunCleanupProvisioner {
		return
	}
	if err := x.attempts(ctx, "clean up with "+title(p), p, m); err != nil {
		x.scope.Warn(ctx, "error-cleanup-provisioner: %s", err)
	}
}

func title(p *config.Provisioner) string {
	if p.Name != "" {
		return fmt.Sprintf("%s %q", p.Type, p.Name)
	}
	return p.Type
}

// attempts runs a provisioner as its meta-arguments say: with a pause and a time limit for each
// attempt, with retries, and possibly with failures as warnings.
func (x *execution) attempts(ctx context.Context, name string, p *config.Provisioner, m builder.Machine) error {
	for attempt := 0; ; attempt++ {
		last := attempt >= p.MaxRetries
		do := x.scope
		if !last || p.ContinueOnError { // the template handles this failure
			do = do.Unattended()
		}
		err := step.Run(ctx, do, name, func(ctx context.Context) error {
			return x.attempt(ctx, do, p, m)
		})
		switch {
		case err == nil:
			return nil
		case context.Cause(ctx) != nil:
			return err
		case !last:
			x.scope.Warn(ctx, "%s; trying again (retry %d of %d)", err, attempt+1, p.MaxRetries)
		case p.ContinueOnError:
			x.scope.Warn(ctx, "%s; the build continues because of continue_on_error", err)
			return nil
		default:
			return blame(ctx, err, name, p.TypeRange)
		}
	}
}

// attempt runs a provisioner once. It decodes the provisioner again, since the values of build.*
// are known only now.
func (x *execution) attempt(ctx context.Context, s *step.Scope, p *config.Provisioner, m builder.Machine) (err error) {
	defer recovered(&err)
	if p.PauseBefore > 0 {
		s.Say(ctx, "Pausing for %s before this provisioner", p.PauseBefore)
		if err := delay.For(ctx, p.PauseBefore); err != nil {
			return err
		}
	}
	if p.Timeout > 0 {
		s.Say(ctx, "This provisioner may take up to %s", p.Timeout)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("not finished after its timeout of %s", p.Timeout))
		defer cancel()
	}
	values := actual(x.exports[x.build], x.options.Run, m.Data)
	provisioner, err := newComponent(ctx, x.maker, x.build, p.Component, x.components.Provisioners, values)
	if err != nil {
		return err
	}
	defer x.close(ctx, p.Type, provisioner)
	if p.Type == "breakpoint" { // a breakpoint exists for the user to inspect the machine
		x.sayLogin(ctx)
	}
	err = provisioner.Provision(ctx, s, m)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}
