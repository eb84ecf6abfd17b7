package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"bake/cloud/machine/sandbox"
)

func TestMain(m *testing.M) {
	if ran, code := sandbox.Child(os.Args); ran {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"bake": main})
}

// TestScripts runs the whole program as its users do. Scripts that start
// machines are run with BAKE_TEST_MACHINES=1.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("BAKE_STATE_DIR", filepath.Join(e.WorkDir, ".state"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "machines" {
				return os.Getenv("BAKE_TEST_MACHINES") == "1", nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits is the script command "exits CODE PROGRAM ARGS...": exec of a program
// that must end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code program [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code is %d, want %d", got, want)
	}
}
