package host

import (
	"context"
	"errors"
	"fmt"
	"time"

	"bake/config/schema"
	"bake/plugin/wire"
	"bake/step"
)

const (
	beginTimeout  = 10 * time.Second       // for a plugin to start the work
	cancelDelay   = 300 * time.Millisecond // from its start until it can be cancelled
	quietTime     = 5 * time.Second        // before the user learns that bake waits for the plugin
	tellTimeout   = 2 * time.Second        // for a plugin to receive a cancellation
	cancelGrace   = 30 * time.Second       // for provisioners and post-processors to end after a cancellation
	teardownGrace = 10 * time.Minute       // for builders, which then remove what they have created
)

// sensitive returns the names of the variables whose values must not be shown.
func sensitive(b schema.Build) []string {
	if b.Sensitive == nil {
		return []string{}
	}
	return b.Sensitive
}

// ready starts the plugin for real work and passes it its options.
func (h hosted) ready(ctx context.Context, s *step.Scope) (*process, error) {
	e, err := intend(s, h.part)
	if err != nil {
		return nil, fmt.Errorf("recording that a plugin is started: %w", err)
	}
	proc, err := h.start(ctx, true, runVariable+s.Run.ID)
	if err != nil {
		return nil, errors.Join(err, e.gone())
	}
	proc.entry = e
	if err := e.started(proc.cmd.Process.Pid); err != nil {
		return nil, errors.Join(fmt.Errorf("recording that a plugin was started: %w", err), proc.Close())
	}
	if err := h.hand(ctx, proc, s); err != nil {
		_ = proc.Close()
		return nil, err
	}
	return proc, nil
}

// hand passes the options to the plugin. Warnings that were not shown when the options were checked
// go to s, which may be nil.
func (h hosted) hand(ctx context.Context, proc *process, s *step.Scope) error {
	said, err := h.prepare(ctx, proc, h.options)
	if err != nil {
		return err
	}
	for _, w := range said.warnings {
		h.mu.Lock()
		again := h.warned[w]
		h.warned[w] = true
		h.mu.Unlock()
		if s != nil && !again {
			s.Warn(ctx, "%s: %s", h.label, w)
		}
	}
	if said.err != nil {
		return h.options.blame(h.label, said.err)
	}
	return nil
}

// job is a call of the method that does the work of a component.
type job struct {
	method      string
	args, reply any             // reply is valid only if there is no error
	begun       <-chan struct{} // closed when the plugin has started the work
	grace       time.Duration   // time for it to end regularly after a cancellation
	told        func(error)     // called with the cause once the plugin has received the cancellation; may be nil
}

// work runs a job and waits for it. When ctx ends it cancels the job and waits while the plugin
// cleans up; the scope can end that wait.
func (h hosted) work(ctx context.Context, s *step.Scope, proc *process, j job) error {
	done := make(chan error, 1)
	go func() { done <- proc.call(proc.life, h.kind.service()+"."+j.method, j.args, j.reply) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	ended, err := h.cancel(context.WithoutCancel(ctx), cause, s, proc, j, done)
	switch {
	case !ended:
		return fmt.Errorf("%w; %s", cause, proc.giveUp(h.kind != provisionerKind))
	case errors.Is(err, wire.ErrGone): // so it has not cleaned up anything
		return fmt.Errorf("%w; %w", cause, err)
	case err != nil:
		return cause
	}
	return nil
}

// cancel cancels a job. It returns whether the job has ended and its error.
func (h hosted) cancel(ctx context.Context, cause error, s *step.Scope, proc *process, j job, done <-chan error) (ended bool, err error) {
	var stopped <-chan struct{}
	if s.Stop != nil {
		stopped = s.Stop.Done()
	}
	wait := func(d time.Duration, ch <-chan struct{}) (over bool) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case err = <-done:
			ended = true
			return true
		case <-stopped:
			return true
		case <-ch:
		case <-timer.C:
			return ch != nil
		}
		return false
	}
	// A plugin crashes if it is cancelled before it has started the work.
	if wait(beginTimeout, j.begun) || wait(cancelDelay, nil) {
		return ended, err
	}
	life, stop := context.WithCancel(proc.life)
	defer stop()
	go func() {
		life, stop := context.WithTimeout(life, tellTimeout)
		defer stop()
		_ = proc.call(life, h.kind.service()+".Cancel", nil, nil)
		if j.told != nil {
			j.told(cause)
		}
	}()
	if quiet := min(quietTime, j.grace); !wait(quiet, nil) && j.grace > quiet {
		s.Say(ctx, "Waiting for %s to end, for at most %s", h.label, j.grace)
		wait(j.grace-quiet, nil)
	}
	return ended, err
}

// failed is the error of a plugin's work whose cause, err, arose in bake. The plugin returned only
// its text.
type failed struct {
	text string
	err  error
}

func (e *failed) Error() string { return e.text }
func (e *failed) Unwrap() error { return e.err }
