package temporal

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestHealth: the probes report that a worker takes work, or that it only runs.
func TestHealth(t *testing.T) {
	var away error
	h := newHealth(func(context.Context) error { return away })
	at, stop, err := serve("127.0.0.1:0", &Metrics{}, h)
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ask := func(path string, status int, want string) {
		t.Helper()
		r, err := http.Get("http://" + at + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != status || !strings.Contains(string(text), want) {
			t.Errorf("%s: %d %s, %v, want %d %s", path, r.StatusCode, text, err, status, want)
		}
	}
	ask("/ready", 503, "starting")
	h.takesWork()
	ask("/ready", 200, "ready")
	away = errors.New("connection refused")
	ask("/ready", 503, "the Temporal service does not answer: connection refused")
	ask("/live", 200, "live")
	ask("/metrics", 200, "# TYPE bake_cells_total counter")
	fatal := make(chan error, 1)
	fatal <- errors.New("the namespace is gone")
	if err := h.atEnd(t.Context(), fatal); err == nil {
		t.Error("what it cannot go on for is lost")
	}
	ask("/ready", 503, "ending")
	h.takesWork()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := h.atEnd(ctx, fatal); err != nil {
		t.Error(err)
	}
	ask("/ready", 503, "ending")
	ask("/live", 200, "live")
	ask("/other", 404, "")
}

// TestMetricsAreDocumented: the page for operators lists exactly the existing metrics.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "fleets.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`\bbake_[a-z_]+\b`).FindAllString(string(text), -1)
	slices.Sort(named)
	var there []string
	for _, h := range help {
		there = append(there, h.name)
	}
	if named = slices.Compact(named); !slices.Equal(named, there) {
		t.Errorf("docs/fleets.md names %q; there are %q", named, there)
	}
}
