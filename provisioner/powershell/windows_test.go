package powershell_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"bake/communicator"
	"bake/communicator/winrm/winrmtest"
	"bake/provisioner/powershell"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// mask replaces variable names.
func mask(line string) string {
	return regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f-]{27}`).ReplaceAllString(line, "UUID")
}

// nothingLeft checks that a machine has no file or task of bake.
func nothingLeft(t *testing.T, w interface {
	Path(string) string
	Tasks() int
}) {
	t.Helper()
	left, err := os.ReadDir(w.Path("c:/Windows/Temp"))
	if err != nil || len(left) > 0 || w.Tasks() > 0 {
		t.Errorf("left on the machine: %v, %d tasks, %v", left, w.Tasks(), err)
	}
}

func local(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "script.ps1")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const odd = `a "b" 'c' $d ` + "`e`" + ` %f% ^g & h | i <j> ${k} \ “l” ü`

// On Windows, over WinRM: scripts, their output and exit status.
func TestWindows(t *testing.T) {
	print := []string{`"A=$env:A B=${env:B(x86)} type=$env:PACKER_BUILDER_TYPE name=$env:PACKER_BUILD_NAME"`}
	fileOf := func(lines ...string) string { return "script = \"" + local(t, strings.Join(lines, "\r\n")) + "\"" }
	inline := func(lines ...string) string {
		for i := range lines {
			lines[i] = "<<EOT\n" + strings.ReplaceAll(lines[i], "${", "$${") + "\nEOT\n"
		}
		return "inline = [" + strings.Join(lines, ",") + "]"
	}
	env := "env = { \"A\" = <<EOT\n" + strings.ReplaceAll(odd, "${", "$${") + "\nEOT\n \"B(x86)\" = \"{{.ID}}\" }\n"
	want := "A=" + odd
	for _, tt := range []struct {
		name, body string
		commands   []string
		out        []string
		err        string
	}{
		{"inline", inline(print[0]) + "\n" + env, []string{
			"powershell -executionpolicy bypass -file c:/Windows/Temp/script-UUID.ps1",
			"powershell -executionpolicy bypass -file c:/Windows/Temp/packer-cleanup-UUID.ps1",
		}, []string{want, " B=i-test type=fake name=test"}, ""},
		{"script", fileOf(print...) + "\n" + env, []string{
			`powershell -executionpolicy bypass "& { if (Test-Path variable:global:ProgressPreference){$ProgressPreference='SilentlyContinue'};. c:/Windows/Temp/packer-ps-env-vars-UUID.ps1; &'c:/Windows/Temp/script-UUID.ps1'; exit $LastExitCode }"`,
			"powershell -executionpolicy bypass -file c:/Windows/Temp/packer-cleanup-UUID.ps1",
		}, []string{want, " B=i-test type=fake name=test"}, ""},
		{"pwsh", fileOf(print...) + "\nuse_pwsh = true\nexecution_policy = \"RemoteSigned\"\ndebug_mode = 1\nskip_clean = true\nremote_path = \"c:/Windows/Temp/s 1.ps1\"\nremote_env_var_path = \"c:/Windows/Temp/e 1.ps1\"\nenv = { A = \"a\" }", []string{
			`pwsh -executionpolicy remotesigned -command "& { if (Test-Path variable:global:ProgressPreference){$ProgressPreference='SilentlyContinue'};Set-PsDebug -Trace 1;. 'c:/Windows/Temp/e 1.ps1'; &'c:/Windows/Temp/s 1.ps1'; exit $LastExitCode }"`,
		}, []string{"DEBUG: trace 1", "A=a B= type=fake name=test"}, ""},
		{"pwsh inline", inline(print[0]) + "\nuse_pwsh = true\ndebug_mode = 2\nskip_clean = true\nremote_path = \"c:/Windows/Temp/s 1.ps1\"\nenv = { A = \"a\" }", []string{
			`pwsh -executionpolicy bypass -file "c:/Windows/Temp/s 1.ps1"`,
		}, []string{"DEBUG: trace 2", "A=a B= type=fake name=test"}, ""},
		{"own command", inline(print[0]) + "\nexecute_command = \"echo {{.ID}} & powershell -file {{.Path}}\"\nenv_var_format = \"$env:%s = \\\"<%s>\\\"\\n\"\nenv = { A = \"a\" }\nskip_clean = true", []string{
			"echo i-test & powershell -file c:/Windows/Temp/script-UUID.ps1",
		}, []string{"i-test", "A=<a> B= type=<fake> name=<test>"}, ""},
		{"no policy", fileOf("'x'") + "\nexecution_policy = \"none\"\nskip_clean = true\nvalid_exit_codes = [0, 1]", []string{
			`& { if (Test-Path variable:global:ProgressPreference){$ProgressPreference='SilentlyContinue'};. c:/Windows/Temp/packer-ps-env-vars-UUID.ps1; &'c:/Windows/Temp/script-UUID.ps1'; exit $LastExitCode }`,
		}, nil, ""},
		{"a program that fails", inline("cmd /c exit 7", "'after'"), nil, []string{"after"}, "exit status: 7"},
		{"a program that fails, in a script", fileOf("cmd /c exit 7", "'after'"), nil, []string{"after"}, "exit status: 7"},
		{"an exit", inline("exit 3", "'after'"), nil, nil, "exit status: 3"},
		{"an exit of a script", fileOf("exit 3", "'after'"), nil, nil, "exit status: 3"},
		{"an exit that is right", fileOf("exit 3") + "\nvalid_exit_codes = [3]", nil, nil, ""},
		{"an error", inline("throw 'oh no'", "'after'"), nil, nil, "exit status: 1"},
		{"an error of a script", fileOf("throw 'oh no'", "'after'"), nil, nil, "exit status: 1"},
		{"strict mode", inline("Set-StrictMode -Version Latest", "'x'"), nil, []string{"x"}, ""},
		{"a script that cannot be read", inline("'no end"), nil, nil, "exit status: 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, m := provisionertest.Windows(t)
			s, log := provisionertest.Scope(t)
			before := len(srv.Lines())
			err := provisionertest.New(t, powershell.Factory(), tt.body).Provision(t.Context(), s, m)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if out := log.Texts(step.Output); !slices.Equal(out, tt.out) {
				t.Errorf("output:\n%q, want\n%q\n%q", out, tt.out, log.Texts(step.ErrOutput))
			}
			var commands []string
			for _, line := range srv.Lines()[before:] {
				if !strings.HasPrefix(line, "# bake: put") {
					commands = append(commands, mask(line))
				}
			}
			if tt.commands != nil && !slices.Equal(commands, tt.commands) {
				t.Errorf("commands:\n%s\nwant\n%s", strings.Join(commands, "\n"), strings.Join(tt.commands, "\n"))
			}
			if !strings.Contains(tt.body, "skip_clean") {
				nothingLeft(t, srv.Windows)
			}
			if n := srv.Shells(); n > 0 {
				t.Errorf("%d shells were left", n)
			}
		})
	}
}

// A script for another user is run by a task with all privileges. Its output and exit status are
// returned, and nothing of it is left.
func TestElevated(t *testing.T) {
	const print = `inline = ["\"$env:USERNAME $env:RUNLEVEL $env:A\"", "Start-Sleep -Milliseconds 300", "'later'", "cmd /c exit 5"]` + "\nenv = { A = \"<1 & 2>\" }\n"
	for _, tt := range []struct {
		name, body string
		out        []string
		err        string
	}{
		{"service account", print + `elevated_user = "SYSTEM"`, []string{"SYSTEM 1 <1 & 2>", "later"}, "exit status: 5"},
		{"user", print + "elevated_user = \"Administrator\"\nelevated_password = \"it's a \\\"secret\\\" & $more`\"\nvalid_exit_codes = [5]", []string{"Administrator 1 <1 & 2>", "later"}, ""},
		{"own format", print + "elevated_user = \"SYSTEM\"\nelevated_execute_command = \"set \\\"USERNAME=own\\\" && powershell -file {{.Path}}\"\nelevated_env_var_format = \"$env:%s = \\\"[%s]\\\"\\n\"\nvalid_exit_codes = [5]", []string{"own 1 [<1 & 2>]", "later"}, ""},
		{"wrong password", print + "elevated_user = \"Administrator\"\nelevated_password = \"no\"", nil, "exit status: 1"},
		{"script", `script = "` + local(t, "\"$env:USERNAME in a script\"") + "\"\nelevated_user = \"SYSTEM\"", []string{"SYSTEM in a script"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv, m := provisionertest.Windows(t)
			s, log := provisionertest.Scope(t)
			err := provisionertest.New(t, powershell.Factory(), tt.body).Provision(t.Context(), s, m)
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("got %v, want %q", err, tt.err)
			}
			if out := log.Texts(step.Output); !slices.Equal(out, tt.out) {
				t.Errorf("output %q, want %q; %q", out, tt.out, log.Texts(step.ErrOutput))
			}
			if !slices.ContainsFunc(srv.Lines(), func(line string) bool {
				return mask(line) == `powershell -executionpolicy bypass -file "C:/Windows/Temp/packer-elevated-shell-UUID.ps1"`
			}) {
				t.Errorf("commands: %q", srv.Lines())
			}
			if tt.name == "wrong password" && !slices.Contains(log.Texts(step.ErrOutput), "running the script as Administrator: The user name or password is incorrect. (Exception from HRESULT: 0x8007052E)") {
				t.Errorf("it says %q", log.Texts(step.ErrOutput))
			}
			nothingLeft(t, srv.Windows)
		})
	}
}

