package shell_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"bake/communicator"
	"bake/provisioner/provisionertest"
	"bake/provisioner/shell"
	"bake/step"
)

func TestConformance(t *testing.T) {
	tmp := t.TempDir()
	provisionertest.Run(t, shell.Factory(), fmt.Sprintf(`
		inline           = ["echo hi", "echo oops >&2"]
		use_env_var_file = true
		remote_folder    = %q`, tmp), tmp)
}

// provision runs a block and returns the lines of standard output and standard error.
func provision(t *testing.T, body string, args ...any) (out, errOut []string, err error) {
	t.Helper()
	s, log := provisionertest.Scope(t)
	m := provisionertest.NewMachine(t)
	body = fmt.Sprintf(body, args...) + "\nremote_folder = \"" + t.TempDir() + "\"\n"
	err = provisionertest.New(t, shell.Factory(), body).Provision(t.Context(), s, m.Builder())
	return log.Texts(step.Output), log.Texts(step.ErrOutput), err
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.sh")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestScripts(t *testing.T) {
	tests := []struct {
		name, body string
		args       []any
		out        []string
		err        string
	}{
		{"inline", `inline = ["echo a", "echo b"]`, nil, []string{"a", "b"}, ""},
		{"inline stops at an error", `inline = ["false", "echo b"]`, nil, nil, "exit status: 1. Allowed exit codes are: [0]"},
		{"first line is the shebang", `inline = ["#!/bin/cat", "echo b"]`, nil, []string{"#!/bin/cat", "echo b"}, ""},
		{"own shebang", `inline = ["echo b"]
			inline_shebang = "/bin/cat"`, nil, []string{"#!/bin/cat", "echo b"}, ""},
		{"build values", `inline = ["echo {{.ID}} {{.Port}} {{build_name}}"]`, nil, []string{"i-test 22 test"}, ""},
		{"script", `script = %q`, []any{script(t, "#!/bin/sh\necho x")}, []string{"x"}, ""},
		{"line ends of Windows", `script = %q`, []any{script(t, "#!/bin/sh\r\necho x\r\n")}, []string{"x"}, ""},
		{"binary", `binary = true
			script = %q`, []any{script(t, "#!/bin/sh\nprintf 'a\r\nb'")}, []string{"a", "b"}, ""},
		{"scripts", `scripts = [%q, %q]`, []any{script(t, "echo x"), script(t, "echo y")}, []string{"x", "y"}, ""},
		{"scripts stop at the first that fails", `scripts = [%q, %q]`, []any{script(t, "exit 3"), script(t, "echo y")}, nil, "exit status: 3"},
		{"exit codes", `inline = ["exit 7"]
			valid_exit_codes = [0, 7]`, nil, nil, ""},
		{"standard variables", `inline = ["echo $PACKER_BUILD_NAME $PACKER_BUILDER_TYPE"]`, nil, []string{"test fake"}, ""},
		{"execute_command", `execute_command = "echo {{.Vars}}; sh {{.Path}} {{.ID}}"
			env = { A = "1" }
			inline = ["echo $1"]`, nil, []string{"A=1 PACKER_BUILDER_TYPE=fake PACKER_BUILD_NAME=test", "i-test"}, ""},
		{"empty values", `script = %q
			inline = []
			scripts = []
			environment_vars = []
			valid_exit_codes = []`, []any{script(t, "echo x")}, []string{"x"}, ""},
		{"byte order mark", `script = %q`, []any{script(t, "\ufeff#!/bin/cat\necho x")}, []string{"#!/bin/cat", "echo x"}, ""},
		{"no interpreter", `script = %q`, []any{script(t, "#!/no/such/zsh -f\necho x")}, nil, "the machine lacks /no/such/zsh"},
		{"no command", `inline = ["no-such-command"]`, nil, nil, "non-zero exit status: 127. Allowed exit codes are: [0]"},
		{"overwritten line", `inline = ["printf 'a\\rb  \\nlast'"]`, nil, []string{"b", "last"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, _, err := provision(t, tt.body, tt.args...)
			if diff := cmp.Diff(tt.out, out); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got error %v, want %q", err, tt.err)
			}
		})
	}
}

