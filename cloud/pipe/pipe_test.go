package pipe_test

import (
	"context"
	"errors"
	"io"
	"testing"

	"bake/cloud/pipe"
)

// TestThrough checks that the reader gets the data and the writer's error, and that the call does
// not return before the writer has ended.
func TestThrough(t *testing.T) {
	ctx, broken, full := t.Context(), errors.New("broken"), errors.New("full")
	ended := false
	without := func(err error) func(context.Context, io.Writer) error {
		return func(_ context.Context, w io.Writer) error {
			_, werr := io.WriteString(w, "text")
			return errors.Join(werr, err)
		}
	}
	endless := func(_ context.Context, w io.Writer) error {
		for {
			if _, err := w.Write([]byte("text")); err != nil {
				ended = true
				return err
			}
		}
	}
	waits := func(ctx context.Context, _ io.Writer) error {
		<-ctx.Done()
		ended = true
		return context.Cause(ctx)
	}
	all := func(r io.Reader) error {
		text, err := io.ReadAll(r)
		if string(text) != "text" {
			t.Errorf("it reads %q", text)
		}
		return err
	}
	for _, test := range []struct {
		name  string
		write func(context.Context, io.Writer) error
		read  func(io.Reader) error
		want  error
		ended bool
	}{
		{"both", without(nil), all, nil, false},
		{"the writer fails", without(broken), all, broken, false},
		{"the reader fails", endless, func(io.Reader) error { return full }, full, true},
		{"the reader has enough", endless, func(r io.Reader) error { _, err := io.ReadFull(r, make([]byte, 9)); return err }, nil, true},
		{"nothing is written yet", waits, func(io.Reader) error { return full }, full, true},
	} {
		ended = false
		if err := pipe.Through(ctx, test.write, test.read); !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || ended != test.ended {
			t.Errorf("%s: %v, want %v; the writer has ended: %t", test.name, err, test.want, ended)
		}
	}
}
