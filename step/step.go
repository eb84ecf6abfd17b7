// Package step runs a build as ordinary Go code whose side effects are recorded.
//
// A build is a function. Each named step is a call to [Do], which returns a typed result. Each
// resource is created by a call to [Acquire], which records the intent before the request to the
// cloud. Since the records are data, the same code tears down after success, failure, cancellation
// and a crash.
package step

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Invocation is what all builds of an invocation share.
type Invocation struct {
	ID    string // a UUID; also the value of the tag on every taggable resource
	Force bool   // -force
	Debug bool   // -debug
	Env   []string

	Command string // the user's command line, for the log

	// MachinesEnd is the time after Start at which machines terminate themselves, whatever happens
	// to the run; 0 means never.
	MachinesEnd time.Duration

	Start   time.Time // returned by {{timestamp}} and similar functions in options rendered during the build
	Version string    // returned by {{packer_version}}

	Redact func(string) string // removes secrets from text before it is written to a file; nil means that there are none
}

// Scope is the context of a build: it identifies the build in events, owns the build's resources,
// and emits its events. Its exported fields are set before the build starts and do not change
// afterwards. Methods are safe for concurrent use.
type Scope struct {
	Run        Invocation
	Build      string // full name: [build.]type.name
	SourceType string // such as amazon-ebs
	SourceName string // the label of the source block

	// Key is the private key, in PEM, of the machine that an earlier process of the run has kept.
	// It is empty if there is none, or if it is the user's own.
	Key string

	Ledger  Ledger
	Journal Journal     // nil means that no results are recorded
	Emit    func(Event) // safe for concurrent use

	// Grace is the time limit for a teardown.
	Grace time.Duration

	// Failed is called after a failed step; nil means GiveUp. If it returns Retry, the step runs
	// again; resources that it has acquired stay owned.
	Failed func(ctx context.Context, step string, err error) Decision

	// Leaves reports whether the resources of a failed build are left in place. Nil means that they
	// are destroyed.
	Leaves func() bool

	// Stop cancels teardown inside a step, such as that of a plugin's build. It may be nil.
	Stop context.Context

	// Pause is called before each step and before each teardown, and may be nil. It
	// returns when the user wants to continue, or with the cause of ctx.
	Pause func(ctx context.Context, step string) error

	// Boundary makes the build run in stages, and is called at the end of each; see [EndStage]. It
	// may be called concurrently. Nil means that the build runs to completion.
	Boundary func(Boundary)

	// Source is the component that emits events, if it is not the builder.
	Source string

	shared *shared
}

type shared struct {
	mu         sync.Mutex
	destroyers map[string]Destroyer
}

// NewScope returns a usable scope with the fields of s.
func NewScope(s Scope) *Scope {
	s.shared = &shared{destroyers: map[string]Destroyer{}}
	return &s
}

// As returns a scope like s whose events have source as their component. It owns the same
// resources.
func (s *Scope) As(source string) *Scope {
	c := *s
	c.Source = source
	return &c
}

// Unattended returns a scope like s whose failed steps are not offered for a retry: for
// steps that are retried as a group, or where there is no user to ask. It owns the same
// resources.
func (s *Scope) Unattended() *Scope {
	c := *s
	c.Failed = nil
	return &c
}

// Decision is what to do after a failed step.
type Decision int

// The possible decisions.
const (
	GiveUp Decision = iota
	Retry
)

// Handle makes d the destroyer of every resource whose kind starts with
// prefix and a colon, such as "ec2". A builder calls it once it has a client,
// before it acquires anything of that kind.
func (s *Scope) Handle(prefix string, d Destroyer) {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	s.shared.destroyers[prefix] = d
}

// Destroyers returns all registered destroyers as one.
func (s *Scope) Destroyers() Destroyer {
	s.shared.mu.Lock()
	defer s.shared.mu.Unlock()
	m := Destroyers{}
	for k, v := range s.shared.destroyers {
		m[k] = v
	}
	return m
}

type stepKey struct{}

// Path returns the names of the current steps of ctx, joined by " > ".
func Path(ctx context.Context) string {
	p, _ := ctx.Value(stepKey{}).(string)
	return p
}

func (s *Scope) emit(ctx context.Context, e Event) {
	e.Time, e.Build, e.Step, e.Source = time.Now(), s.Build, Path(ctx), s.Source
	s.Emit(e)
}

// Say emits a message for the user.
func (s *Scope) Say(ctx context.Context, format string, args ...any) {
	s.emit(ctx, Event{Kind: Say, Text: fmt.Sprintf(format, args...)})
}