func TestErrorOutput(t *testing.T) {
	_, errOut, err := provision(t, `inline = ["echo oops >&2"]`)
	if err != nil || !slices.Equal(errOut, []string{"oops"}) {
		t.Errorf("got %q, %v", errOut, err)
	}
}

func TestEnvironment(t *testing.T) {
	values := []string{"plain", "it's", `"`, "$HOME", "`id`", "a=b=c", "two  words", `back\slash`, "", "'", "''", "*", "grün", "a;b&c|d"}
	for _, file := range []bool{false, true} {
		for _, value := range values {
			out, _, err := provision(t, `
				environment_vars = ["X=overruled", %q]
				env              = { X = %q }
				use_env_var_file = %t
				inline           = ["printf '<%%s>\\n' \"$X\" \"$Y\""]`, "Y="+value, value, file)
			if want := []string{"<" + value + ">", "<" + value + ">"}; err != nil || !slices.Equal(out, want) {
				t.Errorf("%q, file %t: got %q, %v", value, file, out, err)
			}
		}
	}
}

func TestRemoteSequence(t *testing.T) {
	dir := t.TempDir()
	s, _ := provisionertest.Scope(t)
	m := provisionertest.NewMachine(t)
	body := fmt.Sprintf(`
		inline           = ["true"]
		remote_path      = "%s/x.sh"
		use_env_var_file = true
		remote_folder    = %q
		execute_command  = ". {{.EnvVarFile}}; stat -c %%a {{.EnvVarFile}} {{.Path}}; {{.Path}}"`, dir, dir)
	if err := provisionertest.New(t, shell.Factory(), body).Provision(t.Context(), s, m.Builder()); err != nil {
		t.Fatal(err)
	}
	calls := m.Calls()
	if len(calls) != 4 || calls[0] != "put "+dir || calls[1] != "put "+dir || !strings.HasPrefix(calls[3], "run rm -f "+dir+"/x.sh "+dir+"/varfile_") {
		t.Errorf("calls: %q", calls)
	}
}

// However an attempt ends, nothing of it stays on the machine. Files that could not be
// removed because of a lost connection are removed at the end.
func TestNothingStays(t *testing.T) {
	const secrets = "use_env_var_file = true\nenvironment_vars = [\"TOKEN=hunter2secret\"]\n"
	lost := func(line string) func(int, string) error {
		return func(_ int, call string) error {
			if strings.Contains(call, line) {
				return communicator.ErrDisconnected
			}
			return nil
		}
	}
	tests := []struct {
		name, body string
		after      func(int, string) error
		left       int // when Provision returns
	}{
		{"success", `inline = ["true"]`, nil, 0},
		{"failure", `inline = ["exit 5"]`, nil, 0},
		{"the first of several", fmt.Sprintf("scripts = [%q, %q]", script(t, "exit 5"), script(t, "true")), nil, 0},
		{"unusable execute_command", "inline = [\"true\"]\nexecute_command = \"exit 9 {{.Path}}\"", nil, 0},
		{"timeout", `inline = ["sleep 60"]`, nil, 0},
		{"half an upload", `inline = ["true"]`, func(n int, _ string) error {
			if n == 1 {
				return errors.New("half of it")
			}
			return nil
		}, 0},
		{"lost connection", `inline = ["true"]`, lost("chmod"), 2},
		{"lost while uploading", "inline = [\"true\"]\nstart_retry_timeout = \"1s\"", lost("put"), 1},
		{"expected reboot", "inline = [\"true\"]\nexpect_disconnect = true", lost("chmod"), 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			s, _ := provisionertest.Scope(t)
			m := provisionertest.NewMachine(t)
			m.After = tt.after
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if tt.name == "timeout" {
				ctx, cancel = context.WithTimeout(ctx, 500*time.Millisecond)
			}
			defer cancel()
			body := tt.body + "\n" + secrets + fmt.Sprintf("remote_folder = %q", dir)
			err := provisionertest.New(t, shell.Factory(), body).Provision(ctx, s, m.Builder())
			if good := tt.name == "success" || tt.name == "expected reboot"; (err == nil) != good {
				t.Errorf("got %v", err)
			}
			if got, _ := os.ReadDir(dir); len(got) != tt.left {
				t.Errorf("left: %v, want %d", got, tt.left)
			}
			m.After = nil
			if err := m.Tidy(t.Context()); err != nil {
				t.Error(err)
			}
			if got, _ := os.ReadDir(dir); len(got) != 0 {
				t.Errorf("left in the end: %v", got)
			}
		})
	}
}

