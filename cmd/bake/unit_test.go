package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spf13/cobra"
)

func TestSingleDash(t *testing.T) {
	in := []string{"-v", "-h", "-var", "a=b", "-var=c=-d", "--var", "-color=false", "-parallel-builds", "-1", "-", "x", "--", "-var"}
	want := []string{"-v", "-h", "--var", "a=b", "--var=c=-d", "--var", "--color=false", "--parallel-builds", "-1", "-", "x", "--", "-var"}
	if diff := cmp.Diff(want, singleDash(in)); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
}

// TestOpenFiles: an error about the limit on open files says what to do.
func TestOpenFiles(t *testing.T) {
	var out bytes.Buffer
	p := &program{stdout: newOutput(&out), stderr: newOutput(&out)}
	p.report(fmt.Errorf("cannot start the ledger: %w", &os.PathError{Op: "open", Path: "x", Err: syscall.EMFILE}))
	if want := "Error: cannot start the ledger: open x: too many open files; allow bake more open files, such as with: ulimit -n 4096\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
}

func TestEnvironDirectories(t *testing.T) {
	for _, tt := range []struct {
		env         environ
		state, home string // want
	}{
		{environ{"HOME=/h"}, "/h/.local/state/bake", "/h/.local/share/bake/cloud"},
		{environ{"HOME=/h", "XDG_STATE_HOME=/s", "XDG_DATA_HOME=/d"}, "/s/bake", "/d/bake/cloud"},
		{environ{"HOME=/h", "XDG_STATE_HOME=relative"}, "/h/.local/state/bake", "/h/.local/share/bake/cloud"},
		{environ{"BAKE_STATE_DIR=/a", "BAKE_STATE_DIR=/b", "BAKE_CLOUD_DIR=/c"}, "/b", "/c"},
	} {
		state, err := tt.env.stateDir()
		home, err2 := tt.env.cloudDir()
		if err != nil || err2 != nil || state != tt.state || home != tt.home {
			t.Errorf("%q: %s %v, %s %v", tt.env, state, err, home, err2)
		}
	}
	windows := customs("windows")
	for _, tt := range []struct {
		env  environ
		want string
	}{
		{environ{"LOCALAPPDATA=/l", "USERPROFILE=/u", "HOME=/h", "XDG_STATE_HOME=/s"}, "/l/bake"},
		{environ{"USERPROFILE=/u", "HOME=/h"}, "/u/AppData/Local/bake"},
		{environ{"BAKE_STATE_DIR=/a", "LOCALAPPDATA=/l"}, "/a"},
	} {
		if got, err := tt.env.dir("BAKE_STATE_DIR", windows.state, "bake"); err != nil || got != tt.want {
			t.Errorf("on Windows, %q: %s, %v", tt.env, got, err)
		}
	}
	for name, env := range map[string]environ{
		"/c/bake/config.hcl": {"APPDATA=/c", "USERPROFILE=/u"}, "/u/AppData/Roaming/bake/config.hcl": {"USERPROFILE=/u"}, "/own.hcl": {"BAKE_CONFIG=/own.hcl", "APPDATA=/c"},
	} {
		if got, err := env.dir(configVariable, windows.config, "bake/config.hcl"); err != nil || got != name {
			t.Errorf("on Windows, %q: %s, %v", env, got, err)
		}
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := (environ{}).stateDir(); err != nil || got != filepath.Join(me.HomeDir, ".local/state/bake") {
		t.Errorf("without HOME: %q, %v", got, err)
	}
}

func TestExitCodes(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0}, {errReported, 1}, {errors.New("x"), 1}, {usageError{}, 1}, {&templateError{}, 1},
		{unknownCommand{}, 127}, {errors.Join(errReported, unknownCommand{}), 127},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

// TestOneCommand: only the requested command is created, and it has the name in the table.
func TestOneCommand(t *testing.T) {
	p := &program{now: time.Now}
	all := p.root(nil).Commands()
	if len(all) < 30 {
		t.Fatalf("only %d commands", len(all))
	}
	for _, c := range all {
		if c.Hidden {
			continue
		}
		if one := p.root([]string{c.Name(), "-h"}).Commands(); one[0].Name() != c.Name() && len(one) == 1 {
			t.Errorf("for %s there is %s", c.Name(), one[0].Name())
		} else if about := c.Name() == "docs" || c.Name() == "completion"; len(one) != 1 && !about {
			t.Errorf("%s is made with %d others", c.Name(), len(one)-1)
		}
	}
	if n := len(p.root([]string{"plugin", "installed"}).Commands()); n != len(all) {
		t.Errorf("for an alias there are %d commands of %d", n, len(all))
	}
}

// TestWrongArguments: a command that is called with a wrong number of arguments shows its usage.
func TestWrongArguments(t *testing.T) {
	p := &program{now: time.Now}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		for _, n := range []int{0, 1, 2, 9} {
			if cmd.Args == nil {
				break
			}
			err := cmd.Args(cmd, make([]string, n))
			usage := usageError{}
			if err != nil && !errors.As(err, &usage) {
				t.Errorf("%s with %d arguments: %v", cmd.CommandPath(), n, err)
			}
		}
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(p.root(nil))
}
