package shelllocal_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/provisioner/provisionertest"
	"bake/provisioner/shelllocal"
	"bake/step"
)

func provision(t *testing.T, ctx context.Context, body string) ([]string, error) {
	t.Helper()
	t.Setenv("TMPDIR", t.TempDir())
	s, log := provisionertest.Scope(t)
	s.Run.Env = append(s.Run.Env, "PACKER_RUN_UUID=run", "OURS=yes")
	err := provisionertest.New(t, shelllocal.Factory(), body).Provision(ctx, s, provisionertest.NewMachine(t).Builder())
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	return log.Texts(step.Output), err
}

func TestScripts(t *testing.T) {
	tests := []struct{ body, out, err string }{
		{`inline = ["echo $PACKER_BUILD_NAME $PACKER_BUILDER_TYPE $PACKER_RUN_UUID $OURS {{.ID}}"]`, "test fake run yes i-test", ""},
		{`command = "echo $0 | grep -c shell-local-"`, "1", ""},
		{"inline = [\"echo $X\"]\nenv = { X = \"it's {{.Port}}\" }", "it's 22", ""},
		{"inline = [\"echo $X\"]\nenvironment_vars = [\"X=a=b\"]", "a=b", ""},
		{"inline = [\"x\"]\nexecute_command = [\"/bin/echo\", \"{{.ID}}\", \"{{.Vars}}\"]", "i-test PACKER_BUILDER_TYPE='fake' PACKER_BUILD_NAME='test'", ""},
		{`inline = ["exit 3"]`, "", "non-zero exit status: 3"},
		{"inline = [\"exit 3\"]\nvalid_exit_codes = [3]", "", ""},
		{"inline = [\"echo no\"]\nonly_on = [\"windows\"]", "", ""},
		{"inline = [\"x\"]\nexecute_command = [\"/no/such/program\"]", "", "/no/such/program"},
	}
	for _, tt := range tests {
		out, err := provision(t, t.Context(), tt.body)
		if strings.TrimSpace(strings.Join(out, "\n")) != tt.out || tt.err == "" && err != nil || tt.err != "" && !strings.Contains(fmt.Sprint(err), tt.err) {
			t.Errorf("%s\ngot %q, %v", tt.body, out, err)
		}
	}
}

func TestScriptNotExecutable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.sh")
	if err := os.WriteFile(path, []byte("echo x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := provision(t, t.Context(), fmt.Sprintf("script = %q", path)); err == nil || !strings.Contains(err.Error(), "126. Allowed exit codes are: [0]; x.sh is not executable") {
		t.Error(err)
	}
	if _, err := provision(t, t.Context(), fmt.Sprintf("script = %q\nexecute_command = [\"sh\", \"{{.Script}}\"]", path)); err != nil {
		t.Error(err)
	}
}

// No value of the environment is among the arguments of a process, however the assignments are
// used, and the script gets it unchanged.
func TestSecretsAreNoArguments(t *testing.T) {
	const secret, want = `s3cr3t it's \"$HOME\" $(id) \\ *`, `s3cr3t it's "$HOME" $(id) \ *`
	for _, line := range []string{
		``,
		`execute_command = ["/bin/sh", "-c", "{{.Vars}} {{.Script}}; true"]`,
		`execute_command = ["bash", "-e", "-c", "export {{ .Vars }}; {{.Script}}; true"]`,
		`execute_command = ["sh", "-ec", "cd / && {{.Vars}} {{.Script}}; true"]`,
		"env_var_format = \"export %s='%s'; \"\nexecute_command = [\"sh\", \"-c\", \"{{.Vars}} {{.Script}}; true\"]",
	} {
		body := fmt.Sprintf("env = { TOKEN = \"%s\", PATH = \"/custom:%s\" }\n", secret, os.Getenv("PATH")) +
			`inline = ["for p in $$ $PPID; do ! tr '\\0' ' ' </proc/$p/cmdline | grep s3cr3t; done", "printf '%s\\n' \"$TOKEN\"", "case $PATH in /custom:*) ;; *) exit 1;; esac"]` + "\n" + line
		out, err := provision(t, t.Context(), body)
		if err != nil || strings.Join(out, "\n") != want {
			t.Errorf("%s\ngot %q, %v", line, out, err)
		}
	}
	// If the assignments are quoted again, or no shell reads them, they are unchanged.
	for _, line := range []string{
		`execute_command = ["sh", "-c", "sh -c \"{{.Vars}} {{.Script}}\""]`,
		`execute_command = ["env", "sh", "-c", "{{.Vars}} {{.Script}}"]`,
	} {
		out, err := provision(t, t.Context(), "env = { TOKEN = \"two words\" }\ninline = [\"echo $TOKEN\"]\n"+line)
		if err != nil || strings.Join(out, "\n") != "two words" {
			t.Errorf("%s\ngot %q, %v", line, out, err)
		}
	}
}

func TestInvalid(t *testing.T) {
	tests := []struct{ body, at, want string }{
		{``, ``, "there is nothing to run"},
		{"command = \"x\"\ninline = [\"x\"]", "command", "Set one of"},
		{"inline = [\"x\"]\nonly_on = [\"plan9\"]", "plan9", "not one of"},
		{"inline = [\"x\"]\nenv_var_format = \"%d\"", "env_var_format", "two %s"},
		{"script = \"missing\"", "missing", "no file"},
	}
	for _, tt := range tests {
		provisionertest.Invalid(t, shelllocal.Factory(), tt.body, tt.at, tt.want)
	}
	if _, err := shelllocal.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	provisionertest.Run(t, shelllocal.Factory(), `inline = ["echo hi"]`, dir)
}
