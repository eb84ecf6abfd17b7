package sandbox

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// newConsoleLog returns a console log and the path of its file, which is empty.
func newConsoleLog(t *testing.T) (c *consoleLog, path string) {
	path = filepath.Join(t.TempDir(), "console")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &consoleLog{file: f}, path
}

// TestConsoleLog writes more than the size limit of a console's file.
func TestConsoleLog(t *testing.T) {
	c, path := newConsoleLog(t)
	var all bytes.Buffer
	for n := range 3 * consoleMax / 1024 {
		line := fmt.Appendf(nil, "%01023d\n", n)
		all.Write(line)
		if k, err := c.Write(line); k != len(line) || err != nil {
			t.Fatalf("Write = %d, %v, want %d bytes", k, err, len(line))
		}
		if n == 0 {
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, line) {
				t.Errorf("%q, %v", got, err)
			}
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || len(got) > consoleMax || len(got) < consoleKept || !bytes.HasSuffix(all.Bytes(), got) {
		t.Errorf("%d bytes, the end of what was written: %v, %v", len(got), bytes.HasSuffix(all.Bytes(), got), err)
	}
}

// TestConsoleLines checks that lines of the driver start on a new line.
func TestConsoleLines(t *testing.T) {
	c, path := newConsoleLog(t)
	for _, part := range []string{"one\n", "two\n"} {
		if err := c.writeLines(part); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("in the midst of")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); string(got) != "one\nin the midst of\ntwo\nin the midst of" {
		t.Errorf("got %q, %v", got, err)
	}
}
