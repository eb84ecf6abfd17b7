package launch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/wait"
	"bake/communicator"
	"bake/internal/lazyregexp"
)

// InstanceMonitor watches an instance while the build depends on its running.
type InstanceMonitor struct {
	l    *Launcher
	id   string
	busy atomic.Bool // the machine was reached: its shutdown may be intentional
	stop context.CancelCauseFunc
	over chan struct{}
}

// goneError is the error of an instance that has stopped or terminated by itself.
type goneError struct{ text string }

func (e *goneError) Error() string { return e.text }

// started is the time within which an instance that was stopped through the API during
// provisioning must be started again through the API.
const started = time.Minute

// Watch returns a context that ends when the instance no longer runs. The cause contains
// the reason that EC2 gives and the last lines of the console.
func (l *Launcher) Watch(ctx context.Context, id string) (context.Context, *InstanceMonitor) {
	alive, cancel := context.WithCancelCause(ctx)
	v := &InstanceMonitor{l: l, id: id, stop: cancel, over: make(chan struct{})}
	// The state of a running instance rarely changes.
	rhythm := wait.Watch{Delay: l.Session.Pace.Monitor, Limit: 365 * 24 * time.Hour}
	go func() {
		defer close(v.over)
		var since time.Time // when it was first seen stopped
		_, err := access.Watch(l.Session, l.Session.Region).Instances.Until(alive, wait.Wait[types.Instance]{
			ID: id, What: "instance " + id + " to stop", Watch: rhythm, Later: rhythm.Delay, Kind: "monitor",
			Usual: wait.Span{Soonest: rhythm.Limit, Latest: rhythm.Limit},
			Judge: func(i types.Instance, found bool) (bool, error) {
				if !found || !v.ended(i) {
					since = time.Time{}
					return false, nil
				}
				if v.busy.Load() && byUser(i) {
					if since.IsZero() {
						since = time.Now()
					}
					if time.Since(since) < started {
						return false, nil
					}
				}
				return false, v.gone(i)
			},
		})
		var gone *goneError
		if errors.As(err, &gone) && alive.Err() == nil {
			cancel(v.withConsole(ctx, gone))
		}
	}()
	return alive, v
}

// Reached records that the machine was reached.
func (v *InstanceMonitor) Reached() { v.busy.Store(true) }

// Close ends the watch.
func (v *InstanceMonitor) Close() {
	v.stop(nil)
	<-v.over
}

// ended reports whether the instance has stopped, or is stopping. That does not count if a
// provisioner is expected to stop it.
func (v *InstanceMonitor) ended(i types.Instance) bool {
	if i.State == nil {
		return false
	}
	switch i.State.Name {
	case types.InstanceStateNameShuttingDown:
		return i.StateReason != nil // which EC2 may report only after termination
	case types.InstanceStateNameTerminated:
		return true
	case types.InstanceStateNameStopping, types.InstanceStateNameStopped:
		return !v.busy.Load() || !v.l.DisableStopInstance
	}
	return false
}

// byUser reports whether an instance was stopped, and not terminated, through the API.
func byUser(i types.Instance) bool {
	return strings.HasPrefix(string(i.State.Name), "stop") && i.StateReason != nil && strings.HasPrefix(aws.ToString(i.StateReason.Code), "Client.User")
}

func (v *InstanceMonitor) gone(i types.Instance) *goneError {
	return &goneError{fmt.Sprintf("instance %s is %s: %s", v.id, i.State.Name, reason(i))}
}

// Explain returns an error saying why the machine is gone, if that caused err, and
// otherwise err. A lost connection is often the first sign of it.
func (v *InstanceMonitor) Explain(ctx context.Context, err error) error {
	var gone *goneError
	if err == nil || ctx.Err() != nil && !errors.As(context.Cause(ctx), &gone) {
		return err
	}
	if errors.As(err, &gone) {
		return err
	}
	if !errors.As(context.Cause(ctx), &gone) {
		if gone = v.ask(ctx, errors.Is(err, communicator.ErrDisconnected)); gone == nil {
			return err
		}
		gone = v.withConsole(ctx, gone)
	}
	return &lostError{gone, err}
}

// lostError is an error that was caused by the loss of the machine.
type lostError struct{ gone, err error }

func (e *lostError) Error() string   { return e.gone.Error() }
func (e *lostError) Unwrap() []error { return []error{e.gone, e.err} }

// ask queries EC2 for whether the instance is gone. With lost, it polls for some
// seconds, because a machine that shuts down closes its connections first.
func (v *InstanceMonitor) ask(ctx context.Context, lost bool) (gone *goneError) {
	limit := time.Duration(0)
	if lost {
		limit = 10 * time.Second
	}
	look := wait.Watch{Delay: time.Second, Limit: limit}
	_ = look.Until(ctx, "instance "+v.id+" to stop", func(ctx context.Context) (bool, error) { // an error means that no end of the machine was seen
		out, err := access.Call(ctx, v.l.client().DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{v.id}})
		if err != nil {
			return false, err
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				if v.ended(i) {
					gone = v.gone(i)
				}
			}
		}
		return gone != nil, nil
	})
	return gone
}

// tail is the number of console lines in an error.
const tail = 10

// withConsole adds the last lines of the instance's console, if EC2 has them.
func (v *InstanceMonitor) withConsole(ctx context.Context, gone *goneError) *goneError {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	out, err := access.Call(ctx, v.l.client().GetConsoleOutput, &ec2.GetConsoleOutputInput{InstanceId: &v.id})
	if err != nil {
		return gone
	}
	text, err := base64.StdEncoding.DecodeString(aws.ToString(out.Output))
	if err != nil {
		return gone
	}
	lines := consoleTail(string(text))
	if len(lines) == 0 {
		return gone
	}
	return &goneError{gone.text + ". Its console ends with:\n  " + strings.Join(lines, "\n  ")}
}

// escapes matches the escape sequences of terminals.
var escapes = lazyregexp.New(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)`)

// consoleTail returns the last lines of a console, without control sequences for a
// terminal.
func consoleTail(text string) (lines []string) {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(strings.Map(func(r rune) rune {
			if r == '\t' || unicode.IsPrint(r) {
				return r
			}
			return -1
		}, escapes.Get().ReplaceAllString(line, "")))
		if len(line) > 200 {
			line = strings.ToValidUTF8(line[:200], "")
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-tail):]
}
