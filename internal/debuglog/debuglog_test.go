package debuglog_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"bake/internal/debuglog"
)

func TestRedacted(t *testing.T) {
	var out bytes.Buffer
	clean := func(s string) string { return strings.ReplaceAll(s, "hunter2", "***") }
	log := slog.New(debuglog.Redacted(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), clean))
	log.With("with", "hunter2").WithGroup("g").Debug("message hunter2",
		"text", "a hunter2", "error", errors.New("not hunter2"), "list", []string{"hunter2"}, "took", time.Second,
		slog.Group("inner", "deep", "hunter2", "n", 3))
	got := out.String()
	if strings.Contains(got, "hunter2") {
		t.Errorf("a secret is in %s", got)
	}
	for _, want := range []string{`msg="message ***"`, "with=***", `g.text="a ***"`, `g.error="not ***"`, "g.list=[***]", "g.took=1s", "g.inner.deep=***", "g.inner.n=3"} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing in %s", want, got)
		}
	}
}

func TestContext(t *testing.T) {
	debuglog.From(t.Context()).Error("goes nowhere")
	var out bytes.Buffer
	ctx := debuglog.With(t.Context(), slog.New(slog.NewTextHandler(&out, nil)))
	if debuglog.From(ctx).Info("here"); !strings.Contains(out.String(), "here") {
		t.Errorf("the log holds %q", out.String())
	}
}
