package limits_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"

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
	for _, number := range []string{"1e10001", "1E+10001", "1.5e-10001", "12e99999999", n("1", 10_002), "0." + n("0", 10_001) + "1"} {
		tests = append(tests, []struct {
			name, src string
			in        limits.Syntax
			want      string
		}{
			{"a number", "a = 1\nb = [1, -" + number + "]", limits.HCL, "at most 1e10000"},
			{"a number in a text", `a = "${` + number + `}"`, limits.HCL, "at most 1e10000"},
			{"a number in a template", "${" + number + "}", limits.Template, "at most 1e10000"},
			{"a number in JSON", `{"a": [1, -` + number + `]}`, limits.JSON, "at most 1e10000"},
			{"a number in a text in JSON", `{"a": "${` + number + `}"}`, limits.JSON, "at most 1e10000"},
			{"a number that is a text", `a = "` + number + `" # ` + number, limits.HCL, ""},
			{"a number that is a text in JSON", `{"a": "` + number + `"}`, limits.JSON, ""},
		}...)
	}
	for _, number := range []string{"1e10000", "9e-10000", "0e1", "100000", "12345.67890e123", n("1", 9999)} {
		for _, in := range []limits.Syntax{limits.HCL, limits.JSON} {
			tests = append(tests, struct {
				name, src string
				in        limits.Syntax
				want      string
			}{number, "[" + number + ", 0e10000]", in, ""})
		}
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

// TestPlaceOfNumber: the error of a number names its place.
func TestPlaceOfNumber(t *testing.T) {
	for src, want := range map[string]hcl.Pos{
		"a = 1\nb = [é, 1e99999]":             {Line: 2, Column: 9, Byte: 15},
		"{\"a\": 1,\n \"é\": [1e99999]}":      {Line: 2, Column: 8, Byte: 17},
		"{\"a\": 1,\n \"b\": \"${1e99999}\"}": {Line: 2, Column: 7, Byte: 15},
	} {
		in := limits.HCL
		if src[0] == '{' {
			in = limits.JSON
		}
		err := limits.Source([]byte(src), in)
		wrong, ok := errors.AsType[*limits.NumberError](err)
		if !ok || wrong.At.Start != want {
			t.Errorf("%s: %#v", src, err)
		}
	}
}
