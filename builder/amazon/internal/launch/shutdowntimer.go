package launch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/communicator"
	"bake/communicator/ssh"
	"bake/internal/delay"
	"bake/internal/shellquote"
)

// shutdownBehavior returns what EC2 does when the instance shuts itself down. An instance
// with a time limit is terminated, unless a provisioner shuts it down or the template says
// otherwise.
func (l *Launcher) shutdownBehavior() types.ShutdownBehavior {
	if l.Scope.Run.MachinesEnd > 0 && !l.DisableStopInstance && !l.Src.Set(&l.ShutdownBehavior) {
		return types.ShutdownBehaviorTerminate
	}
	return types.ShutdownBehavior(l.ShutdownBehavior)
}

// endTimer is the name of the systemd units that shut the machine down. They are transient:
// they leave nothing on a disk.
const endTimer = "bake-end"

const endTimerIsSet = "systemctl is-active --quiet " + endTimer + ".timer"

// A provisioner that reboots the machine removes the timer, so bake checks it at intervals.
const (
	endTimerPause = 30 * time.Second
	endTimerGrace = 20 * time.Second // for one check
)

// ShutdownTimer is a timer on a machine that shuts the machine down even if bake is no
// longer running.
type ShutdownTimer struct {
	l       *Launcher
	machine communicator.Communicator
	at      time.Time
	windows bool // the system of the machine
	kept    bool // the timer is one of shutdown(8), or of Windows

	what string // "stops" or "terminates"

	stop context.CancelFunc
	over chan struct{}
}

// StartShutdownTimer sets a timer on the machine that shuts it down at the time limit of
// the run, if there is one. It warns if that is not possible. With again, the run was
// resumed, and the timer of the earlier process is removed first. The caller must call
// Close, and must call Cancel before an image is made of the machine.
func (l *Launcher) StartShutdownTimer(ctx context.Context, machine communicator.Communicator, source types.Image, again bool) *ShutdownTimer {
	e := &ShutdownTimer{l: l, machine: machine, stop: func() {}, over: make(chan struct{}), windows: source.Platform == types.PlatformValuesWindows}
	defer func() {
		if e.at.IsZero() {
			close(e.over)
		}
	}()
	if again && l.Communicator != ssh.None {
		e.disarm(ctx)
	}
	after := l.Scope.Run.MachinesEnd
	if after == 0 {
		return e
	}
	at := l.Scope.Run.Start.Add(after)
	err := errors.New(`there is no connection to it, because the communicator is "none"`)
	if l.Communicator != ssh.None {
		err = e.arm(ctx, at)
	}
	if err != nil {
		l.Scope.Warn(ctx, "The machine cannot end itself if bake is killed; bake sweep deletes it then: %s", err)
		return e
	}
	e.at, e.what = at, "terminates"
	if l.shutdownBehavior() != types.ShutdownBehaviorTerminate && !l.InstanceStore {
		e.what = "stops"
	}
	l.Scope.Say(ctx, "The machine %s itself at %s, unless bake has deleted it by then", e.what, e.when())
	watch, stop := context.WithCancel(ctx)
	e.stop = stop
	go e.keep(watch)
	return e
}

func (e *ShutdownTimer) when() string { return e.at.UTC().Format("2006-01-02 15:04 MST") }

// Left reports how much longer a machine that is left running will live.
func (e *ShutdownTimer) Left(ctx context.Context) {
	if !e.at.IsZero() {
		e.l.Scope.Say(ctx, "The machine is kept until %s; then it %s itself, as terminate_after says. Resuming the run resets this time.", e.when(), e.what)
	}
}

// keep sets the timer again if the machine has lost it.
func (e *ShutdownTimer) keep(ctx context.Context) {
	defer close(e.over)
	for !e.kept && delay.For(ctx, endTimerPause) == nil {
		look, done := context.WithTimeout(ctx, endTimerGrace)
		_ = e.run(look, e.timer(e.at)) // the machine may be rebooting
		done()
	}
}

// Close stops managing the timer. The timer itself keeps running.
func (e *ShutdownTimer) Close() {
	e.stop()
	<-e.over
}

// Cancel removes the timer from the machine.
func (e *ShutdownTimer) Cancel(ctx context.Context) {
	e.Close()
	if e.at.IsZero() || e.l.DisableStopInstance { // a provisioner may have shut it down
		return
	}
	var err error
	switch {
	case e.windows:
		err = e.run(ctx, "shutdown /a")
		if code, ok := errors.AsType[*statusError](err); ok && code.status == notScheduled { // a reboot has removed it
			err = nil
		}
	case e.kept:
		err = e.run(ctx, asRoot("shutdown -c"))
	default:
		err = e.run(ctx, asRoot("systemctl stop "+endTimer+".timer"))
		if err != nil && e.run(ctx, asRoot(endTimerIsSet)) != nil { // a reboot has removed it
			err = nil
		}
	}
	if err != nil && context.Cause(ctx) == nil {
		e.l.Scope.Warn(ctx, "The timer that ends the machine could not be removed; no image holds it, because it is in the machine's memory only: %s", err)
	}
}

// disarm removes any timer that an earlier process of the run has set.
func (e *ShutdownTimer) disarm(ctx context.Context) {
	if e.windows {
		_ = e.run(ctx, "shutdown /a")
		return
	}
	_ = e.run(ctx, asRoot("systemctl stop "+endTimer+".timer"))
	_ = e.run(ctx, asRoot("shutdown -c"))
}

// arm sets the timer.
func (e *ShutdownTimer) arm(ctx context.Context, at time.Time) error {
	if e.windows {
		e.kept = true
		return e.run(ctx, fmt.Sprintf(`shutdown /s /t %d /c "The time limit of the image build has passed."`, seconds(at)))
	}
	err := e.run(ctx, asRoot(e.start(at)))
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	if e.run(ctx, asRoot(fmt.Sprintf("shutdown -P +%d", seconds(at)/60+1))) != nil {
		return err
	}
	e.kept = true
	return nil
}

// timer returns the command line that sets a timer of systemd, unless there is one.
func (e *ShutdownTimer) timer(at time.Time) string { return asRoot(endTimerIsSet, e.start(at)) }

// start returns the command that sets a timer of systemd.
func (e *ShutdownTimer) start(at time.Time) string {
	return fmt.Sprintf(
		"systemd-run --quiet --unit=%s --description='End of the image build' --on-active=%d --timer-property=AccuracySec=1s systemctl poweroff", endTimer, seconds(at))
}

// seconds returns the number of seconds until at, at least one, which is the minimum of a
// timer.
func seconds(at time.Time) int { return max(int(time.Until(at)/time.Second), 1) }

// asRoot returns a command line for any Unix shell that runs the commands as root until one
// succeeds.
func asRoot(commands ...string) string {
	for i := range commands {
		commands[i] = "$as " + commands[i]
	}
	return shellquote.Join("sh", "-c", `as=; [ "$(id -u)" = 0 ] || as='sudo -n'; `+strings.Join(commands, " || "))
}

// run runs a command line that must succeed.
func (e *ShutdownTimer) run(ctx context.Context, line string) error {
	errOut := communicator.Head{Max: 4 << 10}
	st, err := e.machine.Run(ctx, communicator.Command{Line: line, Stderr: &errOut})
	if err == nil && st.Code != 0 {
		err = &statusError{st.Code, strings.TrimSpace(errOut.String())}
	}
	return err
}

// notScheduled is the exit status of Windows' shutdown command if there is no shutdown to
// abort.
const notScheduled = 1116

// statusError is the error of a command that did not succeed.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d: %s", e.status, e.text) }
