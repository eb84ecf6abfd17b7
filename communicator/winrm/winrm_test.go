package winrm_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/winrm"
	"bake/communicator/winrm/winrmtest"
	"bake/step"
)

func scope() *step.Scope {
	return step.NewScope(step.Scope{Build: "null.test", SourceType: "null", SourceName: "test", Emit: func(step.Event) {}})
}

func settings(srv *winrmtest.Server) *winrm.Settings {
	o := winrm.Defaults()
	o.WinRMHost, o.WinRMPort, o.WinRMUsername, o.WinRMPassword = srv.Host, srv.Port, srv.User, srv.Password
	return &o
}

func connect(t *testing.T, o *winrm.Settings) *winrm.Client {
	t.Helper()
	c, err := winrm.Connect(t.Context(), scope(), o, 0, winrm.Target{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestConformance(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	commtest.Run(t, func(t *testing.T) commtest.Subject {
		return commtest.Subject{Communicator: connect(t, settings(srv)), Cut: srv.Cut, NoModes: true}
	})
	if n := srv.Shells(); n > 0 {
		t.Errorf("%d shells were left", n)
	}
}

func TestHTTPS(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), true)
	o := settings(srv)
	o.WinRMUseSSL = true
	if _, err := winrm.Connect(t.Context(), scope(), o, 0, winrm.Target{}); err == nil || !strings.Contains(err.Error(), "winrm_insecure") {
		t.Errorf("with a certificate that nobody trusts: %v", err)
	}
	o.WinRMInsecure = true
	st, err := connect(t, o).Run(t.Context(), communicator.Command{Line: "exit 3"})
	if err != nil || st.Code != 3 {
		t.Errorf("got %+v, %v", st, err)
	}
}

func TestNTLM(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	o := settings(srv)
	o.WinRMUseNTLM = true
	connect(t, o)
	for _, s := range srv.Schemes() {
		if s != "Negotiate" && s != "NTLM" {
			t.Errorf("a request logged in by %s", s)
		}
	}
	if len(srv.Schemes()) == 0 {
		t.Error("no request came")
	}
}

func TestRefusedLogin(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	o := settings(srv)
	o.WinRMPassword, o.WinRMTimeout = "wrong", 300*time.Millisecond
	_, err := winrm.Connect(t.Context(), scope(), o, 0, winrm.Target{})
	if err == nil || !strings.Contains(err.Error(), `did not let user "Administrator" in`) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v", err)
	}
}

// TestPowerShellComesLater: WinRM on the machine answers before its PowerShell works.
func TestPowerShellComesLater(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	srv.NoPowerShell = 2
	connect(t, settings(srv))
	if n := len(srv.Lines()); n != 3 {
		t.Errorf("%d attempts", n)
	}
}

var errNoAddress = errors.New("no address yet")

// TestAddress: the machine has no address at first, and then a different one.
func TestAddress(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	o := settings(srv)
	o.WinRMHost = ""
	asked := 0
	target := winrm.Target{
		Addr: func(context.Context) (string, error) {
			if asked++; asked < 2 {
				return "", errNoAddress
			}
			return srv.Host, nil
		},
		NotYet: func(err error) bool { return errors.Is(err, errNoAddress) },
	}
	c, err := winrm.Connect(t.Context(), scope(), o, 0, target)
	if err != nil {
		t.Fatal(err)
	}
	want := communicator.Connection{Host: srv.Host, Port: srv.Port, User: srv.User, Password: srv.Password, WinRM: true}
	if got := c.Describe(); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	target.NotYet = func(error) bool { return false }
	asked = 0
	if _, err := winrm.Connect(t.Context(), scope(), o, 0, target); !errors.Is(err, errNoAddress) {
		t.Errorf("got %v, want the error of the address", err)
	}
}

// TestLine: a command line arrives unchanged.
func TestLine(t *testing.T) {
	srv := winrmtest.Serve(t, t.TempDir(), false)
	c := connect(t, settings(srv))
	for _, line := range []string{`echo "a & b" <c> 'd' ]]> e`, "echo \u00fc\u4e16"} {
		if _, err := c.Run(t.Context(), communicator.Command{Line: line}); err != nil {
			t.Error(err)
		}
		if lines := srv.Lines(); lines[len(lines)-1] != line {
			t.Errorf("sent %q, arrived %q", line, lines[len(lines)-1])
		}
	}
}

// A login with NTLM does not send the password to a service that requests it, and a challenge with
// invalid offsets causes no crash.
func TestHostileNTLM(t *testing.T) {
	challenge := make([]byte, 48)
	copy(challenge, "NTLMSSP\x00\x02")
	binary.LittleEndian.PutUint16(challenge[12:], 2)
	binary.LittleEndian.PutUint32(challenge[16:], 0xffffffff)
	for offer, want := range map[string]string{
		"Basic":     "does not offer NTLM",
		"Negotiate": "challenge cannot be read",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Basic") {
				t.Error("the password was sent")
			}
			answer := offer
			if r.Header.Get("Authorization") != "" {
				answer += " " + base64.StdEncoding.EncodeToString(challenge)
			}
			w.Header().Set("WWW-Authenticate", answer)
			w.WriteHeader(http.StatusUnauthorized)
		}))
		if err := hello(t, srv, true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", offer, err)
		}
		srv.Close()
	}
}

// A machine cannot redirect bake to other hosts.
func TestRedirected(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	defer other.Close()
	srv := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	if err := hello(t, srv, false); err == nil || !strings.Contains(err.Error(), "307 Temporary Redirect") {
		t.Errorf("got %v", err)
	}
}

// hello connects to any server for a moment.
func hello(t *testing.T, srv *httptest.Server, ntlm bool) error {
	t.Helper()
	addr := srv.Listener.Addr().(*net.TCPAddr)
	o := winrm.Defaults()
	o.WinRMHost, o.WinRMPort, o.WinRMUsername, o.WinRMPassword = addr.IP.String(), addr.Port, "Administrator", "secret"
	o.WinRMUseNTLM, o.WinRMTimeout = ntlm, 300*time.Millisecond
	_, err := winrm.Connect(t.Context(), scope(), &o, 0, winrm.Target{})
	return err
}