// Warn emits a warning about a problem that does not stop the build.
func (s *Scope) Warn(ctx context.Context, format string, args ...any) {
	s.emit(ctx, Event{Kind: Warning, Text: fmt.Sprintf(format, args...)})
}

// Reported reports that a file about the machine or the image was written.
func (s *Scope) Reported(ctx context.Context, r Report) {
	s.emit(ctx, Event{Kind: Reported, Report: &r})
}

// Placed reports that an image has reached a place of its distribution.
func (s *Scope) Placed(ctx context.Context, p Placement) {
	s.emit(ctx, Event{Kind: ImagePlaced, Placed: &p})
}

// Channel reports whether a channel points to the image.
func (s *Scope) Channel(ctx context.Context, c Channel) {
	s.emit(ctx, Event{Kind: ChannelAsked, Channel: &c})
}

// Output emits a line of output of the build. kind is [Output], [ErrOutput] or [Partial].
func (s *Scope) Output(ctx context.Context, kind Kind, line string) {
	s.emit(ctx, Event{Kind: kind, Text: line})
}

// Progress reports the progress of the current step. It may be called often: displays limit the
// rate.
func (s *Scope) Progress(ctx context.Context, p Progress) {
	s.emit(ctx, Event{Kind: Progressed, Progress: &p})
}

// Do runs fn as a named step and returns its result. The error of a failed step contains the step's
// name once. fn may call Do again for nested steps.
func Do[T any](ctx context.Context, s *Scope, name string, fn func(context.Context) (T, error)) (T, error) {
	var zero T
	if p := Path(ctx); p != "" {
		ctx = context.WithValue(ctx, stepKey{}, p+" > "+name)
	} else {
		ctx = context.WithValue(ctx, stepKey{}, name)
	}
	for {
		if err := context.Cause(ctx); err != nil {
			return zero, &Error{Step: name, Err: err}
		}
		if s.Pause != nil {
			if err := s.Pause(ctx, Path(ctx)); err != nil {
				return zero, &Error{Step: name, Err: err}
			}
		}
		start := time.Now()
		s.emit(ctx, Event{Kind: StepStarted})
		v, err := fn(ctx)
		if err == nil {
			s.emit(ctx, Event{Kind: StepFinished, Elapsed: time.Since(start)})
			return v, nil
		}
		if errors.Is(err, ErrBoundary) {
			s.emit(ctx, Event{Kind: StepFinished, Elapsed: time.Since(start)})
			return zero, err
		}
		s.emit(ctx, Event{Kind: StepFailed, Elapsed: time.Since(start), Error: err})
		// Only the innermost step is offered for a retry: its caller has not failed yet.
		var inner *Error
		nested := errors.As(err, &inner)
		if s.Failed != nil && !nested && context.Cause(ctx) == nil && s.Failed(ctx, Path(ctx), err) == Retry {
			continue
		}
		if nested {
			return zero, err
		}
		return zero, &Error{Step: name, Err: err}
	}
}

// Run is Do for a step that has no result.
func Run(ctx context.Context, s *Scope, name string, fn func(context.Context) error) error {
	_, err := Do(ctx, s, name, func(ctx context.Context) (struct{}, error) { return struct{}{}, fn(ctx) })
	return err
}

// ErrRefused is wrapped by errors that the cloud causes: it rejected the request, lacks the
// requested resource, or could not be reached.
var ErrRefused = errors.New("refused by the cloud")

// Error is the failure of a step.
type Error struct {
	Step string
	Err  error
}

