package run_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/run"
)

// TestKeyOf: the key is in the environment, or in a file that it names, and is the same one.
func TestKeyOf(t *testing.T) {
	write := func(text string) string {
		name := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	want, err := run.KeyOf([]string{"BAKE_FLEET_KEY=a key for the tests"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := run.KeyOf([]string{"BAKE_FLEET_KEY_FILE=" + write("a key for the tests\n")}); err != nil || got != want {
		t.Errorf("of a file: %v", err)
	}
	if got, err := run.KeyOf([]string{"BAKE_FLEET_KEY=a key for the tests", "BAKE_FLEET_KEY_FILE=/none"}); err != nil || got != want {
		t.Errorf("of both: %v", err)
	}
	if got, err := run.KeyOf([]string{"BAKE_FLEET_KEY= a key for the tests\n"}); err != nil || got != want {
		t.Errorf("with white space: %v", err)
	}
	for _, env := range [][]string{nil, {"BAKE_FLEET_KEY=\n"}} {
		if _, err := run.KeyOf(env); !errors.Is(err, run.ErrNoKey) {
			t.Errorf("of %q: %v", env, err)
		}
	}
	for file, want := range map[string]string{"/none": "no such file", write("short"): "is too short", write(" \n"): "is empty", write(strings.Repeat("k", 4097)): "more than 4096 bytes"} {
		if _, err := run.KeyOf([]string{"BAKE_FLEET_KEY_FILE=" + file}); err == nil || errors.Is(err, run.ErrNoKey) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "BAKE_FLEET_KEY_FILE") {
			t.Errorf("%s: %v", file, err)
		}
	}
}