// The task of a cancelled script is stopped and removed.
func TestElevatedCancelled(t *testing.T) {
	srv, m := provisionertest.Windows(t)
	s, log := provisionertest.Scope(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	emit := s.Emit
	s.Emit = func(e step.Event) {
		emit(e)
		if e.Kind == step.Output {
			cancel(why)
		}
	}
	p := provisionertest.New(t, powershell.Factory(), "inline = [\"'begun'\", \"timeout /t 60\"]\nelevated_user = \"SYSTEM\"")
	if err := p.Provision(ctx, s, m); !errors.Is(err, why) {
		t.Errorf("got %v; %q", err, log.Texts(step.ErrOutput))
	}
	nothingLeft(t, srv.Windows)
}

// If the connection is lost during an upload, the upload is retried. If it is lost while the
// script runs, that is an error, and leftovers on the machine are removed before the image is
// made.
func TestLostConnections(t *testing.T) {
	srv, m := provisionertest.Windows(t)
	s, _ := provisionertest.Scope(t)
	p := provisionertest.New(t, powershell.Factory(), `inline = ["'x'"]`)
	before := len(srv.Lines())
	var died atomic.Int32
	srv.SetFault(func(_ int, action string) winrmtest.Fault {
		if action == "Receive" && died.Load() == 0 && len(srv.Lines()) == before+2 { // the upload of the script
			died.Add(1)
			return winrmtest.Die
		}
		return nil
	})
	if err := p.Provision(t.Context(), s, m); err != nil || died.Load() != 1 {
		t.Errorf("got %v after %d deaths", err, died.Load())
	}
	nothingLeft(t, srv.Windows)

	before = len(srv.Lines())
	srv.SetFault(func(_ int, action string) winrmtest.Fault {
		if action == "Receive" && died.Load() == 1 && len(srv.Lines()) == before+3 { // the script
			died.Add(1)
			return winrmtest.Die
		}
		return nil
	})
	if err := p.Provision(t.Context(), s, m); !errors.Is(err, communicator.ErrDisconnected) || died.Load() != 2 {
		t.Errorf("got %v after %d deaths", err, died.Load())
	}
	left := m.Leftovers.Take()
	if len(left) != 1 {
		t.Fatalf("%d leftovers", len(left))
	}
	if err := left[0].Remove(t.Context()); err != nil {
		t.Error(err)
	}
	nothingLeft(t, srv.Windows)
}

// A script that shuts the machine down succeeds: leftovers that cannot be removed then are a
// warning, now and before the image is made.
func TestShutDown(t *testing.T) {
	srv, m := provisionertest.Windows(t)
	s, log := provisionertest.Scope(t)
	refuse := errors.New("no more")
	m.Communicator = &refusing{m.Communicator, srv, refuse}
	if err := provisionertest.New(t, powershell.Factory(), `inline = ["'x'"]`).Provision(t.Context(), s, m); err != nil {
		t.Errorf("got %v", err)
	}
	for _, l := range m.Leftovers.Take() {
		if err := l.Remove(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if w := log.Texts(step.Warning); len(w) != 2 || !strings.Contains(w[0], "no more") || !strings.Contains(w[1], "Left on the machine: ") {
		t.Errorf("warnings: %q", w)
	}
}

// refusing is a machine that refuses everything once a script has run.
type refusing struct {
	communicator.Communicator
	srv *winrmtest.Server
	err error
}

func (m *refusing) Put(ctx context.Context, dst string, src fs.FS) error {
	if slices.ContainsFunc(m.srv.Lines(), func(line string) bool { return strings.HasPrefix(line, "powershell ") }) {
		return m.err
	}
	return m.Communicator.Put(ctx, dst, src)
}