// Where nothing could be uploaded, there is nothing to remove.
func TestNothingUploaded(t *testing.T) {
	s, _ := provisionertest.Scope(t)
	m := provisionertest.NewMachine(t)
	m.Fault = func(_ int, call string) error { return communicator.ErrNoCommands }
	err := provisionertest.New(t, shell.Factory(), `inline = ["true"]`).Provision(t.Context(), s, m.Builder())
	if !errors.Is(err, communicator.ErrNoCommands) {
		t.Errorf("got %v", err)
	}
	if err := m.Tidy(t.Context()); err != nil {
		t.Error(err)
	}
	if calls := m.Calls(); len(calls) != 1 {
		t.Errorf("calls: %q", calls)
	}
}

func TestSkipClean(t *testing.T) {
	dir := t.TempDir()
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, shell.Factory(), fmt.Sprintf("inline = [\"true\"]\nskip_clean = true\nremote_path = \"%s/x.sh\"", dir))
	if err := p.Provision(t.Context(), s, provisionertest.NewMachine(t).Builder()); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(dir + "/x.sh"); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("got %v, %v", info, err)
	}
}

func TestDisconnect(t *testing.T) {
	for _, expected := range []bool{false, true} {
		s, _ := provisionertest.Scope(t)
		m := provisionertest.NewMachine(t)
		m.Fault = func(n int, call string) error {
			if strings.Contains(call, "chmod +x") {
				return communicator.ErrDisconnected
			}
			return nil
		}
		body := fmt.Sprintf("inline = [\"reboot\"]\nexpect_disconnect = %t\nvalid_exit_codes = [0, 2300218]\nremote_folder = %q", expected, t.TempDir())
		err := provisionertest.New(t, shell.Factory(), body).Provision(t.Context(), s, m.Builder())
		if expected && err != nil || !expected && (!errors.Is(err, communicator.ErrDisconnected) || !strings.Contains(err.Error(), "expect_disconnect")) {
			t.Errorf("expect_disconnect = %t: got %v", expected, err)
		}
	}
}

// restarting is a machine that shuts down once its script has run.
type restarting struct {
	*provisionertest.Machine
	after []string // the calls before the question
}

func (r *restarting) Restarts(context.Context) bool {
	r.after = r.Calls()
	return true
}

// A script that is expected to reboot the machine, but returns before that, is followed by the
// question whether it does, before anything else runs there.
func TestRestarts(t *testing.T) {
	for _, expected := range []bool{false, true} {
		s, log := provisionertest.Scope(t)
		m := &restarting{Machine: provisionertest.NewMachine(t)}
		b := m.Builder()
		b.Communicator = m
		body := fmt.Sprintf("inline = [\"true\"]\nexpect_disconnect = %t\nremote_folder = %q", expected, t.TempDir())
		if err := provisionertest.New(t, shell.Factory(), body).Provision(t.Context(), s, b); err != nil {
			t.Fatal(err)
		}
		asked := len(m.after) > 0 && strings.Contains(m.after[len(m.after)-1], "chmod +x")
		if said := slices.Contains(log.Texts(step.Say), "The script restarts the machine."); asked != expected || said != expected {
			t.Errorf("expect_disconnect = %t: asked %t, after %q; said %t", expected, asked, m.after, said)
		}
	}
}

