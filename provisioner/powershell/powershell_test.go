package powershell_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bake/builder"
	"bake/communicator"
	"bake/communicator/none"
	"bake/internal/powershelltest"
	"bake/provisioner/powershell"
	"bake/provisioner/provisionertest"
	"bake/step"
)

// TestMain makes this program a pwsh under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "pwsh" {
		os.Exit(powershelltest.Main(&powershelltest.Host{
			Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Env: powershelltest.Environment(os.Environ()),
			Path: func(name string) string { return name },
			Native: func(h *powershelltest.Host, words []string) int {
				cmd := exec.Command(words[0], words[1:]...)
				cmd.Stdout, cmd.Stderr = h.Stdout, h.Stderr
				if err := cmd.Run(); cmd.ProcessState == nil {
					fmt.Fprintln(h.Stderr, err)
					return powershelltest.NotFound
				}
				return cmd.ProcessState.ExitCode()
			},
		}, os.Args[1:]))
	}
	os.Exit(m.Run())
}

// withPwsh adds a pwsh to the path of this host, which is the machine of the tests.
func withPwsh(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "pwsh")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

func TestConformance(t *testing.T) {
	t.Run("pwsh", func(t *testing.T) {
		withPwsh(t)
		dir := t.TempDir()
		provisionertest.Suite{
			Factory: powershell.Factory(), Dir: dir,
			Body:    fmt.Sprintf("inline = [\"'hi'\"]\nuse_pwsh = true\nremote_path = \"%[1]s/a.ps1\"\nremote_env_var_path = \"%[1]s/e.ps1\"", dir),
			Lenient: func(_ int, call string) bool { return strings.HasPrefix(call, "run rm -f ") },
		}.Run(t)
	})
	t.Run("Windows", func(t *testing.T) {
		srv, m := provisionertest.Windows(t)
		provisionertest.Suite{
			Factory: powershell.Factory(), Dir: srv.Windows.Path("c:/Windows/Temp"), Body: "inline = [\"'hi'\"]\nelevated_user = \"SYSTEM\"",
			Machine: func(*testing.T) builder.Machine { return m },
			Lenient: func(n int, call string) bool { return n >= 4 }, // the removal, in two calls
		}.Run(t)
		if n := srv.Windows.Tasks(); n > 0 {
			t.Errorf("%d tasks are left", n)
		}
	})
}

// On a machine without Windows, the login shell parses the command line: it must not change text
// for PowerShell.
func TestPwsh(t *testing.T) {
	withPwsh(t)
	script := local(t, "\"$env:A $env:PACKER_BUILD_NAME $HOME\"\n/bin/sh -c \"exit 5\"")
	for _, tt := range []struct {
		body string
		out  []string
		err  string
	}{
		{fmt.Sprintf("script = %q", script), []string{odd + " test"}, "exit status: 5"},
		{fmt.Sprintf("script = %q\nvalid_exit_codes = [5]", script), []string{odd + " test"}, ""},
		{`inline = ["\"$env:A\"", "/bin/sh -c \"exit 4\""]`, []string{odd}, "exit status: 4"},
		{"inline = [\"'x'\"]\nremote_path = \"$TMPDIR/x.ps1\"", []string{"x"}, ""},
		{"inline = [\"'x'\"]\nexecution_policy = \"none\"\nexecute_command = \"pwsh -file {{.Path}}\"", []string{"x"}, ""},
		{"inline = [\"'x'\"]\nelevated_user = \"root\"", nil, "elevated_user: the machine does not run Windows"},
	} {
		s, log := provisionertest.Scope(t)
		m := provisionertest.NewMachine(t)
		t.Setenv("TMPDIR", t.TempDir())
		body := tt.body + "\nuse_pwsh = true\nenv = { A = <<EOT\n" + strings.ReplaceAll(odd, "${", "$${") + "\nEOT\n}"
		err := provisionertest.New(t, powershell.Factory(), body).Provision(t.Context(), s, m.Builder())
		if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%s: got %v, want %q; %q", tt.body, err, tt.err, log.Texts(step.ErrOutput))
		}
		if out := strings.Join(log.Texts(step.Output), ""); out != strings.Join(tt.out, "") {
			t.Errorf("%s: output %q, want %q", tt.body, out, tt.out)
		}
		if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || len(left) > 0 {
			t.Errorf("%s: left on the machine: %v, %v", tt.body, left, err)
		}
		for _, call := range m.Calls() {
			for word := range strings.FieldsSeq(call) {
				if strings.HasSuffix(word, ".ps1") && strings.HasPrefix(word, "/tmp/") {
					if _, err := os.Stat(word); err == nil {
						t.Errorf("%s is left", word)
					}
				}
			}
		}
	}
}

