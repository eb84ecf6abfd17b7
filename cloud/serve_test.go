package cloud_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestServeAfterClose starts Serve after Close: it must not serve for ever, nor claim a
// directory that another process may have opened.
func TestServeAfterClose(t *testing.T) {
	dir := t.TempDir()
	s, err := cloudtest.Open(t.Context(), t.TempDir, cloud.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve: %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
	if _, err := os.Stat(filepath.Join(dir, "endpoint.json")); !os.IsNotExist(err) {
		t.Errorf("endpoint.json: %v", err)
	}
}

// TestServerUnrecorded: a cloud that cannot record its URL says so before it serves, and does not
// leave clients with a listener that nobody serves.
func TestServerUnrecorded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cloud")
	s, err := cloudtest.Open(t.Context(), t.TempDir, cloud.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Server(l); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Server: %v", err)
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("the listener is still open")
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
}
