package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/postprocessor"
	"bake/postprocessor/postprocessortest"
)

func TestPostProcessorConforms(t *testing.T) {
	t.Parallel() // plugins are waited for
	p := newProbe(t)
	p.options.Keeper = nil // many of them are started
	postprocessortest.Suite{Factory: p.PostProcessors[0], Body: `returns = "nothing"`, Untouched: true}.Run(t)
}

func TestProcess(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	in := artifactOf("a-1")
	for _, tt := range []struct {
		body string
		keep postprocessor.Keep
		id   string
	}{
		{"", postprocessor.Discard, "processed-a-1"},
		{"keep = true", postprocessor.Kept, "processed-a-1"},
		{"keep = true\nforce = true", postprocessor.MustKeep, "processed-a-1"},
		{"force = true", postprocessor.MustDiscard, "processed-a-1"},
		{`returns = "nothing"`, postprocessor.Discard, ""},
		{`returns = "input"`, postprocessor.Discard, "a-1"},
	} {
		out, keep, err := made(t, p.PostProcessors[0], p.input(t, tt.body, nil)).Process(t.Context(), s, in)
		if err != nil {
			t.Errorf("%s: %v", tt.body, err)
			continue
		}
		id := ""
		if out != nil {
			id = out.ID
		}
		if keep != tt.keep || id != tt.id || (out == in) != (tt.id == "a-1") {
			t.Errorf("%s: got %v, %d; want %s, %d", tt.body, out, keep, tt.id, tt.keep)
		}
		if out != nil && out != in {
			if err := out.Live.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if got := p.notes(t, "input "); got[0] != `a-1 "a fake" ["a.img"] <nil>` {
		t.Errorf("the plugin has seen %q", got)
	}
	_, _, err := made(t, p.PostProcessors[0], p.input(t, "misbehave = \"error\"\nat = \"Process\"", nil)).Process(t.Context(), s, in)
	if err == nil || err.Error() != "the probe fails at X.Process" {
		t.Errorf("got %v", err)
	}
}

// A plugin's post-processor can query a plugin's artifact.
func TestState(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	a, err := made(t, p.Builders[0], p.input(t, "", nil)).Build(t.Context(), s, builder.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Live.Close()
	out, _, err := made(t, p.PostProcessors[0], p.input(t, `state = "diskName"`, nil)).Process(t.Context(), s, a)
	if err != nil {
		t.Fatal(err)
	}
	out.Live.Close()
	if got := p.notes(t, "input "); !strings.HasSuffix(got[0], "disk-of-the-probe") {
		t.Errorf("got %q", got)
	}
}

// What a plugin reports about an artifact is limited.
func TestHugeArtifact(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	a, err := made(t, p.Builders[0], p.input(t, fmt.Sprintf("huge = %d", maxText+100), nil)).Build(t.Context(), s, builder.Hooks{})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Live.Close()
	if len(a.Text) > maxText+10 {
		t.Errorf("%d bytes of text", len(a.Text))
	}
}

// An artifact that the plugin does not describe is deleted, or reported as left behind.
func TestUndescribed(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	for body, want := range map[string]string{
		"misbehave = \"error\"\nat = \"Id\"": "has deleted it",
		"misbehave = \"kill\"\nat = \"Id\"":  "may still exist",
	} {
		disk := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(disk, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := made(t, p.Builders[0], p.input(t, fmt.Sprintf("%s\nfiles = [%q]", body, disk), nil)).Build(t.Context(), s, builder.Hooks{})
		if a != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, %v, want %q", body, a, err, want)
		}
		if _, err := os.Stat(disk); (err == nil) != (want == "may still exist") {
			t.Errorf("%s: the file: %v", body, err)
		}
	}
}

// A plugin that does not delete its artifact keeps nobody waiting without a word.
func TestDestroyHangs(t *testing.T) {
	t.Parallel()
	p := newProbe(t)
	s, _ := scope(t)
	a, err := build(t, p, t.Context(), s, "misbehave = \"stubborn\"\nat = \"Destroy\"", nil)
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	said := make(chan string, 1)
	p.Plugin.options.Warn = func(_ context.Context, format string, args ...any) {
		said <- fmt.Sprintf(format, args...)
		cancel(why)
	}
	if err := a.Live.Destroy(ctx); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	const want = "the plugin example.com/bake/probe has not answered Artifact.Destroy for 10s; bake waits for it up to 10m0s"
	if got := <-said; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Failed deletions are reported, and missing artifacts are not an error.
func TestDestroyFails(t *testing.T) {
	p := newProbe(t)
	s, _ := scope(t)
	for body, want := range map[string]string{
		"misbehave = \"error\"\nat = \"Destroy\"": "the probe fails at X.Destroy",
		"files = [\"/no/such/file\"]":             "",
		"misbehave = \"kill\"\nat = \"Destroy\"":  "went away",
	} {
		a, err := made(t, p.Builders[0], p.input(t, body, nil)).Build(t.Context(), s, builder.Hooks{})
		if err != nil {
			t.Fatal(err)
		}
		err = a.Live.Destroy(t.Context())
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
		a.Live.Close()
	}
}
