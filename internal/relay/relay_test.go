package relay_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/internal/relay"
)

// socket is the path of one, which has to be short.
func socket(t *testing.T) string {
	dir, err := os.MkdirTemp("", "relay")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "s")
}

// Data arrives completely in both directions, and the end of one direction does not end the other.
func TestRelay(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		got, _ := io.ReadAll(conn)
		io.WriteString(conn, "you said "+string(got))
	}()
	path := socket(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = relay.Serve(ctx, path, func(ctx context.Context, addr string) (net.Conn, error) {
		if addr != "machine:22" {
			return nil, errors.New("no way to\n" + addr)
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", listener.Addr().String())
	})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := relay.Connect(t.Context(), path, "machine:22")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "you said hello" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := relay.Connect(t.Context(), path, "other:22"); err == nil || !strings.Contains(err.Error(), "no way to other:22") {
		t.Errorf("got %v", err)
	}
	if _, err := relay.Connect(t.Context(), path, "a\nb"); err == nil {
		t.Error("an address of two lines is taken")
	}
	cancel()
	for {
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			break
		}
	}
	if _, err := relay.Connect(t.Context(), path, "machine:22"); err == nil {
		t.Error("it goes on serving")
	}
}
