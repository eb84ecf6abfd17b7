package launch

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"bake/communicator"
	"bake/communicator/none"
	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/step"
)

// machine answers commands: those that contain a key of fails fail with its text.
type machine struct {
	none.Communicator
	fails map[string]string

	mu   sync.Mutex
	ran  []string
	lost bool
}

func (m *machine) Run(_ context.Context, c communicator.Command) (communicator.Status, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ran = append(m.ran, c.Line)
	if m.lost {
		return communicator.Status{}, communicator.ErrDisconnected
	}
	for part, text := range m.fails {
		if strings.Contains(c.Line, part) {
			_, _ = io.WriteString(c.Stderr, text)
			if part == "shutdown /a" {
				return communicator.Status{Code: 1116}, nil
			}
			return communicator.Status{Code: 1}, nil
		}
	}
	return communicator.Status{}, nil
}

// launcher returns a launcher with the options in body, for a run with this time limit.
func launcher(t *testing.T, body string, end time.Duration) (*Launcher, *[]string) {
	t.Helper()
	f, diags := hclsyntax.ParseConfig([]byte(body), "t.pkr.hcl", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	o := Defaults()
	o.Communicator = ssh.SSH
	src, _ := schema.Decode(schema.Input{Body: f.Body, Context: &hcl.EvalContext{}}, &o) // of missing options nothing is used
	said := new([]string)
	scope := step.NewScope(step.Scope{
		Run:  step.Invocation{Start: time.Now(), MachinesEnd: end},
		Emit: func(e step.Event) { *said = append(*said, e.Text) },
	})
	return &Launcher{Options: &o, Src: src, Scope: scope}, said
}

func TestShutdownBehavior(t *testing.T) {
	for _, tt := range []struct {
		body string
		end  time.Duration
		want types.ShutdownBehavior
	}{
		{"", 0, "stop"},
		{"", time.Hour, "terminate"},
		{`shutdown_behavior = "stop"`, time.Hour, "stop"},
		{`shutdown_behavior = "terminate"`, 0, "terminate"},
		{`disable_stop_instance = true`, time.Hour, "stop"},
	} {
		if l, _ := launcher(t, tt.body, tt.end); l.shutdownBehavior() != tt.want {
			t.Errorf("%s with a limit of %s: %s", tt.body, tt.end, l.shutdownBehavior())
		}
	}
}

// TestEnding: the timer is set with systemd or else with shutdown(8), and removed in the same way.
// If neither works, that is reported once.
func TestEnding(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		end        time.Duration
		windows    bool
		again      bool
		fails      map[string]string
		said       string
		ran        []string // parts of the commands, in order
	}{
		{name: "no limit"},
		{
			name: "systemd", end: 3 * time.Hour, said: "The machine terminates itself at 2000-01-01 03:00 UTC",
			ran: []string{"$as systemd-run --quiet --unit=bake-end ", "systemctl stop bake-end.timer"},
		},
		{
			name: "stop", body: `shutdown_behavior = "stop"`, end: 3 * time.Hour, said: "The machine stops itself at",
			ran: []string{"--on-active=10800 ", "systemctl stop bake-end.timer"},
		},
		{
			name: "a provisioner shuts it down", body: `disable_stop_instance = true`, end: 3 * time.Hour, said: "The machine stops itself at",
			ran: []string{"--on-active=10800 "},
		},
		{
			name: "no systemd", end: 3 * time.Hour, fails: map[string]string{"systemd-run": "not found"}, said: "The machine terminates itself at",
			ran: []string{"systemd-run", "shutdown -P +181", "shutdown -c"},
		},
		{
			name: "no root", end: 3 * time.Hour, fails: map[string]string{"$as": "sudo: a password is required"},
			said: "The machine cannot end itself if bake is killed; bake sweep deletes it then: exit status 1: sudo: a password is required",
			ran:  []string{"systemd-run", "shutdown -P"},
		},
		{
			name: "Windows", end: 3 * time.Hour, windows: true, said: "The machine terminates itself at",
			ran: []string{"shutdown /s /t 10800 ", "shutdown /a"},
		},
		{
			name: "lost in a reboot of Windows", end: 3 * time.Hour, windows: true, said: "The machine terminates itself at",
			fails: map[string]string{"shutdown /a": "no shutdown was in progress"}, ran: []string{"shutdown /s /t 10800 ", "shutdown /a"},
		},
		{
			name: "resumed", again: true, end: 3 * time.Hour, said: "The machine terminates itself at 2000-01-01 03:00 UTC",
			ran: []string{"systemctl stop bake-end.timer", "shutdown -c", "--on-active=10800 ", "systemctl stop bake-end.timer"},
		},
		{
			name: "resumed without a limit", again: true,
			ran: []string{"systemctl stop bake-end.timer", "shutdown -c"},
		},
		{
			name: "Windows resumed", again: true, windows: true,
			ran: []string{"shutdown /a"},
		},
		{
			name: "no connection", body: `communicator = "none"`, end: 3 * time.Hour, said: `The machine cannot end itself if bake is killed; bake sweep deletes it then: there is no connection`,
		},
		{
			name: "lost in a reboot", end: 3 * time.Hour, fails: map[string]string{"systemctl stop": "not loaded", "--quiet bake-end.timer'": ""}, said: "The machine terminates itself at",
			ran: []string{"--on-active=10800 ", "systemctl stop", "is-active"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, said := launcher(t, tt.body, tt.end)
				m := &machine{fails: tt.fails}
				source := types.Image{}
				if tt.windows {
					source.Platform = types.PlatformValuesWindows
				}
				e := l.StartShutdownTimer(t.Context(), m, source, tt.again)
				e.Cancel(t.Context())
				e.Close()
				if !slices.EqualFunc(m.ran, tt.ran, strings.Contains) {
					t.Errorf("ran %q", m.ran)
				}
				if tt.said == "" && len(*said) > 0 || tt.said != "" && (len(*said) != 1 || !strings.HasPrefix((*said)[0], tt.said)) {
					t.Errorf("said %q", *said)
				}
			})
		})
	}
}

// TestEndingKept: after a reboot, the timer is set again for the remaining time.
func TestEndingKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, said := launcher(t, "", time.Hour)
		m := &machine{}
		e := l.StartShutdownTimer(t.Context(), m, types.Image{}, false)
		m.mu.Lock()
		m.lost = true
		m.mu.Unlock()
		time.Sleep(45 * time.Second)
		m.mu.Lock()
		m.lost = false
		m.mu.Unlock()
		time.Sleep(30 * time.Second)
		e.Close()
		time.Sleep(time.Hour)
		if want := []string{"=3600 ", "=3570 ", "=3540 "}; !slices.EqualFunc(m.ran, want, strings.Contains) {
			t.Errorf("ran %q", m.ran)
		}
		if len(*said) != 1 {
			t.Errorf("said %q", *said)
		}
		e.Left(t.Context())
		if want := "The machine is kept until 2000-01-01 01:00 UTC; then it terminates itself"; !strings.HasPrefix((*said)[len(*said)-1], want) {
			t.Errorf("said %q", *said)
		}
	})
}
