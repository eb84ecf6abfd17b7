package winrm_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
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
	err := refused(t, srv, winrm.Settings{WinRMUsername: srv.User, WinRMPassword: "wrong"})
	if !strings.Contains(err.Error(), `did not let user "Administrator" in`) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("got %v", err)
	}
}

// pipes is a listener whose connections are made by dial.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error {
	close(p)
	return nil
}

func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (p pipes) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	p <- far
	return near, nil
}

// refused returns the error of connecting to a machine that answers by service. It happens in fake
// time: even a busy host answers before winrm_timeout.
func refused(t *testing.T, service http.Handler, o winrm.Settings) (err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		machine := pipes(make(chan net.Conn))
		srv := &http.Server{Handler: service}
		go func() { _ = srv.Serve(machine) }()
		defer srv.Close()
		o.WinRMHost, o.WinRMTimeout = "192.0.2.1", time.Minute
		_, err = winrm.Connect(t.Context(), scope(), &o, 0, winrm.Target{Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if addr != "192.0.2.1:5985" {
				t.Errorf("%s is dialed", addr)
			}
			return machine.dial(ctx, network, addr)
		}})
		if err == nil {
			t.Fatal("no error")
		}
	})
	return err
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
		service := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Basic") {
				t.Error("the password was sent")
			}
			answer := offer
			if r.Header.Get("Authorization") != "" {
				answer += " " + base64.StdEncoding.EncodeToString(challenge)
			}
			w.Header().Set("WWW-Authenticate", answer)
			w.WriteHeader(http.StatusUnauthorized)
		})
		o := winrm.Settings{WinRMUsername: "Administrator", WinRMPassword: "secret", WinRMUseNTLM: true}
		if err := refused(t, service, o); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", offer, err)
		}
	}
}

// A machine cannot redirect bake to other hosts.
func TestRedirected(t *testing.T) {
	service := http.RedirectHandler("http://192.0.2.2:5985/wsman", http.StatusTemporaryRedirect)
	err := refused(t, service, winrm.Settings{WinRMUsername: "Administrator", WinRMPassword: "secret"})
	if !strings.Contains(err.Error(), "307 Temporary Redirect") {
		t.Errorf("got %v", err)
	}
}