func (e *Error) Error() string { return e.Step + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Acquire creates want as a named step; the scope then owns it. The intent is durable before create
// is called, and the id before Acquire returns. If create fails, the intent remains, since the
// request may have partly succeeded: teardown then looks for the resource by its key.
func Acquire[T any](ctx context.Context, s *Scope, name string, want Resource, create func(context.Context) (id string, v T, err error)) (T, error) {
	return Do(ctx, s, name, func(ctx context.Context) (T, error) {
		var zero T
		want.Build = s.Build
		if err := s.Ledger.Intend(want); err != nil {
			return zero, fmt.Errorf("recording the intent: %w", err)
		}
		s.emit(ctx, Event{Kind: ResourceIntended, Resource: &want})
		id, v, err := create(ctx)
		if err != nil {
			return zero, err
		}
		made := want
		made.ID = id
		if err := s.Ledger.Created(want.Key, id); err != nil {
			return zero, fmt.Errorf("recording that %s exists: %w", made, err)
		}
		s.emit(ctx, Event{Kind: ResourceCreated, Resource: &made})
		return v, nil
	})
}

// Keep releases resources to the user, all or none: Close will not destroy them.
func (s *Scope) Keep(ctx context.Context, keys ...string) error {
	owned, err := s.owned()
	if err != nil {
		return err
	}
	owned = slices.DeleteFunc(owned, func(r Resource) bool { return !slices.Contains(keys, r.Key) })
	keys = nil
	for _, r := range owned {
		keys = append(keys, r.Key)
	}
	if err := s.Ledger.Gone(keys...); err != nil {
		return err
	}
	for _, r := range owned {
		s.emit(ctx, Event{Kind: ResourceKept, Resource: &r})
	}
	return nil
}

// Destroy destroys the resource with this key now. It does nothing if the scope does not own it.
func (s *Scope) Destroy(ctx context.Context, key string) error {
	owned, err := s.owned()
	if err != nil {
		return err
	}
	for _, r := range owned {
		if r.Key == key {
			return s.destroy(ctx, s.Destroyers(), r)
		}
	}
	return nil
}

func (s *Scope) destroy(ctx context.Context, d Destroyer, r Resource) error {
	err := Run(ctx, s, "destroy "+r.String(), func(ctx context.Context) error {
		if err := d.Destroy(ctx, r); err != nil {
			return err
		}
		if err := s.Ledger.Gone(r.Key); err != nil {
			return err
		}
		s.emit(ctx, Event{Kind: ResourceDestroyed, Resource: &r})
		return nil
	})
	if err != nil { // including a step that could not start in time
		s.emit(ctx, Event{Kind: ResourceLeft, Resource: &r, Error: err})
	}
	return err
}

func (s *Scope) owned() ([]Resource, error) {
	all, err := s.Ledger.Owned()
	var mine []Resource
	for _, r := range all {
		if r.Build == s.Build {
			mine = append(mine, r)
		}
	}
	return mine, err
}

// Leave releases what the scope still owns without destroying it, and returns it. It stays in the
// ledger, so that a sweep finds it.
func (s *Scope) Leave(ctx context.Context) ([]Resource, error) {
	owned, err := s.owned()
	for _, r := range owned {
		s.emit(ctx, Event{Kind: ResourceLeft, Resource: &r})
	}
	return owned, err
}

// Close destroys everything that the scope still owns, newest first, even if ctx is already
// cancelled. Only the cancellation of stop ends it early. It tries every resource and joins the
// errors. What could not be destroyed stays in the ledger.
func (s *Scope) Close(ctx, stop context.Context) error {
	ctx, end := s.Teardown(ctx, stop)
	defer end()
	return teardown(ctx, s, s.Destroyers(), func(Resource) bool { return true })
}

// Discard destroys, like Close, the scope's resources that match accepts.
func (s *Scope) Discard(ctx context.Context, match func(Resource) bool) error {
	stop := s.Stop
	if stop == nil {
		stop = context.Background()
	}
	ctx, end := s.Teardown(ctx, stop)
	defer end()
	return teardown(ctx, s, s.Destroyers(), match)
}

// Teardown returns a context for teardown: it outlives ctx and ends after the scope's grace period
// or with stop. The caller must call end.
func (s *Scope) Teardown(ctx, stop context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), s.Grace,
		fmt.Errorf("teardown took longer than %s", s.Grace))
	ctx, cancelCause := context.WithCancelCause(ctx)
	detach := context.AfterFunc(stop, func() { cancelCause(context.Cause(stop)) })
	if stop.Err() != nil { // there is no time to start anything
		cancelCause(context.Cause(stop))
	}
	return ctx, func() {
		detach()
		cancelCause(nil)
		cancel()
	}
}

func teardown(ctx context.Context, s *Scope, d Destroyer, match func(Resource) bool) error {
	owned, err := s.owned()
	owned = slices.DeleteFunc(owned, func(r Resource) bool { return !match(r) })
	var errs *multierror.Error
	if err != nil {
		errs = multierror.Append(errs, err)
	}
	quiet := s.Unattended() // a failed teardown is reported, not offered for a retry
	stopped := false
	for i := len(owned) - 1; i >= 0; i-- {
		err := quiet.destroy(ctx, d, owned[i])
		if cause := context.Cause(ctx); cause != nil && errors.Is(err, cause) {
			if stopped {
				continue // already reported
			}
			stopped, err = true, cause
		}
		if err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	if errs != nil {
		errs.ErrorFormat = joinErrors
	}
	return errs.ErrorOrNil()
}

func joinErrors(errs []error) string {
	var lines []string
	for _, e := range errs {
		lines = append(lines, e.Error())
	}
	return strings.Join(lines, "\n")
}
