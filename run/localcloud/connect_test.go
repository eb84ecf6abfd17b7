package localcloud

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestConnect reaches a server through a proxy that speaks first, so that
// its bytes come with the proxy's answer.
func TestConnect(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != "127.9.9.9:22" {
			http.Error(w, "nobody there", http.StatusBadGateway)
			return
		}
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\n")
		io.Copy(conn, conn)
	}))
	defer proxy.Close()
	conn, err := Connect(t.Context(), proxy.URL, "127.9.9.9:22")
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	got, err := io.ReadAll(conn)
	if string(got) != "SSH-2.0-x\nhello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := Connect(t.Context(), proxy.URL, "127.9.9.9:23"); err == nil || !strings.Contains(err.Error(), "nobody there") {
		t.Errorf("error is %v", err)
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	if _, err := Connect(t.Context(), "http://"+gone.Addr().String(), "x:1"); err == nil {
		t.Error("nobody answers, and there is no error")
	}
}
