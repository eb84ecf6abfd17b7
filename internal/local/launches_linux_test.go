package local

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if ran, code := Child(os.Args); ran {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// workers returns the child processes of this one that machines run in, or that wait for work on
// their files.
func workers(t *testing.T) (n int) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range all {
		stat, _ := os.ReadFile(path) // that of a process that has ended is empty
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) < 2 || f[0] == "Z" || f[1] != strconv.Itoa(os.Getpid()) {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if slices.Contains(strings.Split(string(line), "\x00"), "bake-machine:worker") {
			n++
		}
	}
	return n
}

// Opening the cloud without launching machines starts no process for them, and none is left when
// it is closed.
func TestLaunches(t *testing.T) {
	for _, launches := range []bool{false, true} {
		o := Options{Dir: t.TempDir(), Getenv: os.Getenv, Launches: launches}
		found, err := Examine(t.Context(), o.Dir, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			if f.Fatal && !f.OK {
				t.Skip("no machine runs here: ", f.Detail)
			}
		}
		c, err := Serve(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		wait := 300 * time.Millisecond
		if launches {
			wait = time.Minute
		}
		began := false
		for end := time.Now().Add(wait); !began && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			began = workers(t) > 0
		}
		if began != launches {
			t.Errorf("launches %t: a worker was begun: %t", launches, began)
		}
		if err := c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if n := workers(t); n > 0 {
			t.Errorf("launches %t: after Close there are %d workers", launches, n)
		}
	}
}
