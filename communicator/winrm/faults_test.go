package winrm_test

import (
	"bytes"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"bake/communicator"
	"bake/communicator/winrm/winrmtest"
)

const soap = "application/soap+xml;charset=UTF-8"

var spoilt = map[string]winrmtest.Fault{
	"dies":           winrmtest.Die,
	"not found":      winrmtest.Say(http.StatusNotFound, "text/html", "<h1>Not found</h1>"),
	"busy":           winrmtest.Say(http.StatusServiceUnavailable, "text/html", ""),
	"login":          winrmtest.Say(http.StatusUnauthorized, "text/plain", ""),
	"garbage":        winrmtest.Say(http.StatusOK, soap, "<a><b"),
	"no XML":         winrmtest.Say(http.StatusOK, soap, "\x00\xff"),
	"empty":          winrmtest.Say(http.StatusOK, soap, ""),
	"something else": winrmtest.Say(http.StatusOK, soap, `<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body/></s:Envelope>`),
	"refused":        winrmtest.Refuse("5", "Access is denied."),
	"gone":           winrmtest.Gone,
	"cut":            winrmtest.Cut,
	"endless":        winrmtest.Endless,
	"slow":           winrmtest.Slow(200 * time.Millisecond),
}

// Whatever happens to a response, a command returns its result, or an error that describes the
// problem, and the next one works.
func TestFaults(t *testing.T) {
	// Requests for which a single bad response has no effect.
	harmless := map[string][]string{
		"Create":  {"dies", "not found", "busy", "login", "garbage", "no XML", "empty", "something else", "refused", "gone", "cut", "endless", "slow"},
		"Command": {"not found", "busy", "login", "refused", "gone", "slow"},
		"Receive": {"slow"},
		"Delete":  {"dies", "not found", "busy", "login", "garbage", "no XML", "empty", "something else", "refused", "gone", "cut", "endless", "slow"},
	}
	for action, fine := range harmless {
		for name, fault := range spoilt {
			t.Run(action+" "+name, func(t *testing.T) {
				t.Parallel()
				srv := winrmtest.Serve(t, t.TempDir(), false)
				c := connect(t, settings(srv))
				var once atomic.Bool
				srv.SetFault(func(_ int, a string) winrmtest.Fault {
					if a != action || !once.CompareAndSwap(false, true) {
						return nil
					}
					return fault
				})
				var out bytes.Buffer
				st, err := c.Run(t.Context(), communicator.Command{Line: "echo hi; exit 3", Stdout: &out})
				switch ok := err == nil && st.Code == 3 && out.String() == "hi\n"; {
				case slices.Contains(fine, name) != ok:
					t.Errorf("got %+v, %v, %q", st, err, &out)
				case !ok && err == nil:
					t.Errorf("it ended well: %+v, %q", st, &out)
				case name == "refused" && !ok && !strings.Contains(err.Error(), "Access is denied"):
					t.Errorf("got %v", err)
				case name == "dies" && !ok && !errors.Is(err, communicator.ErrDisconnected):
					t.Errorf("got %v", err)
				}
				if st, err := c.Run(t.Context(), communicator.Command{Line: "exit 4"}); err != nil || st.Code != 4 {
					t.Errorf("afterwards: %+v, %v", st, err)
				}
			})
		}
	}
}

// A command that is always refused is not retried forever, and the error has the reason.
func TestRefusedCommand(t *testing.T) {
	t.Parallel()
	srv := winrmtest.Serve(t, t.TempDir(), false)
	c := connect(t, settings(srv))
	srv.SetFault(func(_ int, a string) winrmtest.Fault {
		if a != "Command" {
			return nil
		}
		return spoilt["refused"]
	})
	_, err := c.Run(t.Context(), communicator.Command{Line: "true"})
	if err == nil || !strings.Contains(err.Error(), "did not start the command: WinRM: Access is denied. (code 5)") || errors.Is(err, communicator.ErrDisconnected) {
		t.Errorf("got %v", err)
	}
	if n := srv.Shells(); n > 0 {
		t.Errorf("%d shells are left", n)
	}
}

// A machine that never answers sensibly is given up at once.
func TestUselessOutput(t *testing.T) {
	for _, name := range []string{"something else", "garbage", "gone"} {
		srv := winrmtest.Serve(t, t.TempDir(), false)
		c := connect(t, settings(srv))
		srv.SetFault(func(_ int, a string) winrmtest.Fault {
			if a != "Receive" {
				return nil
			}
			return spoilt[name]
		})
		if st, err := c.Run(t.Context(), communicator.Command{Line: "exec sleep 60"}); err == nil {
			t.Errorf("%s: %+v", name, st)
		}
		if n := srv.Shells(); n > 0 {
			t.Errorf("%s: %d shells are left", name, n)
		}
	}
}

// Input that the machine does not accept ends a command that waits for it.
func TestUnwantedInput(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes ten seconds")
	}
	t.Parallel()
	srv := winrmtest.Serve(t, t.TempDir(), false)
	c := connect(t, settings(srv))
	srv.SetFault(func(_ int, a string) winrmtest.Fault {
		if a != "Send" {
			return nil
		}
		return winrmtest.TimedOut
	})
	_, err := c.Run(t.Context(), communicator.Command{Line: "cat", Stdin: strings.NewReader("x")})
	if err == nil || !strings.Contains(err.Error(), "does not take the input") {
		t.Errorf("got %v", err)
	}
}
