package reports_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/golden/reports"
)

// A document is found by its digest, even if another one has its name; a modified document is not.
func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	store := reports.Store{Dir: dir}
	one, err := store.Keep(t.Context(), "web.json", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Keep(t.Context(), "web.json", []byte("two")); err != nil {
		t.Fatal(err)
	}
	if text, err := store.Read(t.Context(), one, 3); err != nil || string(text) != "one" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "web.json")); err != nil || string(text) != "two" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := store.Read(t.Context(), one, 2); err == nil {
		t.Error("a document above the limit is read")
	}
	for _, digest := range []string{"", "../web.json", reports.Digest([]byte("three"))} {
		if text, err := store.Read(t.Context(), digest, 100); err == nil {
			t.Errorf("%s: %q", digest, text)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "sha256", one), []byte("One"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := store.Read(t.Context(), one, 100); err == nil {
		t.Errorf("what was changed is read: %q", text)
	}
}

// memory is a bucket, whose Put of a name may fail.
type memory struct {
	docs map[string][]byte
	full string
}

func (m memory) Put(_ context.Context, name string, text []byte) error {
	if name == m.full {
		return errors.New("no room")
	}
	m.docs[name] = text
	return nil
}

func (m memory) Get(_ context.Context, name string, _ int64) ([]byte, error) {
	text, ok := m.docs[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return text, nil
}

func (memory) String() string { return "s3://reports" }

// A document in a bucket is found from another host, and then stored there too; it is unchanged,
// or an error.
func TestBucket(t *testing.T) {
	there := memory{docs: map[string][]byte{}}
	one, err := reports.Store{Dir: t.TempDir(), Bucket: there}.Keep(t.Context(), "web.json", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if len(there.docs) != 2 || string(there.docs["web.json"]) != "one" || string(there.docs["sha256/"+one]) != "one" {
		t.Errorf("in the bucket: %v", there.docs)
	}
	other := reports.Store{Dir: t.TempDir(), Bucket: there}
	if text, err := other.Read(t.Context(), one, 3); err != nil || string(text) != "one" {
		t.Errorf("from another host: %q, %v", text, err)
	}
	if text, err := os.ReadFile(other.Path(one)); err != nil || string(text) != "one" {
		t.Errorf("then on this host: %q, %v", text, err)
	}
	there.docs["sha256/"+one] = []byte("One")
	third := reports.Store{Dir: t.TempDir(), Bucket: there}
	if text, err := third.Read(t.Context(), one, 3); err == nil || !strings.Contains(err.Error(), "s3://reports/sha256/"+one+" was changed") {
		t.Errorf("what was changed there: %q, %v", text, err)
	}
	if _, err := os.Stat(third.Path(one)); err == nil {
		t.Error("what was changed there is on this host now")
	}
	if _, err := third.Read(t.Context(), reports.Digest([]byte("x")), 3); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "s3://reports") {
		t.Errorf("what is nowhere: %v", err)
	}
	for _, full := range []string{"sha256/" + reports.Digest([]byte("two")), "web.json"} {
		there.full = full
		if digest, err := (reports.Store{Dir: t.TempDir(), Bucket: there}).Keep(t.Context(), "web.json", []byte("two")); err == nil {
			t.Errorf("with no room for %s: %q", full, digest)
		}
	}
}

// A tag that is not the ID of a run does not name a directory.
func TestRunOf(t *testing.T) {
	const run = "5e0d7c1e-2c5b-4a58-9a3f-3d3f3e1b8a55"
	for tag, want := range map[string]string{run: run, "../../x": "", "": ""} {
		if got := reports.RunOf(map[string]string{reports.Run: tag}); got != want {
			t.Errorf("%q: %q", tag, got)
		}
	}
}
