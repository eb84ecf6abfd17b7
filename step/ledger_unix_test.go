//go:build unix

package step_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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
		t.Errorf("the ledger owns %q, want a=", got)
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

// TestLedgerDeleted: once the file of a ledger is deleted or replaced, nothing more may be created,
// but what exists is known until the end.
func TestLedgerDeleted(t *testing.T) {
	for name, lose := range map[string]func(dir, path string) error{
		"deleted":                    func(_, path string) error { return os.Remove(path) },
		"deleted with its directory": func(dir, _ string) error { return os.RemoveAll(dir) },
		"replaced":                   func(_, path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600)) },
		"renamed":                    func(_, path string) error { return os.Rename(path, path+".old") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			l := create(t, dir)
			must(t, l.Intend(step.Resource{Kind: "x:y", Key: "a"}), lose(dir, filepath.Join(dir, "run-1.jsonl")), l.Created("a", "id-a"))
			for _, key := range []string{"b", "c"} {
				if err := l.Intend(step.Resource{Kind: "x:y", Key: key}); err == nil || !strings.Contains(err.Error(), "run-1.jsonl: the file was deleted or replaced during the run") {
					t.Errorf("%s may be created: %v", key, err)
				}
			}
			if got := owned(t, l); got != "a=id-a" {
				t.Errorf("it owns %q", got)
			}
			if err := l.Close(); err == nil || !strings.Contains(err.Error(), "deleted or replaced") {
				t.Errorf("a resource is forgotten: %v", err)
			}
		})
	}
	dir := t.TempDir()
	l := create(t, dir)
	must(t, l.Intend(step.Resource{Kind: "x:y", Key: "a"}), os.RemoveAll(dir), l.Gone("a"), l.Close())
}
