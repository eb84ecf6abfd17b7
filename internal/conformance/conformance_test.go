package conformance_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"bake/internal/conformance"
)

// recorder records errors.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()           {}
func (r *recorder) Error(args ...any) { r.errors = append(r.errors, fmt.Sprint(args...)) }
func (r *recorder) Errorf(text string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(text, args...))
}

func TestCancel(t *testing.T) {
	const ends, ignores, succeeds = 'e', 'i', 's' // when it notices that it is cancelled
	asks := func(does string) func(context.Context) error {
		return func(ctx context.Context) error {
			for _, d := range does {
				switch err := ctx.Err(); {
				case err == nil || d == ignores:
				case d == ends:
					return context.Cause(ctx)
				case d == succeeds:
					return nil
				}
			}
			return nil
		}
	}
	flips := 0
	for name, tt := range map[string]struct {
		try  func(context.Context) error
		want string
	}{
		"good":                     {asks("eee"), ""},
		"too late at the end":      {asks("eeii"), ""},
		"a little later":           {asks("eiie"), ""},
		"not in the middle":        {asks("ese"), "the time 2: it goes on"},
		"nor twice":                {asks("esse"), "the time 3: it goes on"},
		"never":                    {asks("ii"), "before it begins: it succeeds"},
		"with another error":       {func(ctx context.Context) error { return ctx.Err() }, "the time 0: got context canceled"},
		"not the same twice":       {func(ctx context.Context) error { flips++; return asks([]string{"ese", "eee"}[flips%2])(ctx) }, ""},
		"fails without being told": {func(ctx context.Context) error { return fmt.Errorf("x: %w", asks("e")(ctx)) }, "got x"},
	} {
		r := &recorder{TB: t}
		conformance.Cancel(r, tt.try, func(string, error) {})
		if got := strings.Join(r.errors, "\n"); (got != "") != (tt.want != "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestGoroutines(t *testing.T) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		<-end
	}()
	if left := conformance.Goroutines("bake/nothing", "bake/internal/conformance_test"); !strings.Contains(left, "TestGoroutines") {
		t.Errorf("left: %s", left)
	}
	close(end)
	<-ended
	if left := conformance.Goroutines("bake/internal/conformance_test"); left != "" {
		t.Errorf("left: %s", left)
	}
}
