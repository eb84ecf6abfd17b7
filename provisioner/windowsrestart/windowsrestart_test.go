package windowsrestart_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/communicator/none"
	"bake/provisioner/provisionertest"
	"bake/provisioner/windowsrestart"
)

// answer is the response of a machine to a command line.
type answer struct {
	code int
	out  string
	err  error
}

// machine answers commands in order; the last answer repeats.
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
			[]answer{ok, gone, back, {out: "True\r\n"}, {out: "False\r\n"}, {out: "False\r\n"}, {out: "False\r\n"}}, []string{"restart", "test", "check", "registry", "registry", "registry", "registry"}, ""},
		"registry never done":                     {"check_registry = true\nrestart_timeout = \"8s\"", []answer{ok, gone, back, {out: "True\r\n"}}, []string{"restart", "test", "check", "registry", "registry"}, `printed "True"`},
		"goes down while the order is taken back": {``, []answer{ok, ok, gone, gone, {code: 1717}, {code: 1116}, back}, []string{"restart", "test", "abort", "abort", "abort", "abort", "check"}, ""},
		"loses the answer to taking it back":      {``, []answer{ok, ok, gone, ok, back}, []string{"restart", "test", "abort", "abort", "check"}, ""},
		"has nothing to take back":                {``, []answer{ok, ok, {code: 1116}, back}, []string{"restart", "test", "abort", "check"}, ""},
		"does not take it back":                   {``, []answer{ok, ok, {code: 5}}, []string{"restart", "test", "abort"}, "status 5"},
		"busy":                                    {``, []answer{ok, {code: 1717}, {code: 1190}, {code: 1}, back}, []string{"restart", "test", "test", "test", "check"}, ""},
		"unknown":                                 {``, []answer{ok, {code: 87}}, []string{"restart", "test"}, "status 87"},
		"ordered already":                         {``, []answer{{code: 1190}, gone, back}, []string{"restart", "test", "check"}, ""},
		"what the check says":                     {"restart_timeout = \"8s\"\nrestart_check_command = \"there?\"", []answer{ok, gone, {code: 2, out: "no"}}, []string{"restart", "test", "there?", "there?"}, `"there?" ended with status 2 and printed "no"`},
		"refused":                                 {``, []answer{{code: 5}}, []string{"restart"}, "status 5"},
		"never goes down":                         {`restart_timeout = "25s"`, []answer{ok, busy}, []string{"restart", "test", "test", "test"}, "restart_timeout"},
		"never back":                              {`restart_timeout = "12s"`, []answer{ok, gone}, []string{"restart", "test", "check", "check", "check"}, "restart_timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := &machine{answers: tt.answers}
				s, _ := provisionertest.Scope(t)
				err := provisionertest.New(t, windowsrestart.Factory(), tt.body).Provision(t.Context(), s, builder.Machine{Communicator: m})
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

// TestEndsItself: Windows refuses to restart while the machine is scheduled to shut down, so the
// schedule is cancelled first. After a reboot there is none.
func TestEndsItself(t *testing.T) {
	ok, back := answer{}, answer{out: "HOST restarted.\r\n"}
	for _, first := range []answer{ok, {code: 1116}} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{answers: []answer{first, ok, {err: communicator.ErrDisconnected}, back}}
			s, _ := provisionertest.Scope(t)
			s.Run.MachinesEnd = time.Hour
			if err := provisionertest.New(t, windowsrestart.Factory(), "").Provision(t.Context(), s, builder.Machine{Communicator: m}); err != nil {
				t.Error(err)
			}
			if got := words(m.lines); !slices.Equal(got, []string{"abort", "restart", "test", "check"}) {
				t.Errorf("commands %q", got)
			}
		})
	}
}

func TestInvalid(t *testing.T) {
	for body, want := range map[string]string{
		`restart_timeout = "-1s"`: "Invalid timeout",
	} {
		provisionertest.Invalid(t, windowsrestart.Factory(), body, "", want)
	}
	if _, err := windowsrestart.Factory().Docs(); err != nil {
		t.Error(err)
	}
}

// TestRealRestart restarts a machine that goes away and comes back.
func TestRealRestart(t *testing.T) {
	t.Parallel() // with nothing, but it waits for ten seconds
	srv, m := provisionertest.Windows(t)
	s, _ := provisionertest.Scope(t)
	body := "check_registry = true\nregistry_keys = [\"HKLM:A'b\"]\nrestart_check_command = \"powershell -command \\\"'back'\\\"\""
	if err := provisionertest.New(t, windowsrestart.Factory(), body).Provision(t.Context(), s, m); err != nil {
		t.Fatal(err)
	}
	if n := srv.Windows.Restarts(); n != 1 {
		t.Errorf("%d restarts", n)
	}
	if got := words(srv.Lines()); len(got) < 5 || !strings.HasPrefix(got[len(got)-3], "powershell -command") || got[len(got)-1] != "registry" {
		t.Errorf("commands: %q", got)
	}
	// The machine accepts another command.
	if st, err := m.Run(t.Context(), communicator.Command{Line: "shutdown /a"}); err != nil || st.Code != 1116 {
		t.Errorf("a shutdown is left: %+v, %v", st, err)
	}
}

// A cancelled restart ends with the cause, wherever it is.
func TestCancelled(t *testing.T) {
	why := errors.New("enough")
	ok, busy, gone := answer{}, answer{code: 1115}, answer{err: communicator.ErrDisconnected}
	for n, answers := range [][]answer{{ok}, {ok, busy}, {ok, gone, {code: 3}}} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(time.Second, func() { cancel(why) })
			if n == 0 {
				cancel(why)
			}
			s, _ := provisionertest.Scope(t)
			err := provisionertest.New(t, windowsrestart.Factory(), ``).Provision(ctx, s, builder.Machine{Communicator: &machine{answers: answers}})
			if !errors.Is(err, why) {
				t.Errorf("%d: got %v", n, err)
			}
		})
	}
}
