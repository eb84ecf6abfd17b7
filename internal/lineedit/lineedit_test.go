package lineedit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "console_history")
	if err := os.WriteFile(path, []byte(strings.Repeat("old\n", 10)+strings.Repeat("new\n", keptLines)), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := OpenHistory(dir, func(string) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(path); err != nil || string(kept) != strings.Repeat("new\n", keptLines) || h.Len() != keptLines {
		t.Errorf("%d bytes are kept, and %d lines (%v)", len(kept), h.Len(), err)
	}
	if _, err := OpenHistory(path, nil); err == nil {
		t.Error("a file is not a directory")
	}
}

// TestComplete: a name is completed as far as it is unambiguous.
func TestComplete(t *testing.T) {
	e := &Editor{Words: []string{"local.name", "local.number", "upper", "var.region"}}
	for in, want := range map[string]string{
		"up": "upper", "f(var.": "f(var.region", "loc": "local.n", "local.na": "local.name", "x": "x", "": "", "upper ": "upper ",
	} {
		if got, pos, ok := e.complete(in, len(in), '\t'); got != want || pos != len(want) || !ok {
			t.Errorf("%q becomes %q, the cursor at %d, %v; want %q", in, got, pos, ok, want)
		}
	}
	if got, pos, _ := e.complete("(up)", 3, '\t'); got != "(upper)" || pos != 6 {
		t.Errorf("within a line: %q, %d", got, pos)
	}
	if _, _, ok := e.complete("up", 2, 'x'); ok {
		t.Error("only Tab completes")
	}
}
