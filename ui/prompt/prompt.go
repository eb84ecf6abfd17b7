// Package prompt asks the user at a terminal.
package prompt

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

// ErrNoTerminal is the error if there is no terminal to prompt on.
var ErrNoTerminal = errors.New("bake is not running in a terminal, or was started with -machine-readable")

// Prompter asks the user, one question at a time.
type Prompter struct {
	out     io.Writer
	suspend func() (resume func()) // stops the display from using the terminal

	turn  chan struct{} // holds one token while no question is open
	start sync.Once
	in    *bufio.Reader
	lines chan answer
}

type answer struct {
	text string
	err  error
}

// New returns a prompter that asks on tty. suspend keeps a display away from it while a
// question is open.
func New(tty io.ReadWriter, suspend func() (resume func())) *Prompter {
	q := &Prompter{
		out: tty, suspend: suspend,
		turn: make(chan struct{}, 1), in: bufio.NewReader(tty), lines: make(chan answer),
	}
	q.turn <- struct{}{}
	return q
}

// Ask shows question and returns the line that the user types, without the line end. It fails with
// the cause of ctx, or at the end of input.
func (q *Prompter) Ask(ctx context.Context, question string) (string, error) {
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

// read passes lines to the current question. Since a read cannot be cancelled, one goroutine reads
// for all questions for the life of the program.
func (q *Prompter) read() {
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

// FailedStep asks the user what to do about a failed step. Without an answer the build is cleaned
// up.
func (q *Prompter) FailedStep(ctx context.Context, build, step string, err error) engine.Answer {
	for {
		text, askErr := q.Ask(ctx, fmt.Sprintf("==> %s: step %q failed: %v\n[c] clean up and stop, [a] abort without cleaning up, [r] retry it? [c] ", build, step, err))
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

// Pause waits before a step until the user presses Enter.
func (q *Prompter) Pause(ctx context.Context, build, step string) error {
	_, err := q.Ask(ctx, fmt.Sprintf("==> %s: next step: %q. Press Enter to continue. ", build, step))
	return err
}

// Open returns the user's next line as a reader, for components that read input. Closing it cancels
// the wait.
func (q *Prompter) Open() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(context.Background())
	return &waiting{q: q, ctx: ctx, cancel: cancel}, nil
}

type waiting struct {
	q      *Prompter
	ctx    context.Context
	cancel context.CancelCauseFunc
	rest   []byte
}

func (w *waiting) Read(b []byte) (int, error) {
	if len(w.rest) == 0 {
		text, err := w.q.Ask(w.ctx, "")
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
