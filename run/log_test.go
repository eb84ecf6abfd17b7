package run

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRunLogIsCompressed: a log of much output takes little room, and nothing of it
// is lost.
func TestRunLogIsCompressed(t *testing.T) {
	dir := t.TempDir()
	l, err := createLog(dir, "r")
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	line := strings.Repeat("x", 1000)
	for i := range 3 * logPart / 1000 {
		text := fmt.Appendf(nil, "%s %d\n", line, i)
		want.Write(text)
		if _, err := l.Write(text); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	parts, _ := filepath.Glob(filepath.Join(dir, "r.events.*.gz"))
	slices.Sort(parts)
	size := int64(0)
	for _, path := range parts {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(&got, z); err != nil {
			t.Fatal(err)
		}
		info, _ := f.Stat()
		size += info.Size()
		f.Close()
	}
	rest, err := os.ReadFile(l.Name())
	got.Write(rest)
	if err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("%d bytes were read, want %d (%v)", got.Len(), want.Len(), err)
	}
	if len(parts) < 2 || size > logPart/4 || len(rest) > logPart {
		t.Errorf("%d parts of %d bytes and a rest of %d", len(parts), size, len(rest))
	}
}

// TestPruneLogs: the newest runs are kept as long as there are not too many of
// them, nor too many bytes.
func TestPruneLogs(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for i := range 6 { // run 0 is the newest
		for _, name := range []string{"events.jsonl", "events.001.jsonl.gz"} {
			path := filepath.Join(dir, fmt.Sprintf("%d.%s", i, name))
			if err := os.WriteFile(path, make([]byte, 50), 0o600); err != nil {
				t.Fatal(err)
			}
			at := now.Add(-time.Duration(i) * time.Hour)
			if err := os.Chtimes(path, at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func() int { all, _ := os.ReadDir(dir); return len(all) }
	if pruneLogs(dir, 4, 1000); count() != 8 {
		t.Errorf("%d files are left of 4 runs", count())
	}
	if pruneLogs(dir, 4, 250); count() != 4 {
		t.Errorf("%d files are left of 250 bytes", count())
	}
	if _, err := os.Stat(filepath.Join(dir, "0.events.jsonl")); err != nil {
		t.Error(err)
	}
}

func TestLogsDoNotPileUp(t *testing.T) {
	dir := t.TempDir()
	for i := range keptLogs + 5 {
		f, err := createLog(dir, fmt.Sprint(i))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(f.Name(), at, at); err != nil {
			t.Fatal(err)
		}
	}
	logs, err := os.ReadDir(dir)
	if err != nil || len(logs) != keptLogs {
		t.Errorf("%d logs are kept (%v)", len(logs), err)
	}
	if _, err := os.Stat(filepath.Join(dir, "4.events.jsonl")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an old log is still there: %v", err)
	}
}
