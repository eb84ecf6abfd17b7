package bake_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSize checks the size of the stripped program. It exceeds the limit by far if some code looks
// up methods by a name that the linker cannot know (text/template, html/template, reflect's
// MethodByName): every method of every type that becomes an interface is then kept, including
// those of the AWS SDK's clients.
func TestSize(t *testing.T) {
	if testing.Short() {
		t.Skip("links the program")
	}
	const limit = 45_000_000 // bytes
	program := filepath.Join(t.TempDir(), "bake")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/bake")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	info, err := os.Stat(program)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f MB", float64(info.Size())/1e6)
	if info.Size() > limit {
		t.Errorf("the program has %.1f MB, more than %.1f; does something look methods up by name?", float64(info.Size())/1e6, limit/1e6)
	}
	t.Run("initialization", func(t *testing.T) { testInitialization(t, program) })
}

// TestSorts: only package sort is used for sorting: each type that is sorted by a function of
// package slices adds some 15 kB to the program, and sixty of them a megabyte.
func TestSorts(t *testing.T) {
	large := regexp.MustCompile(`\bslices\.(Sort|SortStable|Sorted|SortedStable)Func\(`)
	for _, s := range sources(t) {
		if s.syntax == nil || strings.HasPrefix(s.name, "internal/torture/") || strings.HasPrefix(s.name, "internal/bench/") { // separate programs
			continue
		}
		for i, line := range strings.Split(s.text, "\n") {
			if call := large.FindString(line); call != "" {
				t.Errorf("%s:%d: %s...): sort.Slice and sort.SliceStable do it in less", s.name, i+1, call)
			}
		}
	}
}