// A machine that reboots drops the connection for a while: uploads and removals
// are repeated, for start_retry_timeout and no longer.
func TestStartRetry(t *testing.T) {
	for downFor, want := range map[time.Duration]bool{30 * time.Second: true, 2 * time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := provisionertest.Scope(t)
			m := provisionertest.NewMachine(t)
			start := time.Now()
			m.Fault = func(_ int, call string) error {
				if strings.HasPrefix(call, "put") && time.Since(start) < downFor {
					return communicator.ErrDisconnected
				}
				return nil
			}
			body := fmt.Sprintf("inline = [\"true\"]\nstart_retry_timeout = \"1m\"\nremote_folder = %q", t.TempDir())
			err := provisionertest.New(t, shell.Factory(), body).Provision(t.Context(), s, m.Builder())
			if (err == nil) != want {
				t.Errorf("down for %s: got %v", downFor, err)
			}
			if took := time.Since(start); took > 62*time.Second {
				t.Errorf("tried for %s", took)
			}
		})
	}
}

func TestRefusedUploadIsNotRepeated(t *testing.T) {
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, shell.Factory(), `inline = ["true"]
		remote_folder = "/no/such/folder"`)
	if err := p.Provision(t.Context(), s, provisionertest.NewMachine(t).Builder()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestInvalid(t *testing.T) {
	tests := []struct{ body, at, want string }{
		{``, ``, "Set one of inline, script and scripts"},
		{"inline = []", "inline", "there is nothing to run"},
		{"inline = [\"x\"]\nscript = \"/etc/passwd\"", "script", "not both"},
		{"inline = [\"x\"]\nscripts = [\"/etc/passwd\"]", "scripts", "not both"},
		{"script = \"/etc/passwd\"\nscripts = [\"/etc/passwd\"]", "scripts", "not both"},
		{"script = \"missing.sh\"", "missing.sh", `no file "missing.sh"`},
		{"scripts = [\"/etc/passwd\", \"missing.sh\"]", "missing.sh", `no file "missing.sh"`},
		{"script = \"/etc\"", "/etc", "not a regular file but a directory"},
		{"inline = [\"x\"]\nenvironment_vars = [\"NOVALUE\"]", "NOVALUE", "NAME=value"},
		{"inline = [\"x\"]\nenvironment_vars = [\"=v\"]", "=v", "NAME=value"},
		{"inline = [\"x\"]\nenv = { \"\" = \"v\" }", "env", "empty"},
		{"inline = [\"x\"]\nenv_var_format = \"%s\"", "env_var_format", "two %s"},
		{"inline = [\"x\"]\nstart_retry_timeout = \"-1s\"", "start_retry_timeout", "negative"},
		{"inline = [\"x\"]\nexecute_command = \"{{.Path\"", "execute_command", "{{ }} template"},
		{"inline = [\"{{nosuch}}\"]", "inline", "nosuch"},
		{"inlin = [\"x\"]", "inlin", "inline"},
	}
	for _, tt := range tests {
		provisionertest.Invalid(t, shell.Factory(), tt.body, tt.at, tt.want)
	}
}

// Values that are known only in a build cause no errors before.
func TestUnknown(t *testing.T) {
	vars := map[string]cty.Value{"s": cty.UnknownVal(cty.String), "l": cty.UnknownVal(cty.List(cty.String))}
	for _, body := range []string{`script = var.s`, `inline = var.l`, `scripts = var.l`, "inline = [\"x\"]\nenvironment_vars = var.l"} {
		if diags := shell.Factory().Check(provisionertest.Input(t, body, vars)); diags.HasErrors() {
			t.Errorf("%s: %v", body, diags)
		}
	}
}
