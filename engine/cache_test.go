package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/engine"
	"bake/step"
)

// store is a cache that several builds share.
type store struct {
	kept []string // keys
	err  error    // of Keep
}

func (c *store) Find(_ context.Context, region string, keys []string) (string, int, error) {
	for i := len(keys) - 1; i >= 0; i-- {
		if region == "r" && slices.Contains(c.kept, keys[i]) {
			return "img-cached", i, nil
		}
	}
	return "", -1, nil
}

func (c *store) Keep(_ context.Context, region, instance, key, _ string) error {
	if c.err == nil && region == "r" && instance == "i-1" {
		c.kept = append(c.kept, key)
	}
	return c.err
}

// build bakes a template with these provisioners, and returns what they did and the messages about
// the cache.
func (c *store) build(t *testing.T, builder string, provisioners ...string) (ran, said string, err error) {
	t.Helper()
	var b strings.Builder
	for _, p := range provisioners {
		fmt.Fprintf(&b, "provisioner \"run\" {\n%s\n}\n", p)
	}
	f := newFixture(t, fmt.Sprintf("source \"machine\" \"web\" {\n%s\n}\nbuild {\nsources = [\"machine.web\"]\n%s}\n", builder, b.String()))
	f.options.Cache = c
	f.world.act = func(_ context.Context, what string) error {
		if what == "run bad" {
			return errors.New("bad")
		}
		return nil
	}
	result := f.one(t.Context())
	var outputs, says []string
	for _, e := range f.events {
		switch {
		case e.Kind == step.Output:
			outputs = append(outputs, e.Text)
		case strings.Contains(e.Text, "cache"):
			says = append(says, e.Text)
		}
	}
	return strings.Join(outputs, " "), strings.Join(says, "\n"), result.Err
}

func script(text string) string { return fmt.Sprintf("script = %q", text) }

func TestCache(t *testing.T) {
	c := &store{}
	check := func(what, wantRan, wantSaid string, kept int, provisioners ...string) {
		t.Helper()
		before := len(c.kept)
		ran, said, err := c.build(t, "", provisioners...)
		if failing := strings.Contains(what, "fails"); (err != nil) != failing {
			t.Errorf("%s: error %v", what, err)
		}
		if ran != wantRan || !strings.Contains(said, wantSaid) {
			t.Errorf("%s: ran %q, not %q, and said %q, not %q", what, ran, wantRan, said, wantSaid)
		}
		if n := len(c.kept) - before; n != kept {
			t.Errorf("%s: kept %d machines, not %d", what, n, kept)
		}
	}
	one, two, three := script("one"), script("two"), script("three")
	check("the first", "one two three", "has no machine", 3, one, two, three)
	check("the same", "", "run (3 of 3) and everything", 0, one, two, three)
	check("another last one", "four", "run (2 of 3) and everything", 1, one, two, script("four"))
	check("another order", "two one", "has no machine", 2, two, one)
	check("one more", "five", "run (3 of 4) and everything", 1, one, two, three, script("five"))
	check("one that fails", "bad", "run (1 of 2) and everything", 0, one, script("bad"))
	check("one that waits", "two three", "waits for something (pause_before)", 0, one, two+"\npause_before = \"1ns\"", three)
	check("one that may fail", "two three", "may have failed (continue_on_error)", 0, one, two+"\ncontinue_on_error = true", three)
	check("the time", "now two", "timestamp has a different value in each run", 0, one, `script = timestamp() == "" ? "" : "now"`, two)
	check("what differs between machines", "i-1", "has no machine", 1, "script = build.ID")
	check("which does not count", "", "(1 of 1)", 0, "script = build.ID")
	check("leftovers", "leave x", "temporary files are left on the machine", 0, script("leave x"))

	file := filepath.Join(t.TempDir(), "file")
	read := script("read " + file)
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		check("a file "+text, "read "+file, "has no machine", 1, read)
	}
	check("the same file", "", "(1 of 1)", 0, read)

	_, _, _ = c.build(t, "vanishes = true", one, two)
	before := len(c.kept)
	ran, said, err := c.build(t, "vanishes = true", one, two)
	if ran != "one two" || !strings.Contains(said, "Starting without the cache: image img-cached") || err != nil || len(c.kept) != before+2 {
		t.Errorf("an image that is gone when it is launched: ran %q, said %q, kept %d machines, error %v", ran, said, len(c.kept)-before, err)
	}

	c.err = errors.New("no room")
	check("a full disk", "six seven", "No more machines are added to the cache: keep the machine in the cache: no room", 0, script("six"), script("seven"))
}

// TestCacheAfterResume checks that a resumed build adds no machine to the cache and reports that.
func TestCacheAfterResume(t *testing.T) {
	build := func(j step.Journal, cache engine.Cache, fails error) (says bool) {
		f := newFixture(t, "source \"machine\" \"web\" {}\nbuild {\nsources = [\"machine.web\"]\nprovisioner \"run\" {\nscript = \"one\"\n}\n}\n")
		f.options.Journal, f.options.Cache = j, cache
		f.world.act = func(_ context.Context, what string) error {
			if what == "run one" {
				return fails
			}
			return nil
		}
		if r := f.one(t.Context()); !errors.Is(r.Err, fails) {
			t.Errorf("got %v, want %v", r.Err, fails)
		}
		return slices.ContainsFunc(f.events, func(e step.Event) bool { return strings.Contains(e.Text, "No machines are added to the cache") })
	}
	bad := errors.New("bad")
	for name, cache := range map[string]engine.Cache{"with": &store{}, "without": nil} {
		j, err := step.CreateJournal(filepath.Join(t.TempDir(), "journal"), "head", nil)
		if err != nil {
			t.Fatal(err)
		}
		if build(j, cache, bad) {
			t.Errorf("%s a cache: the first attempt says that it keeps nothing", name)
		}
		if says := build(j, nil, nil); says != (cache != nil) {
			t.Errorf("%s a cache: after that, it says that it keeps nothing: %t", name, says)
		}
		if err := j.Close(false); err != nil {
			t.Error(err)
		}
	}
}
