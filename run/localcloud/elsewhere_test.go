package localcloud

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestElsewhere: addresses of machines are dialed through the host that serves the cloud.
func TestElsewhere(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "not through the cloud", http.StatusTeapot)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+r.Host)
	}))
	defer server.Close()
	for _, env := range [][]string{
		{"AWS_ENDPOINT_URL=" + server.URL},
		{"AWS_ENDPOINT_URL=http://127.0.0.1:1", "AWS_ENDPOINT_URL_EC2=" + server.URL},
	} {
		cloud := FromEnvironment(env)
		conn, err := cloud.Dial(t.Context(), "tcp", "127.10.0.4:22")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "127.10.0.4:22" || err != nil {
			t.Errorf("%q: reached %q, %v", env, got, err)
		}
		conn.Close()
	}
	// If the server is not a local cloud, the address is dialed directly.
	machine, err := net.Listen("tcp", "127.10.0.5:0")
	if err != nil {
		t.Skip(err) // only Linux has all of 127/8
	}
	defer machine.Close()
	for code, ours := range map[int]bool{http.StatusMethodNotAllowed: false, http.StatusBadRequest: false, http.StatusBadGateway: true} {
		other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if ours {
				w.Header().Set("Server", cloudServer)
			}
			http.Error(w, "no", code)
		}))
		conn, err := FromEnvironment([]string{"AWS_ENDPOINT_URL=" + other.URL}).Dial(t.Context(), "tcp", machine.Addr().String())
		if dialed := err == nil; dialed == ours {
			t.Errorf("%d from a local cloud (%t): %v", code, ours, err)
		}
		if err == nil {
			conn.Close()
		}
		other.Close()
	}
	// Addresses that cannot belong to a machine are dialled directly.
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	cloud := FromEnvironment([]string{"AWS_ENDPOINT_URL=" + server.URL})
	conn, err := cloud.Dial(t.Context(), "tcp", own.Addr().String())
	if err != nil || conn.RemoteAddr().String() != own.Addr().String() {
		t.Errorf("%v, %v", conn, err)
	}
	for _, env := range [][]string{nil, {"AWS_ENDPOINT_URL="}, {"AWS_ENDPOINT_URL=https://ec2.example"}, {"AWS_ENDPOINT_URL=::"}} {
		if cloud := FromEnvironment(env); cloud.Dial != nil {
			t.Errorf("%s is taken for a local cloud", strings.Join(env, " "))
		}
	}
}

// TestOnlyThrough: a machine of a local cloud on another host is reached through that cloud; for
// a server that is not a local cloud, it is not.
func TestOnlyThrough(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	host := ""
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			host = n.IP.String()
		}
	}
	if host == "" {
		t.Skip("this host has no address but its loopback")
	}
	for name, want := range map[string]bool{cloudServer: true, "another": false} {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			t.Fatal(err)
		}
		server := &httptest.Server{Listener: ln, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Server", name)
			http.Error(w, "no", http.StatusBadGateway)
		})}}
		server.Start()
		if got := OnlyThrough(t.Context(), server.URL, "127.10.0.4:22"); got != want {
			t.Errorf("%s: %t", name, got)
		}
		if OnlyThrough(t.Context(), server.URL, host+":22") {
			t.Error("an address that can be dialed is taken for a machine's")
		}
		server.Close()
	}
}
