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

// ProcessKind is the resource kind of a plugin's process. The resource belongs to no build, because
// a plugin may have to outlive the teardown of its build: the artifact lives in the plugin.
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

// started records the process.
func (e *entry) started(pid int) error {
	if e == nil {
		return nil
	}
	return e.ledger.Created(e.key, processID(pid, procgroup.Started(pid)))
}

// gone records that the process has ended.
func (e *entry) gone() error {
	if e == nil {
		return nil
	}
	return e.ledger.Gone(e.key)
}

// processID identifies a process by its number and its start time, because the number may be reused
// later.
func processID(pid int, started string) string { return fmt.Sprintf("%d@%s", pid, started) }

// withKeeper marks a keeper's process. If its run is killed, it continues until the plugin has
// removed what it has created.
const withKeeper = "keeper"

// runVariable is an environment variable with the run that a plugin, and all processes
// that it starts, belong to.
const runVariable = "PACKER_RUN_UUID="

// keeperLimit is the time after which a keeper either has ended by itself or never
// will.
const keeperLimit = teardownGrace + time.Minute

// DestroyProcess is the [step.Destroyer] of processes that a killed run has left. It does not
// disturb a process that is cleaning up, which ends within some minutes. It also ends the processes
// that the plugin has started, even if the plugin itself was killed. Other resources that a plugin
// has created, such as in a cloud, are known only to the plugin.
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
			return fmt.Errorf("the plugin %s (process %d) is still tearing down: %w", r.With["plugin"], pid, context.Cause(ctx))
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
