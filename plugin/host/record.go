package host

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bake/internal/procgroup"
	"bake/step"
)

// ProcessKind is the kind of a plugin's process as a resource. It belongs to no build:
// a plugin may have to outlive the teardown of its build, since its artifact lives in it.
const ProcessKind = "plugin:process"

// entry is a process in the ledger of a run.
type entry struct {
	ledger step.Ledger
	key    string
}

// intend writes to the ledger of a run that a process of p will be started.
func intend(s *step.Scope, p *part) (*entry, error) {
	if s.Ledger == nil {
		return nil, nil
	}
	e := &entry{s.Ledger, fmt.Sprintf("%s/%s/%s", s.Run.ID, s.Build, rand.Text())}
	r := step.Resource{Kind: ProcessKind, Key: e.key, With: map[string]string{"plugin": p.plugin.Source, "component": p.label, "build": s.Build, "run": s.Run.ID}}
	if len(p.plugin.options.Keeper) > 0 {
		r.With[withKeeper] = "true"
	}
	return e, s.Ledger.Intend(r)
}

// started writes which process it is.
func (e *entry) started(pid int) error {
	if e == nil {
		return nil
	}
	return e.ledger.Created(e.key, processID(pid, procgroup.Started(pid)))
}

// gone writes that it has ended.
func (e *entry) gone() error {
	if e == nil {
		return nil
	}
	return e.ledger.Gone(e.key)
}

// processID names a process: its number and, so that another one which gets the number
// later is not taken for it, when it was started.
func processID(pid int, started string) string { return fmt.Sprintf("%d@%s", pid, started) }

// withKeeper marks a process that is a keeper: when its run is killed, it goes on until
// the plugin has taken down what it has made.
const withKeeper = "keeper"

// runVariable tells a plugin, and all that it starts, which run it belongs to.
const runVariable = "PACKER_RUN_UUID="

// keeperLimit is when a keeper has ended by itself, or never will.
const keeperLimit = teardownGrace + time.Minute

// DestroyProcess is the [step.Destroyer] of processes that a killed run has left. One
// that takes down what it has made is not disturbed; it ends within some minutes. What the
// plugin has started ends too, also if the process itself was killed. What else a plugin
// has made in a cloud, only the plugin knows.
func DestroyProcess(ctx context.Context, r step.Resource) error {
	number, started, _ := strings.Cut(r.ID, "@")
	pid, err := strconv.Atoi(number)
	if err != nil || pid <= 1 || started == "" {
		return nil // it was never started
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(keeperLimit); r.With[withKeeper] != "" && procgroup.Started(pid) == started && time.Now().Before(limit); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("the plugin %s (process %d) still takes down what it has made: %w", r.With["plugin"], pid, context.Cause(ctx))
		}
	}
	if procgroup.Started(pid) != started && !procgroup.Holds(pid, runVariable+r.With["run"]) {
		return nil // it has ended, and has left nothing
	}
	if err := procgroup.Kill(pid); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending the plugin %s: %w", r.With["plugin"], err)
	}
	return nil
}
