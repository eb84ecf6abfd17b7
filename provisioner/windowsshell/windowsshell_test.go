package windowsshell_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/builder"
	"bake/provisioner/provisionertest"
	"bake/provisioner/windowsshell"
	"bake/step"
)

// standInForCmd makes "cmd /c del /f /q FILE", which ends well whatever it has done, and
// "cmd /c if exist FILE exit 1" do what they do on Windows. A file named stuck stays.
func standInForCmd(t *testing.T) {
	t.Helper()
	bin := t.TempDir()
	const text = `#!/bin/sh
file=$(printf %s "$5" | tr '\\' /)
case "$1 $2 $3 $4 $#" in
"/c del /f /q 5") case $file in *stuck) ;; *) rm -f "$file" ;; esac ;;
"/c if exist $4 6") [ ! -e "$(printf %s "$4" | tr '\\' /)" ] ;;
*) exit 1 ;;
esac
`
	if err := os.WriteFile(bin+"/cmd", []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
}

// provision runs a block on a machine with a POSIX shell, with command lines that work on both
// systems.
func provision(t *testing.T, body string) (dir string, out []string, err error) {
	t.Helper()
	dir = t.TempDir()
	standInForCmd(t)
	s, log := provisionertest.Scope(t)
	body += fmt.Sprintf("\nremote_path = %q\nexecute_command = \"cp {{.Path}} {{.Path}}.copy; {{.Vars}} sh {{.Path}} {{.ID}}\"\nenv_var_format = \"%%s=%%s \"\n", dir+`/script.bat`)
	err = provisionertest.New(t, windowsshell.Factory(), body).Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
	if _, err := os.Stat(dir + "/script.bat"); err == nil {
		t.Error("the script is still on the machine")
	}
	return dir, log.Texts(step.Output), err
}

func TestInline(t *testing.T) {
	dir, out, err := provision(t, "inline = [\"echo $A $1 #\", \"echo {{build_name}} #\"]\nenvironment_vars = [\"A=x=y\"]")
	if err != nil || !slices.Equal(out, []string{"x=y i-test", "test"}) {
		t.Errorf("got %q, %v", out, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "script.bat.copy"))
	if err != nil || string(b) != "echo $A $1 #\r\necho test #\r\n" {
		t.Errorf("the script is %q, %v", b, err)
	}
}

func TestExitStatus(t *testing.T) {
	if _, _, err := provision(t, `inline = ["exit 3 #"]`); err == nil || !strings.Contains(err.Error(), "exit status: 3") {
		t.Errorf("got %v", err)
	}
	if _, _, err := provision(t, "inline = [\"exit 3 #\"]\nvalid_exit_codes = [0, 3]"); err != nil {
		t.Error(err)
	}
}

// TestDefaults checks the command line for Windows.
func TestDefaults(t *testing.T) {
	s, _ := provisionertest.Scope(t)
	m := provisionertest.NewMachine(t)
	standInForCmd(t)
	m.Fault = func(n int, call string) error {
		if want := `run cmd /c del /f /q "c:\Windows\Temp\script.bat"`; n == 2 && call != want {
			t.Errorf("got %s, want %s", call, want)
		}
		if n == 1 {
			want := `run set "A=1" && set "PACKER_BUILDER_TYPE=fake" && set "PACKER_BUILD_NAME=test" && "c:/Windows/Temp/script.bat"`
			if call != want {
				t.Errorf("got %s, want %s", call, want)
			}
		}
		return nil
	}
	if err := os.MkdirAll(filepath.Join(m.Home, "c:/Windows/Temp"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := provisionertest.New(t, windowsshell.Factory(), "inline = [\"dir\"]\nenv = { A = \"1\" }\nvalid_exit_codes = [0, 126, 127]")
	if err := p.Provision(t.Context(), s, m.Builder()); err != nil {
		t.Error(err)
	}
	if len(m.Calls()) != 4 {
		t.Errorf("calls: %q", m.Calls())
	}
}

// A script that cannot be removed causes a warning.
func TestScriptThatStays(t *testing.T) {
	standInForCmd(t)
	s, _ := provisionertest.Scope(t)
	body := fmt.Sprintf("inline = [\"true #\"]\nremote_path = \"%s/stuck\"\nexecute_command = \"sh {{.Path}}\"\nstart_retry_timeout = \"0s\"", t.TempDir())
	err := provisionertest.New(t, windowsshell.Factory(), body).Provision(t.Context(), s, provisionertest.NewMachine(t).Builder())
	if err == nil || !strings.Contains(err.Error(), "stuck from the machine: exit status 1") {
		t.Errorf("got %v", err)
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		``: "No script", `script = "/no/such/file"`: "Script not found",
		"inline = [\"a\"]\nenv_var_format = \"x\"":        "Unusable format",
		"inline = [\"a\"]\nstart_retry_timeout = \"-1s\"": "Negative duration",
	} {
		provisionertest.Invalid(t, windowsshell.Factory(), body, "", want)
	}
	if _, err := windowsshell.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	srv, m := provisionertest.Windows(t)
	provisionertest.Suite{
		Factory: windowsshell.Factory(), Dir: srv.Windows.Path("c:/Windows/Temp"), Body: `inline = ["@echo off", "echo hi"]`,
		Machine: func(*testing.T) builder.Machine { return m },
	}.Run(t)
}

// On Windows, over WinRM.
func TestWindows(t *testing.T) {
	script := filepath.Join(t.TempDir(), "a.bat")
	if err := os.WriteFile(script, []byte("@echo off\necho %A% %PACKER_BUILD_NAME%\nif-not-there\nexit /b 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		body string
		out  []string
		err  string
	}{
		{"inline = [\"echo %A%\", \"echo {{build_name}} > c:/out.txt\", \"type c:/out.txt\"]\nenv = { A = \"b c\" }", []string{"b c", "test"}, ""},
		{fmt.Sprintf("scripts = [%q, %[1]q]\nenv = { A = \"x\" }\nvalid_exit_codes = [3]", script), []string{"x test", "x test"}, ""},
		{fmt.Sprintf("script = %q", script), []string{" test"}, script + ": Script exited with non-zero exit status: 3"},
		{fmt.Sprintf("script = %q\nbinary = true", script), nil, "exit status: 1"},
	} {
		srv, m := provisionertest.Windows(t)
		s, log := provisionertest.Scope(t)
		err := provisionertest.New(t, windowsshell.Factory(), tt.body).Provision(t.Context(), s, m)
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want %q", tt.body, err, tt.err)
		}
		if out := log.Texts(step.Output); !slices.Equal(out, tt.out) {
			t.Errorf("%s: output %q, want %q", tt.body, out, tt.out)
		}
		if left, err := os.ReadDir(srv.Windows.Path("c:/Windows/Temp")); err != nil || len(left) > 0 {
			t.Errorf("left on the machine: %v, %v", left, err)
		}
	}
}