// talker is a machine that reports its system and records the command lines.
type talker struct {
	none.Communicator
	shows string
	lines []string
}

func (m *talker) Run(_ context.Context, c communicator.Command) (communicator.Status, error) {
	if m.lines = append(m.lines, c.Line); len(m.lines) == 1 {
		_, _ = io.WriteString(c.Stdout, m.shows)
	}
	return communicator.Status{}, nil
}

func (m *talker) Put(context.Context, string, fs.FS) error { return nil }

// TestShells: the default command line for each login shell.
func TestShells(t *testing.T) {
	const inner = `"& { if (Test-Path variable:global:ProgressPreference){DProgressPreference='SilentlyContinue'};. ENV; &'PATH'; exit DLastExitCode }"`
	script := local(t, "'x'")
	for _, tt := range []struct{ name, shows, dollar, dir, err string }{
		{"cmd.exe", "\"Windows_NT [$PSEdition] [$IsWindows] [$OS] [$ShellId]\"\r\n", "$", "c:/Windows/Temp", ""},
		{"Windows PowerShell", "Hello!\r\n%OS% [Desktop] [] [] [Microsoft.PowerShell]\r\n", "`$", "c:/Windows/Temp", ""},
		{"Windows PowerShell 4", "%OS% [] [] [] [Microsoft.PowerShell]\r\n", "`$", "c:/Windows/Temp", ""},
		{"PowerShell 7", "%OS% [Core] [True] [] [Microsoft.PowerShell]\r\n", "`$", "c:/Windows/Temp", ""},
		{"Cygwin", "%OS% [] [] [Windows_NT] []\n", `\$`, "c:/Windows/Temp", ""},
		{"PowerShell on Linux", "%OS% [Core] [False] [] [Microsoft.PowerShell]\n", "", "", "set use_pwsh = true"},
		{"sh", "%OS% [] [] [] []\n", "", "", "set use_pwsh = true"},
		{"csh", "PSEdition: Undefined variable.\n", "", "", "set use_pwsh = true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &talker{shows: tt.shows}
			s, _ := provisionertest.Scope(t)
			err := provisionertest.New(t, powershell.Factory(), fmt.Sprintf("script = %q\nremote_path = \"PATH\"\nremote_env_var_path = \"ENV\"\nskip_clean = true", script)).Provision(t.Context(), s, builder.Machine{Communicator: m})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || len(m.lines) != 1 {
					t.Errorf("got %v after %q", err, m.lines)
				}
				return
			}
			want := "powershell -executionpolicy bypass " + strings.NewReplacer("DP", tt.dollar+"P", "DL", tt.dollar+"L").Replace(inner)
			if err != nil || len(m.lines) != 2 || m.lines[1] != want {
				t.Errorf("got %q, %v\nwant %q", m.lines, err, want)
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		``: "No script", `script = "/no/such/file"`: "Script not found",
		"inline = [\"a\"]\nenv_var_format = \"x\"":          "Unusable format",
		"inline = [\"a\"]\nelevated_env_var_format = \"x\"": "Unusable format",
		"inline = [\"a\"]\nstart_retry_timeout = \"-1s\"":   "Negative duration",
		"inline = [\"a\"]\npause_after = \"-1s\"":           "Negative duration",
		"inline = [\"a\"]\nexecution_policy = \"any\"":      `"any" is not one of`,
		"inline = [\"a\"]\ndebug_mode = 3":                  "trace levels",
		"inline = [\"a\"]\nelevated_password = \"p\"":       "Missing elevated_user",
	} {
		provisionertest.Invalid(t, powershell.Factory(), body, "", want)
	}
	if _, err := powershell.Factory().Docs(); err != nil {
		t.Error(err)
	}
}
