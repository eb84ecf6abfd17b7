package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/spf13/cobra"

	"bake/fleet"
)

// workerProgram is the program that has the engine for Temporal, whose SDK would make bake
// much larger.
const workerProgram = "bake-worker"

// handOver runs the whole command in the other program. If it returns, the error is never nil:
// either the command has failed, or the other program could not be started.
func (p *program) handOver() error {
	name := workerProgram
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	path := ""
	if self, err := os.Executable(); err == nil {
		if filepath.Base(self) == name {
			return fmt.Errorf("%s was built without Temporal; build it with: go build -tags temporal", self)
		}
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			path = beside
		}
	}
	if path == "" {
		found, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("the engine block requires Temporal and so the program %s, which is neither in bake's directory nor in PATH; install it from the same release as bake, or build it: go build -tags temporal -o %s ./cmd/bake", workerProgram, workerProgram)
		}
		path = found
	}
	return replace(path, p.args, append(os.Environ(), p.keys...))
}

// workerFlags are the flags of bake worker.
type workerFlags struct {
	fleetFlags
	fleets, accounts, regions commaList
}

func (p *program) workerCommand() *cobra.Command {
	var f workerFlags
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run a Temporal worker for fleets",
		Long: `Run a worker that executes the workflows and activities of a template's fleets for
Temporal, until a signal stops it; it finishes what it has started first. This requires an
engine block. Several workers share the work. With -fleet, -account and -region, a worker
takes only part of it, such as that of the account that it has credentials for.`,
		Example: `  bake worker -template /etc/bake/fleets -account 111111111111`,
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return p.work(cmd.Context(), &f)
		},
	}
	f.register(p, cmd)
	f.registerLocal(cmd.Flags())
	flags := cmd.Flags()
	flags.Var(&f.fleets, "fleet", "work only for these `fleets`; separated by commas, or repeated")
	flags.Var(&f.accounts, "account", "work only in these `accounts`; separated by commas, or repeated")
	flags.Var(&f.regions, "region", "work only in these `regions`; separated by commas, or repeated")
	return cmd
}

func (p *program) work(ctx context.Context, f *workerFlags) (err error) {
	t, err := p.loadFleets(ctx, &f.fleetFlags, "bake worker")
	if err != nil {
		return err
	}
	o := fleet.WorkerOptions{Accounts: f.accounts, Regions: f.regions, Fleets: t.Fleets}
	if len(f.fleets) > 0 {
		o.Fleets = nil
		for _, name := range f.fleets {
			one, err := t.Fleet(name)
			if err != nil {
				return err
			}
			o.Fleets = append(o.Fleets, one)
		}
	}
	if len(o.Fleets) == 0 {
		_, err := t.Fleet("")
		return err
	}
	state, err := p.env.state()
	if err != nil {
		return err
	}
	ctx, stop, release := p.interrupts(ctx, ignoreSignals)
	defer release()
	feed := p.openFeed(displayOptions{color: true, prompts: true, onLocal: f.local})
	defer feed.close()
	h := p.fleetHost(&f.fleetFlags, t, state)
	h.stop = stop
	end := h.connect(p, &f.fleetFlags, feed.emit, t.Fleets...)
	defer func() { err = errors.Join(err, end(stop)) }()
	h.Approve, h.Promote = p.approveCell(&f.fleetFlags, h.Clouds), p.promoteCell(&f.fleetFlags, h.Clouds, state)
	e, err := p.fleetEngine(ctx, o.Fleets[0], h.Host)
	if err != nil {
		return err
	}
	// Cells do not belong to a span of the process that started the worker.
	h.trace = p.traces(workerProgram, append(slices.Clone(p.env), "TRACEPARENT="), feed)
	defer h.trace.Close()
	err = e.Work(ctx, o)
	if errors.Is(err, fleet.ErrNotHere) {
		return errors.New("the template has no engine block, so its fleets need no worker: bake fleet run bakes the cells itself")
	}
	return err
}
