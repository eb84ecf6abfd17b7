package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"bake/engine"
)

// errNoTerminal is why nobody can be asked.
var errNoTerminal = errors.New("bake is not running in a terminal, or was started with -machine-readable")

// prompter asks the user, one question at a time.
type prompter struct {
	out     io.Writer
	suspend func() (resume func()) // keeps the display away from the terminal

	turn  chan struct{} // holds one token while nobody asks
	start sync.Once
	in    *bufio.Reader
	lines chan answer
}

type answer struct {
	text string
	err  error
}

// newPrompter returns a prompter that asks on the terminal which the program was
// started from, wherever its input and output go. It returns nil if there is
// none, and when the display is for programs.
func (p *program) newPrompter(suspend func() (resume func())) *prompter {
	if p.machineReadable {
		return nil
	}
	tty, err := p.openTerminal()
	if err != nil {
		return nil
	}
	q := &prompter{
		out: tty, suspend: suspend,
		turn: make(chan struct{}, 1), in: bufio.NewReader(tty), lines: make(chan answer),
	}
	q.turn <- struct{}{}
	return q
}

// ask shows question and returns the line that the user types, without its end.
// It fails with the cause of ctx, and when the input ends.
func (q *prompter) ask(ctx context.Context, question string) (string, error) {
	select {
	case <-q.turn:
		defer func() { q.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	defer q.suspend()()
	fmt.Fprint(q.out, question)
	q.start.Do(func() { go q.read() })
	select {
	case a := <-q.lines:
		return a.text, a.err
	case <-ctx.Done():
		fmt.Fprintln(q.out)
		return "", context.Cause(ctx)
	}
}

// read hands lines to whoever asks. A read cannot be cancelled, so one goroutine
// reads for all questions, as long as the program runs.
func (q *prompter) read() {
	for {
		line, err := q.in.ReadString('\n')
		if err != nil {
			err = fmt.Errorf("no answer: %w", err)
		}
		q.lines <- answer{strings.TrimRight(line, "\r\n"), err}
		if err != nil {
			return
		}
	}
}

// failedStep asks what to do about a failed step. Without an answer the build is
// cleaned up.
func (q *prompter) failedStep(ctx context.Context, build, step string, err error) engine.Answer {
	for {
		text, askErr := q.ask(ctx, fmt.Sprintf("==> %s: step %q failed: %v\n[c] clean up and stop, [a] abort without cleaning up, [r] retry it? [c] ", build, step, err))
		if askErr != nil {
			return engine.AnswerCleanUp
		}
		switch {
		case text == "" || text[0] == 'c':
			return engine.AnswerCleanUp
		case text[0] == 'a':
			return engine.AnswerAbort
		case text[0] == 'r':
			return engine.AnswerRetry
		}
		fmt.Fprintln(q.out, "Please answer with c, a or r.")
	}
}

// pause waits before a step until the user presses Enter.
func (q *prompter) pause(ctx context.Context, build, step string) error {
	_, err := q.ask(ctx, fmt.Sprintf("==> %s: next step: %q. Press Enter to continue. ", build, step))
	return err
}

// open returns the user's next line as a reader, for a component that waits for one.
// Closing it ends the wait.
func (q *prompter) open() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &waiting{q: q, ctx: ctx, cancel: cancel}, nil
}

type waiting struct {
	q      *prompter
	ctx    context.Context
	cancel context.CancelCauseFunc
	rest   []byte
}

func (w *waiting) Read(b []byte) (int, error) {
	if len(w.rest) == 0 {
		text, err := w.q.ask(w.ctx, "")
		if err != nil {
			return 0, err
		}
		w.rest = []byte(text + "\n")
	}
	n := copy(b, w.rest)
	w.rest = w.rest[n:]
	return n, nil
}

func (w *waiting) Close() error {
	w.cancel(io.ErrClosedPipe)
	return nil
}
