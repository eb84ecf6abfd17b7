package limits_test

import (
	"strings"
	"testing"

	"bake/internal/limits"
)

func TestSource(t *testing.T) {
	tests := []struct {
		name, src, want string
	}{
		{"ordinary", `a = [{ b = -(-1) }] # --------`, ""},
		{"side by side", strings.Repeat("[]", 100_000), ""},
		{"closed too often", strings.Repeat("]", 5000) + strings.Repeat("[", 900), ""},
		{"brackets", strings.Repeat("[", 1001), "nested"},
		{"kinds of brackets", strings.Repeat("([{", 334), "nested"},
		{"operators", "a = " + strings.Repeat("- ! ", 600) + "1", "nested"},
		{"long", strings.Repeat("a", 1<<20+1), "bytes"},
	}
	for _, test := range tests {
		err := limits.Source([]byte(test.src))
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", test.name, err, test.want)
		}
	}
}

func TestRun(t *testing.T) {
	ended := false
	if err := limits.Run(func() { ended = true }); err != nil || !ended {
		t.Errorf("%v, %v", ended, err)
	}
}
