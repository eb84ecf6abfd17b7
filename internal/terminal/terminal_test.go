package terminal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestUnread(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.Write([]byte("x")); Unread(err) {
		t.Errorf("a pipe that has a reader: %v", err)
	}
	r.Close()
	if _, err := w.Write([]byte("x")); !Unread(err) {
		t.Errorf("a pipe that nobody reads: %v", err)
	}
	w.Close()
	if _, err := w.Write([]byte("x")); err == nil || Unread(err) {
		t.Errorf("a closed file: %v", err)
	}
}

func TestFilesAreNoTerminals(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, out := range []any{f, &bytes.Buffer{}, nil} {
		if Is(out) || Draws(out) {
			t.Errorf("%T is taken for a terminal", out)
		}
	}
}
