package cloudinit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"bake/builder"
	"bake/communicator"
	"bake/step"
)

// machine simulates the state of cloud-init.
type machine struct {
	communicator.Communicator
	done  time.Time // when it finishes; zero: it is not installed
	fails bool
	cut   int // how often the connection is lost while it is waited for
	ran   int
}

func (*machine) Access() communicator.Access { return communicator.Access{} }

func (*machine) Dial(context.Context) (net.Conn, error) { return nil, net.ErrClosed }

func (m *machine) Run(ctx context.Context, c communicator.Command) (communicator.Status, error) {
	m.ran++
	switch {
	case strings.Contains(c.Line, "while"):
		if m.cut--; m.cut >= 0 {
			return communicator.Status{}, communicator.ErrDisconnected
		}
		select {
		case <-time.After(time.Until(m.done)):
		case <-ctx.Done():
			return communicator.Status{}, context.Cause(ctx)
		}
	case m.done.IsZero():
	case time.Now().Before(m.done):
		_, _ = io.WriteString(c.Stdout, mark+running+"\n")
	case m.fails:
		_, _ = io.WriteString(c.Stdout, "Welcome!\r\n"+mark+failed+"\r\n{\"errors\": [\"no such package\"]}\r\nE: no such package\r\n")
	}
	return communicator.Status{}, nil
}

func TestWait(t *testing.T) {
	for name, tt := range map[string]struct {
		after, limit time.Duration // after 0: there is no cloud-init
		fails        bool
		cut          int
		took         time.Duration
		ran          int
		said         string
	}{
		"not there":     {0, time.Minute, false, 0, 0, 1, ""},
		"off":           {time.Hour, 0, false, 0, 0, 0, ""},
		"done":          {-time.Second, time.Minute, false, 0, 0, 1, ""},
		"done, failed":  {-time.Second, time.Minute, true, 0, 0, 1, "E: no such package"},
		"later":         {30 * time.Second, time.Minute, false, 0, 30 * time.Second, 3, "up to 1m0s (-cloud-init-timeout)"},
		"later, failed": {30 * time.Second, time.Minute, true, 0, 30 * time.Second, 3, "E: no such package"},
		"too long":      {time.Hour, time.Minute, false, 0, time.Minute, 3, "has not finished within 1m0s; continuing without it; how long to wait is set by -cloud-init-timeout"},
		"restarts":      {30 * time.Second, time.Minute, false, 2, 30 * time.Second, 5, "up to 1m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said []string
				s := step.NewScope(step.Scope{Emit: func(e step.Event) { said = append(said, e.Text) }})
				m := &machine{fails: tt.fails, cut: tt.cut}
				if tt.after != 0 {
					m.done = time.Now().Add(tt.after)
				}
				start := time.Now()
				if err := Wait(t.Context(), s, builder.Machine{Communicator: m}, Limit{tt.limit, Flag}); err != nil {
					t.Error(err)
				}
				if took := time.Since(start); took != tt.took || m.ran != tt.ran {
					t.Errorf("took %s and %d commands, want %s and %d", took, m.ran, tt.took, tt.ran)
				}
				if all := strings.Join(said, "\n"); !strings.Contains(all, tt.said) || tt.said == "" && all != "" {
					t.Errorf("said %q, want %q", all, tt.said)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		m := &machine{done: time.Now().Add(time.Hour)}
		if err := Wait(ctx, step.NewScope(step.Scope{Emit: func(step.Event) {}}), builder.Machine{Communicator: m}, Limit{time.Minute, Flag}); !errors.Is(err, why) {
			t.Errorf("got %v, want the cause", err)
		}
	})
}

// TestShell runs the script on machines in every state. The result is a link, which dangles
// after cloud-init clean or the removal of leftovers, which empty /var/lib/cloud.
func TestShell(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip(err)
	}
	for name, c := range map[string]struct {
		files map[string]string // contents of /run/cloud-init, and of /var/lib/cloud/data as data/
		ends  time.Duration     // when the link is made
		want  string
	}{
		"not there":        {},
		"turned off":       {files: map[string]string{"enabled": "", "disabled": ""}},
		"at work":          {files: map[string]string{"enabled": ""}, want: running},
		"about to be done": {files: map[string]string{"enabled": "", "data/result.json": `{"errors": []}`}, ends: 500 * time.Millisecond},
		"done":             {files: map[string]string{"enabled": "", "result.json": "", "data/result.json": `{"v1": {"errors": [ ]}}`}},
		"failed":           {files: map[string]string{"enabled": "", "result.json": "", "data/result.json": `{"errors": ["no"]}`}, want: failed},
		"cleaned":          {files: map[string]string{"enabled": "", "result.json": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "data"), 0o700); err != nil {
				t.Fatal(err)
			}
			finish := func() error { return os.Symlink("data/result.json", filepath.Join(dir, "result.json")) }
			for file, text := range c.files {
				if file == "result.json" {
					err = finish()
				} else {
					err = os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if c.ends > 0 {
				time.AfterFunc(c.ends, func() {
					if err := finish(); err != nil {
						t.Error(err)
					}
				})
			}
			shell := func(script string) string {
				out, err := exec.CommandContext(t.Context(), sh, "-c", strings.ReplaceAll(script, "/run/cloud-init", dir)).CombinedOutput()
				if err != nil {
					t.Errorf("%v: %s", err, out)
				}
				return string(out)
			}
			most := 1 // polls, which do not end a wait early
			if c.want == "" {
				most = 1 << 20
			}
			if out := shell(fmt.Sprintf(wait, most)); out != "" {
				t.Errorf("the wait says %q", out)
			}
			out := shell(look)
			if got, _, _ := strings.Cut(strings.TrimPrefix(out, mark), "\n"); got != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

// TestAgain: the second wait for a machine may take as long as the first, and failures are
// not reported twice.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said []string
		s := step.NewScope(step.Scope{Emit: func(e step.Event) { said = append(said, e.Text) }})
		m := &machine{fails: true, done: time.Now().Add(30 * time.Second)}
		start := time.Now()
		if err := Again(t.Context(), s, builder.Machine{Communicator: m}, Limit{time.Minute, Flag}); err != nil {
			t.Error(err)
		}
		if took, all := time.Since(start), strings.Join(said, "\n"); took != 30*time.Second || !strings.Contains(all, "up to 1m0s") || strings.Contains(all, "errors") {
			t.Errorf("took %s, said %q", took, all)
		}
	})
}
