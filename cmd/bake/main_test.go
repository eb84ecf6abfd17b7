package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bake/communicator/winrm/winrmtest"
	"bake/internal/local"
	"bake/internal/turns"
	"bake/plugin/keeper"
	"bake/plugin/plugintest"
)

func TestMain(m *testing.M) {
	if ran, code := local.Child(os.Args); ran {
		os.Exit(code)
	}
	if ran, code := keeper.Child(os.Args); ran {
		os.Exit(code)
	}
	if code, ran := plugintest.Main(os.Args, os.Environ()); ran {
		os.Exit(code)
	}
	testscript.Main(m, map[string]func(){"await": await, "bake": main, "packer": main}) // packer is bake under another name
}

// kinds are the scripts with machines, by subject: on each day, one of each kind is run. Scripts
// without a kind have turns of their own.
var kinds = map[string]string{
	"connections": "bastion egress host-keys login login-hints nothing-stays private-address reboot session-manager ssh",
	"endings":     "failures host-killed interrupt kill-and-sweep mishaps partial-region powered-off resume sweep-age wrong-credentials",
	"golden":      "cache checks fleet-machines golden golden-example goss-table guide-checks plan plan-ten scan supply-chain verify",
	"builds":      "amazon-secrets ami-options ansible cloud-init examples guide-hardening iam-profile imds-required side-by-side spot surrogate",
	"cloud":       "aws-cli-secrets cloud cloud-private disk-full disks guide-first-image guide-machines import rehearsal-examples run-command stored-images web-identity",
	"tutorial":    "aws-cli-tutorial boto3 cloud-console guide-custom-ami", // by each kind of client
}

// diskFormats are the forms of a disk image that the script disks imports. It has one turn among the
// scripts about the cloud; each turn brings another format.
func diskFormats(t *testing.T) []string {
	all := strings.Fields("qcow2 xz gz zst bz2 vmdk-stream vmdk-sparse vhd-fixed vhd-dynamic ova ova.gz")
	return turns.OneEach(t, all, len(strings.Fields(kinds["cloud"])))
}

// today reports whether a script is run. Those that need machines take turns; the main job
// is run every day.
func today(t *testing.T, name string) bool {
	if name == "main-job" {
		return true
	}
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "script", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "[!machines] skip") {
		return true
	}
	for _, kind := range kinds {
		if names := strings.Fields(kind); slices.Contains(names, name) {
			return slices.Contains(turns.One(t, names), name)
		}
	}
	return turns.Today(name, 10)
}

// TestKindsOfScripts: each script in the table of kinds exists, needs machines, and is in the
// right directory.
func TestKindsOfScripts(t *testing.T) {
	for kind, names := range kinds {
		if !slices.IsSorted(strings.Fields(names)) {
			t.Errorf("the scripts of %s are not in the order of the alphabet", kind)
		}
		for name := range strings.FieldsSeq(names) {
			text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "script", name+".txtar"))
			if err != nil || !strings.Contains(string(text), "[!machines] skip") {
				t.Errorf("%s: %s is no script with machines: %v", kind, name, err)
			}
		}
	}
}

// TestScripts runs the whole program as its users do. Scripts that start
// machines are run with BAKE_TEST_MACHINES=1; each has a cloud of its own, on a
// base that all of them share and that is kept in BAKE_TEST_BASE, by default
// below /var/tmp.
func TestScripts(t *testing.T) {
	machines := os.Getenv("BAKE_TEST_MACHINES") == "1"
	base := ""
	if machines {
		var err error
		if base, err = sharedBase(t.Context(), t.Logf); err != nil {
			t.Fatal(err)
		}
	}
	examples, err := filepath.Abs(filepath.Join("..", "..", "examples"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("..", "..", "testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			if name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"); machines && !today(t, name) {
				e.T().Skip("it is the turn of other scripts with machines")
			}
			e.Setenv("EXAMPLES", examples)
			e.Setenv("CONSOLE_MODULES", os.Getenv("BAKE_TEST_CONSOLE"))
			e.Setenv("CONSOLE_PICTURES", os.Getenv("BAKE_TEST_SCREENSHOTS"))
			e.Setenv("DISK_FORMATS", strings.Join(diskFormats(t), " "))
			e.Setenv("DOCS", filepath.Join(filepath.Dir(examples), "docs"))
			e.Setenv("BAKE_STATE_DIR", filepath.Join(e.WorkDir, ".state"))
			// Tests never use plugins of the user who runs them, or from a network.
			e.Setenv("PACKER_PLUGIN_PATH", filepath.Join(e.WorkDir, ".plugins"))
			e.Setenv("BAKE_PLUGIN_MIRROR", filepath.Join(e.WorkDir, ".mirror"))
			if err := os.Mkdir(filepath.Join(e.WorkDir, ".mirror"), 0o755); err != nil {
				return err
			}
			// Most scripts do not depend on cloud-init, and need not wait for it.
			e.Setenv("BAKE_CLOUD_INIT_TIMEOUT", "0")
			cloud := filepath.Join(e.WorkDir, ".cloud")
			e.Setenv("BAKE_CLOUD_DIR", cloud)
			if !machines {
				return nil
			}
			// A machine's own root must be able to reach its disk.
			if err := os.Chmod(e.WorkDir, 0o755); err != nil {
				return err
			}
			return borrowBase(base, filepath.Join(cloud, "images"))
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "machines":
				return machines, nil
			case "boto3":
				return exec.Command("/usr/bin/python3", "-c", "import boto3").Run() == nil, nil
			case "root":
				return os.Getuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"collector": collector(), "conforms": conforms, "exits": exits, "guide": guide, "release": release, "serve": serve, "stall": stall,
			"windows": func(ts *testscript.TestScript, _ bool, _ []string) { ts.Check(withWindows(t, ts)) },
			// probe DIR installs the plugin of the tests below that directory.
			"probe": func(ts *testscript.TestScript, _ bool, args []string) { plugintest.Install(t, ts.MkAbs(args[0])) },
		},
	})
}

// withWindows starts a Windows machine, whose drive C: is $WINDOWS, for a script that
// reaches it over WinRM at port $WINRM_PORT with password $WINRM_PASSWORD.
func withWindows(t *testing.T, ts *testscript.TestScript) error {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	srv.Windows = winrmtest.NewWindows(t)
	srv.Windows.Restart = func() {
		srv.Down()
		time.Sleep(300 * time.Millisecond)
		srv.Up()
	}
	ts.Setenv("WINRM_PORT", strconv.Itoa(srv.Port))
	ts.Setenv("WINRM_PASSWORD", srv.Password)
	ts.Setenv("WINDOWS", srv.Windows.Root)
	return nil
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

// borrowBase makes an image store in dir whose base is the one in from. The
// content of its layers is linked to: layers are read-only.
func borrowBase(from, dir string) error {
	for _, sub := range []string{"bases", "layers"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
		entries, err := os.ReadDir(filepath.Join(from, sub))
		if err != nil {
			return err
		}
		for _, e := range entries {
			src, dst := filepath.Join(from, sub, e.Name()), filepath.Join(dir, sub, e.Name())
			if e.IsDir() {
				err = os.Symlink(src, dst)
			} else if filepath.Ext(e.Name()) == ".json" {
				err = copyFile(src, dst)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func copyFile(src, dst string) error {
	b, err := os.ReadFile(src)
	return errors.Join(err, os.WriteFile(dst, b, 0o644))
}
