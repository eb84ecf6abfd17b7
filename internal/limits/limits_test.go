package limits_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bake/internal/limits"
)

func TestSource(t *testing.T) {
	n := strings.Repeat
	tests := []struct {
		name, src string
		in        limits.Syntax
		want      string
	}{
		{"ordinary", `a = [{ b = -(-1) }] # --------`, limits.HCL, ""},
		{"side by side", n("[]", 100_000), limits.HCL, ""},
		{"closed too often", n("]", 5000) + n("[", 900), limits.HCL, ""},
		{"texts", "a = [" + n(`"(", `, 5000) + "]", limits.HCL, ""},
		{"comments", n("# ((((\n", 5000), limits.HCL, ""},
		{"brackets", n("[", 1001), limits.HCL, "nested"},
		{"kinds of brackets", n("([{", 334), limits.HCL, "nested"},
		{"brackets that comments seem to close", n("(/*)*/", 1001), limits.HCL, "nested"},
		{"brackets that texts seem to close", n("[\")]}\", ", 1001), limits.HCL, "nested"},
		{"brackets that others seem to close", n("[)", 1001), limits.HCL, "nested"},
		{"operators", "a = " + n("- ! ", 600) + "1", limits.HCL, "nested"},
		{"operators with comments between", "a = " + n("-/* a */", 1001) + "1", limits.HCL, "nested"},
		{"texts in texts", `a = "` + n(`${"`, 501), limits.HCL, "nested"},
		{"splats", "a = b" + n("[*]", 20_001), limits.HCL, "splats"},
		{"conditions", "a = " + n("b?c:", 20_001) + "d", limits.HCL, "operators"},
		{"sums", "a = 1" + n("+1", 20_001), limits.HCL, "operators"},
		{"negative numbers", "a = [" + n("-1, ", 50_000) + "]", limits.HCL, ""},
		{"loops", `a = "` + n("%{for b in c}", 20_001), limits.HCL, "directives"},
		{"many conditions", n("a = b ? c : d\n", 5000), limits.HCL, ""},
		{"long", n("a", 1<<20+1), limits.HCL, "bytes"},
		{"a text file", n("((((\n", 1000), limits.Template, ""},
		{"a template", "${" + n("(", 1001), limits.Template, "nested"},
		{"values", n("[", 1001), limits.JSON, "nested"},
		{"values that texts seem to close", n(`["]",`, 1001), limits.JSON, "nested"},
		{"values after a text without an end", "[\"\n" + n("[", 1001), limits.JSON, "nested"},
		{"a template in a text", `["${` + n("(", 1001) + `"]`, limits.JSON, "nested"},
		{"an escaped template in a text", `["${` + n(`\u0028`, 1001) + `"]`, limits.JSON, "nested"},
		{"many values", "[" + n(`{"a": ["(", "["]}, `, 5000) + "1]", limits.JSON, ""},
	}
	for _, test := range tests {
		err := limits.Source([]byte(test.src), test.in)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
}

func TestRun(t *testing.T) {
	ended := false
	if err := limits.Run(t.Context(), func() { ended = true }); err != nil || !ended {
		t.Errorf("%v, %v", ended, err)
	}
}

// TestCancelled: an evaluation that only computes ends soon after its cancellation, and one
// that waits can end what it waits for.
func TestCancelled(t *testing.T) {
	why := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	var stop atomic.Bool
	begun := make(chan struct{})
	go func() {
		<-begun
		cancel(why)
	}()
	err := limits.Run(ctx, func() {
		close(begun)
		for !stop.Load() {
		}
	})
	stop.Store(true)
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	if err := limits.Run(ctx, func() { time.Sleep(200 * time.Millisecond) }); err != nil {
		t.Errorf("waiting: %v", err)
	}
}
