package localcloud

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestElsewhere: the addresses of machines are those of the host that serves them.
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
		cloud := Elsewhere(env)
		conn, err := cloud.Dial(t.Context(), "tcp", "127.10.0.4:22")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); string(got) != "127.10.0.4:22" || err != nil {
			t.Errorf("%q: reached %q, %v", env, got, err)
		}
		conn.Close()
	}
	// What is no machine's address is dialled.
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	cloud := Elsewhere([]string{"AWS_ENDPOINT_URL=" + server.URL})
	conn, err := cloud.Dial(t.Context(), "tcp", own.Addr().String())
	if err != nil || conn.RemoteAddr().String() != own.Addr().String() {
		t.Errorf("%v, %v", conn, err)
	}
	for _, env := range [][]string{nil, {"AWS_ENDPOINT_URL="}, {"AWS_ENDPOINT_URL=https://ec2.example"}, {"AWS_ENDPOINT_URL=::"}} {
		if cloud := Elsewhere(env); cloud.Dial != nil {
			t.Errorf("%s is taken for a local cloud", strings.Join(env, " "))
		}
	}
}
