package script

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/windows"
)

// TestRunOnWindows: cmd.exe gets scripts, paths and values unchanged, and its output is decoded
// correctly.
func TestRunOnWindows(t *testing.T) {
	u := "ü"
	if _, err := windows.GetConsoleOutputCP(); err != nil {
		u = "u" // without a console, which Windows gives cmd.exe, Wine has it read another code page
	}
	dir := t.TempDir() + `\a & b (ü)`
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(dir+`\s.cmd`, []byte("@echo script %V%\r\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		options Options
		want    string
		exit    bool
	}{
		{Options{Inline: []string{"@echo gr" + u + "n %V%", "@echo %PACKER_BUILD_NAME%"}}, "gr" + u + "n gr" + u + "sse & mehr\r\nn\r\n", false},
		{Options{Script: dir + `\s.cmd`}, "script gr" + u + "sse & mehr\r\n", false},
		{Options{Inline: []string{"@exit 3"}}, "", true},
		{Options{Inline: []string{"@exit 3"}, ValidExitCodes: []int{3}}, "", false},
	} {
		tt.options.EnvironmentVars = []string{"V=gr" + u + "sse ^& mehr"}
		var out strings.Builder
		l := &Local{
			Options: &LocalOptions{Options: tt.options}, Env: os.Environ(), BuildName: "n", BuilderType: "null",
			Render: func(text string, data map[string]any) (string, error) {
				vars, _ := data["Vars"].(string)
				script, _ := data["Script"].(string)
				return strings.NewReplacer("{{.Vars}}", vars, "{{.Script}}", script).Replace(text), nil
			},
			Say: func(string) {}, Warn: func(text string) { t.Error(text) }, Stdout: &out, Stderr: os.Stderr,
		}
		if err := l.Run(t.Context()); (err != nil) != tt.exit || out.String() != tt.want {
			t.Errorf("%+v writes %q, want %q, %v", tt.options, out.String(), tt.want, err)
		}
	}
}
