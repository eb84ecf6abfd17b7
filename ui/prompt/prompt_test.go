package prompt

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"bake/engine"
)

// keyboard is a terminal: the user types into in and sees out.
type keyboard struct {
	io.Reader
	io.Writer
}

func prompting(in io.Reader, out io.Writer) (*Prompter, *[]string) {
	var calls []string
	return New(keyboard{in, out}, func() func() {
		calls = append(calls, "suspend")
		return func() { calls = append(calls, "resume") }
	}), &calls
}

func TestPrompterAsksUntilTheAnswerIsOne(t *testing.T) {
	for in, want := range map[string]engine.Answer{
		"\n": engine.AnswerCleanUp, "clean\n": engine.AnswerCleanUp, "a\n": engine.AnswerAbort,
		"?\nr\n": engine.AnswerRetry, "": engine.AnswerCleanUp, "never mind": engine.AnswerCleanUp,
	} {
		var out bytes.Buffer
		q, calls := prompting(strings.NewReader(in), &out)
		if got := q.FailedStep(t.Context(), "b", "s", errors.New("no")); got != want {
			t.Errorf("%q means %d, want %d", in, got, want)
		}
		if n := len(*calls); n == 0 || n%2 != 0 || (*calls)[n-1] != "resume" {
			t.Errorf("%q: the display was left alone like this: %v", in, *calls)
		}
	}
}

func TestPrompterGivesUpWithTheContext(t *testing.T) {
	silence, _ := io.Pipe()
	q, _ := prompting(silence, io.Discard)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	go cancel(cause)
	if err := q.Pause(ctx, "b", "s"); !errors.Is(err, cause) {
		t.Errorf("error is %v", err)
	}
	if got := q.FailedStep(ctx, "b", "s", errors.New("no")); got != engine.AnswerCleanUp {
		t.Errorf("answer is %d", got)
	}
}

// TestOpen checks that a component that waits for a line gets the user's next one, and stops
// waiting when its reader is closed.
func TestOpen(t *testing.T) {
	in, typed := io.Pipe()
	q, _ := prompting(in, io.Discard)
	line, err := q.Open()
	if err != nil {
		t.Fatal(err)
	}
	go io.WriteString(typed, "yes\r\n")
	b := make([]byte, 2)
	for _, want := range []string{"ye", "s\n"} { // in pieces of any size
		if n, err := line.Read(b); err != nil || string(b[:n]) != want {
			t.Errorf("read %q, %v, want %q", b[:n], err, want)
		}
	}
	go line.Close()
	if _, err := line.Read(b); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("after it is closed: %v", err)
	}
}
