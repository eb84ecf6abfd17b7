package windowsrestart_test

import (
	"context"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"bake/builder"
	"bake/communicator"
	"bake/communicator/none"
	"bake/provisioner/provisionertest"
	"bake/provisioner/windowsrestart"
)

// answer is what a machine makes of a command line.
type answer struct {
	code int
	out  string
	err  error
}

// machine answers commands in turn, and the last way for ever.
type machine struct {
	none.Communicator
	answers []answer
	lines   []string
}

func (m *machine) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	if err := context.Cause(ctx); err != nil {
		return communicator.Status{}, err
	}
	a := m.answers[min(len(m.lines), len(m.answers)-1)]
	m.lines = append(m.lines, c.Line)
	io.WriteString(c.Stdout, a.out)
	return communicator.Status{Code: a.code}, a.err
}

// lines of the commands, in words.
func words(lines []string) (out []string) {
	for _, l := range lines {
		switch {
		case strings.Contains(l, "packer restart test"):
			out = append(out, "test")
		case strings.HasPrefix(l, "shutdown /r"):
			out = append(out, "restart")
		case l == "shutdown /a":
			out = append(out, "abort")
		case strings.Contains(l, "restarted."):
			out = append(out, "check")
		case strings.Contains(l, "Test-Path"):
			out = append(out, "registry")
		default:
			out = append(out, l)
		}
	}
	return out
}

func TestRestart(t *testing.T) {
	ok, busy, back := answer{}, answer{code: 1115}, answer{out: "HOST restarted.\r\n"}
	gone := answer{err: communicator.ErrDisconnected}
	for name, tt := range map[string]struct {
		body    string
		answers []answer
		want    []string
		err     string
	}{
		"goes down and comes back": {``, []answer{ok, busy, gone, gone, {code: 1}, back}, []string{"restart", "test", "test", "check", "check", "check"}, ""},
		"takes the answer with it": {``, []answer{gone, gone, back}, []string{"restart", "test", "check"}, ""},
		"is back already":          {``, []answer{ok, ok, ok, back}, []string{"restart", "test", "abort", "check"}, ""},
		"own commands": {"restart_command = \"again\"\nrestart_check_command = \"there?\"",
			[]answer{ok, gone, {code: 2}, ok, back}, []string{"again", "test", "there?", "there?", "check"}, ""},
		"registry": {"check_registry = true\nregistry_keys = [\"HKLM:a'b\", \"HKLM:c\"]",
			[]answer{ok, gone, back, {out: "True\r\n"}, {out: "False\r\n"}, {out: "False\r\n"}}, []string{"restart", "test", "check", "registry", "registry", "registry"}, ""},
		"refused":         {``, []answer{{code: 5}}, []string{"restart"}, "status 5"},
		"never goes down": {`restart_timeout = "25s"`, []answer{ok, busy}, []string{"restart", "test", "test", "test"}, "restart_timeout"},
		"never back":      {`restart_timeout = "12s"`, []answer{ok, gone}, []string{"restart", "test", "check", "check", "check"}, "restart_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{answers: tt.answers}
				s, _ := provisionertest.Scope(t)
				err := provisionertest.New(t, windowsrestart.Component(), tt.body).Provision(t.Context(), s, builder.Machine{Communicator: m})
				if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
					t.Errorf("got %v, want %q", err, tt.err)
				}
				if got := words(m.lines); !slices.Equal(got, tt.want) {
					t.Errorf("commands %q, want %q", got, tt.want)
				}
			})
		})
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		`restart_timeout = "-1s"`: "Invalid timeout",
	} {
		provisionertest.Invalid(t, windowsrestart.Component(), body, "", want)
	}
	if _, err := windowsrestart.Component().Docs(); err != nil {
		t.Error(err)
	}
}
