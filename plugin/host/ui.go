package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"bake/internal/debuglog"
	"bake/plugin/wire"
	"bake/step"
)

// Limits on the messages of a plugin to the user.
const (
	maxText = 1 << 20
	maxBars = 1000
)

// ui answers a plugin's calls of Ui. Messages become events of a scope.
type ui struct {
	scope  *step.Scope
	plugin *Plugin
	ctx    context.Context // context of the events: it carries the step and is never cancelled
	asking context.Context // ends questions

	// failed decides about a failed step of the plugin. If nil, the user is not asked.
	failed func(ctx context.Context) (answer string)

	mu   sync.Mutex
	bars map[string]*step.Progress
	made int
}

func newUI(ctx context.Context, s *step.Scope, p *Plugin) *ui {
	return &ui{scope: s, plugin: p, ctx: context.WithoutCancel(ctx), asking: ctx, bars: map[string]*step.Progress{}}
}

// methods returns the methods of every stream with a Ui. progress finds further ones.
func (u *ui) methods() wire.Methods {
	return wire.Methods{
		"Ui.Say": wire.Handle(func(_ context.Context, text string) (any, error) {
			u.scope.Say(u.ctx, "%s", clip(strings.TrimRight(text, "\r\n"), maxText))
			return nil, nil
		}),
		"Ui.Message": u.output(step.Output),
		"Ui.Error":   u.output(step.ErrOutput),
		"Ui.Machine": wire.Handle(func(_ context.Context, a struct {
			Category string
			Args     []string
		}) (any, error) { // for programs that read Packer's output
			debuglog.From(u.ctx).Debug("for machines", "plugin", u.plugin.Source, "category", clip(a.Category, 100), "values", clip(strings.Join(a.Args, ","), 1000))
			return nil, nil
		}),
		"Ui.Ask": wire.Handle(func(ctx context.Context, question string) (any, error) {
			return u.ask(ctx, clip(question, maxComplaint))
		}),
		"Ui.NewTrackProgress": wire.Handle(func(_ context.Context, a struct {
			Src                    string
			TotalSize, CurrentSize int64
		}) (any, error) {
			u.mu.Lock()
			defer u.mu.Unlock()
			if len(u.bars) >= maxBars {
				return nil, errors.New("too many progress bars")
			}
			u.made++
			id := fmt.Sprintf("%d", u.made)
			u.bars[id] = &step.Progress{Done: a.CurrentSize, Total: max(0, a.TotalSize), Unit: "B"}
			return id, nil
		}),
	}
}

func (u *ui) output(kind step.Kind) wire.Method {
	return wire.Handle(func(_ context.Context, text string) (any, error) {
		for line := range strings.SplitSeq(clip(strings.TrimRight(text, "\r\n"), maxText), "\n") {
			u.scope.Output(u.ctx, kind, strings.TrimRight(line, "\r"))
		}
		return nil, nil
	})
}

// progress finds the methods of a progress bar, whose service is "Ui" followed by its id.
func (u *ui) progress(name string) wire.Method {
	id, ok := strings.CutPrefix(name, "Ui")
	if !ok {
		return nil
	}
	id, add := strings.CutSuffix(id, ".Add")
	id, over := strings.CutSuffix(id, ".Close")
	u.mu.Lock()
	defer u.mu.Unlock()
	bar := u.bars[id]
	if bar == nil || add == over {
		return nil
	}
	return func(_ context.Context, v any) (any, error) {
		u.mu.Lock()
		if over {
			delete(u.bars, id)
		} else if n, ok := v.(int64); ok {
			bar.Done += n
		}
		now := *bar
		u.mu.Unlock()
		if add {
			u.scope.Progress(u.ctx, now)
		}
		return nil, nil
	}
}

// errNobody is the answer to a plugin's question if there is no terminal.
var errNobody = errors.New("there is no terminal to ask on")

// ask passes the plugin's question to the user. The questions that every plugin built with Packer's
// SDK asks, for -debug and -on-error=ask, are worded as bake's own.
func (u *ui) ask(ctx context.Context, question string) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(u.asking, func() { cancel(context.Cause(u.asking)) })()
	switch {
	case strings.Contains(question, "[c]") && strings.Contains(question, "[a]") && strings.Contains(question, "[r]"):
		if u.failed == nil {
			return "c", nil
		}
		return u.failed(ctx), nil
	case strings.Contains(question, "Press enter to continue") && u.scope.Pause != nil:
		what, _, _ := strings.Cut(strings.TrimPrefix(question, "Pausing "), ". Press enter")
		return "", u.scope.Pause(ctx, what)
	}
	if u.plugin.options.Terminal == nil {
		return "", errNobody
	}
	u.plugin.asking.Lock()
	defer u.plugin.asking.Unlock()
	tty, err := u.plugin.options.Terminal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", errNobody, err)
	}
	defer tty.Close()
	u.scope.Say(u.ctx, "%s", question)
	type answer struct {
		text string
		err  error
	}
	read := make(chan answer, 1)
	go func() {
		text, err := bufio.NewReader(tty).ReadString('\n')
		read <- answer{strings.TrimRight(text, "\r\n"), err}
	}()
	select {
	case a := <-read:
		return a.text, a.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}
