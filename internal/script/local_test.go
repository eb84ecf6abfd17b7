package script

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestCommandOfSystems: the command, and its environment.
func TestCommandOfSystems(t *testing.T) {
	vars := map[string]string{"A": "it's 100% & more", "PATH": "p"}
	bash := []string{"bash", "-c", "{{.Vars}} {{.Script}}"}
	for _, tt := range []struct {
		name    string
		system  string
		options LocalOptions
		args    []string
		env     []string
	}{
		{"Unix", "freebsd", LocalOptions{}, []string{"/bin/sh", "-c", `A=''"$A"'' PATH='p'  C:\in put\a.sh`}, []string{"A=" + vars["A"]}},
		{"Windows", "windows", LocalOptions{}, []string{"cmd", "/V", "/C", "call", `C:\in put\a.sh`}, []string{"A=" + vars["A"], "PATH=p"}},
		{"another program", "windows", LocalOptions{ExecuteCommand: []string{"powershell", "{{.Vars}}{{.Script}}"}}, []string{"powershell", `C:\in put\a.sh`}, []string{"A=" + vars["A"], "PATH=p"}},
		{"a format", "windows", LocalOptions{EnvVarFormat: `$env:%s="%s"; `, ExecuteCommand: []string{"powershell", "{{.Vars}}{{.Script}}"}},
			[]string{"powershell", `$env:A="it's 100% & more"; $env:PATH="p"; C:\in put\a.sh`}, nil},
		{"WSL", "windows", LocalOptions{UseLinuxPathing: true, ExecuteCommand: bash}, []string{"bash", "-c", `A='it'"'"'s 100% & more' PATH='p'  /mnt/c/in put/a.sh`}, nil},
		{"use_linux_pathing elsewhere", "darwin", LocalOptions{UseLinuxPathing: true, ExecuteCommand: bash}, []string{"bash", "-c", `A=''"$A"'' PATH='p'  C:\in put\a.sh`}, []string{"A=" + vars["A"]}},
	} {
		l := &Local{Options: &tt.options, System: tt.system, Render: func(text string, data map[string]any) (string, error) {
			return strings.NewReplacer("{{.Vars}}", data["Vars"].(string), "{{.Script}}", data["Script"].(string)).Replace(text), nil
		}}
		args, env, err := l.command(`C:\in put\a.sh`, vars)
		if err != nil || cmp.Diff(tt.args, args) != "" || !slices.Equal(tt.env, env) {
			t.Errorf("%s: %v\nargs %s\nenv %q, want %q", tt.name, err, cmp.Diff(tt.args, args), env, tt.env)
		}
	}
}

// TestInlineOfSystems: the contents of an inline script, and the end of its name.
func TestInlineOfSystems(t *testing.T) {
	for _, tt := range []struct {
		system          string
		options         LocalOptions
		text, extension string
	}{
		{"linux", LocalOptions{}, "#!/bin/sh -e\na\nb\n", ""},
		{"windows", LocalOptions{}, "a\r\nb\r\n", ".cmd"},
		{"windows", LocalOptions{TempfileExtension: ".ps1"}, "a\r\nb\r\n", ".ps1"},
		{"windows", LocalOptions{UseLinuxPathing: true}, "#!/bin/sh -e\na\nb\n", ""},
	} {
		tt.options.InlineShebang = LocalDefaults().InlineShebang
		l := &Local{Options: &tt.options, System: tt.system}
		if text, extension := l.text([]string{"a", "b"}), l.extension(); text != tt.text || extension != tt.extension {
			t.Errorf("%s: %q %q, want %q %q", tt.system, text, extension, tt.text, tt.extension)
		}
	}
}

func TestLinuxPath(t *testing.T) {
	for in, want := range map[string]string{
		`C:\a\b.sh`: "/mnt/c/a/b.sh", `d:/x`: "/mnt/d/x", `Z:\`: "/mnt/z/", `\\host\share\x`: "//host/share/x",
	} {
		if got := linuxPath(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestCmdLine: cmd.exe does not undo backslashes before quotes, and splits a path at "&".
func TestCmdLine(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"cmd", "/V", "/C", "call", `C:\a b\x.cmd`}, `cmd /V /C call "C:\a b\x.cmd"`},
		{[]string{"cmd", "/V", "/C", "call", `C:\a&b\x.cmd`}, `cmd /V /C call "C:\a&b\x.cmd"`},
		{[]string{"cmd", "/V", "/C", "call", `C:\a\x.cmd`}, `cmd /V /C call C:\a\x.cmd`},
		{[]string{"cmd", "/C", `echo "a b" && dir`}, `cmd /C "echo "a b" && dir"`},
		{[]string{"cmd", "/C", "dir", ">", "out.txt"}, `cmd /C dir > out.txt`},
	} {
		if got := cmdLine(tt.args); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.args, got, tt.want)
		}
	}
}
