//go:build unix

package step_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"bake/step"
)

// TestDiskFull checks that a line that does not fit leaves no trace.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	l := create(t, dir)
	must(t, l.Intend(step.Resource{Kind: "x:y", Key: "a"}))
	path := filepath.Join(dir, "run-1.jsonl")
	info, err := os.Stat(path)
	must(t, err)

	// A limit on file sizes acts like a disk that becomes full in the middle of a line.
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_FSIZE, &limit))
	full := limit
	limitTo(&full.Cur, info.Size()+10)
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &full))
	err = l.Intend(step.Resource{Kind: "x:y", Key: "b"})
	must(t, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit))
	if err == nil {
		t.Fatal("it was written")
	}
	if got := owned(t, l); got != "a=" {
		t.Error(got)
	}
	must(t, l.Intend(step.Resource{Kind: "x:y", Key: "c"}), l.Close())
	l, err = step.OpenLedger(path)
	must(t, err)
	defer l.Close()
	if got := owned(t, l); got != "a= c=" {
		t.Errorf("after the disk has room again: %q", got)
	}
}

// Only regular files are read, because reading others might block.
func TestNoFile(t *testing.T) {
	dir := t.TempDir()
	fifo, device := filepath.Join(dir, "fifo.jsonl"), filepath.Join(dir, "zero.jsonl")
	must(t, unix.Mkfifo(fifo, 0o600), os.Symlink("/dev/zero", device))
	for _, path := range []string{fifo, device, dir} {
		if l, err := step.OpenLedger(path); err == nil {
			l.Close()
			t.Errorf("%s is taken for a ledger", path)
		}
	}
}

// limitTo sets a limit, whose type differs between systems.
func limitTo[T int64 | uint64](limit *T, size int64) { *limit = T(size) }
