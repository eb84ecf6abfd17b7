package engine

import (
	"context"
	"fmt"
	"strings"

	"bake/builder"
	"bake/communicator"
	"bake/internal/shellquote"
	"bake/step"
)

// provisionersDone is the journal key that records, for a build in stages, how many provisioners
// have finished.
const provisionersDone = "provisioners done"

// byStages reports whether provisioners run in stages of their own.
func (x *execution) byStages() bool {
	if x.options.Boundary == nil {
		return false
	}
	_, reached := step.Recall[any](x.scope, step.Reached)
	return reached
}

// hasMoreStages reports whether the work on the builder's artifact continues in another stage.
func (x *execution) hasMoreStages() bool {
	p := x.pipeline(x.build)
	return x.canResume() && (len(x.build.PostProcessors) > 0 || p != nil && (p.Distribute != nil || p.Release != nil))
}

// nextProvisioner returns the index of the provisioner to start with. In the first stage it ends
// the stage, if the machine can record its progress.
func (x *execution) nextProvisioner(ctx context.Context, m builder.Machine) (int, error) {
	done, again := step.Recall[int](x.scope, provisionersDone)
	if !again {
		if err := x.mark(ctx, m, "finished", 0); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return 0, cause
			}
			x.scope.Say(ctx, "All provisioners run as one stage, because the machine cannot record its progress: %s", err)
			return 0, nil
		}
		x.marked = true
		if x.options.Login != nil { // the next stage may run on another host
			_ = x.options.Login(ctx, x.build.Name, m)
		}
		step.Record(x.scope, provisionersDone, 0)
		return 0, x.endStage(ctx, 0)
	}
	x.marked = true
	switch text, err := x.markOf(ctx, m); {
	case err != nil:
		return 0, step.Interrupted(ctx, x.scope, err)
	case text == progress("finished", done):
		return done, nil
	case text == progress("finished", done+1): // but no event was emitted
		step.Record(x.scope, provisionersDone, done+1)
		return done + 1, nil
	}
	if done < len(x.build.Provisioners) {
		return 0, fmt.Errorf("%w: the provisioner %s had started", step.ErrInterrupted, title(x.build.Provisioners[done]))
	}
	return 0, fmt.Errorf("%w: the checks of the machine had started", step.ErrInterrupted)
}

func (x *execution) endStage(ctx context.Context, done int) error {
	return step.EndStage(ctx, x.scope, step.Boundary{Next: step.StageProvision, Done: done, Of: len(x.build.Provisioners)})
}

// begin records on the machine that provisioner i has started.
func (x *execution) begin(ctx context.Context, m builder.Machine, i int) error {
	if !x.marked {
		return nil
	}
	return x.mark(ctx, m, "begun", i+1)
}

// end records on the machine, and in the journal, that provisioner i has finished. The next
// provisioner runs in its own stage.
func (x *execution) end(ctx context.Context, m builder.Machine, i int) error {
	if !x.marked {
		return nil
	}
	if err := x.mark(ctx, m, "finished", i+1); err != nil {
		return err
	}
	step.Record(x.scope, provisionersDone, i+1)
	if i+1 == len(x.build.Provisioners) {
		return nil
	}
	if err := x.tidy(ctx, m); err != nil { // the next stage does not know what is left on the machine
		return err
	}
	return x.endStage(ctx, i+1)
}

func progress(what string, n int) string { return fmt.Sprintf("%s %d", what, n) }

// The mark is a file in the machine's memory: it is not part of the image, and it is lost when the
// machine restarts.
const markFile = `d=/run; [ -w "$d" ] || d=/dev/shm; f="$d/bake-$0"; `

// mark records the machine's progress.
func (x *execution) mark(ctx context.Context, m builder.Machine, what string, n int) error {
	_, err := x.shell(ctx, m, `printf '%s' "$1" > "$f"`, progress(what, n))
	return err
}

// unmark removes the mark.
func (x *execution) unmark(ctx context.Context, m builder.Machine) error {
	if !x.marked {
		return nil
	}
	_, err := x.shell(ctx, m, `rm -f "$f"`, "")
	return err
}

func (x *execution) markOf(ctx context.Context, m builder.Machine) (string, error) {
	return x.shell(ctx, m, `[ ! -e "$f" ] || head -c 64 "$f"`, "")
}

// shell runs a script with the mark's file on the machine and returns its output.
func (x *execution) shell(ctx context.Context, m builder.Machine, script, arg string) (string, error) {
	out, errs := communicator.Head{Max: 64}, communicator.Head{Max: 1 << 10}
	name := strings.NewReplacer("/", "_", " ", "_").Replace(x.options.Run.ID + "-" + x.build.Name)
	status, err := m.Run(ctx, communicator.Command{Line: shellquote.Join("sh", "-c", markFile+script, name, arg), Stdout: &out, Stderr: &errs})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("recording progress on the machine: exit status %d: %s", status.Code, strings.TrimSpace(errs.String()))
	}
	return strings.TrimSpace(out.String()), err
}
