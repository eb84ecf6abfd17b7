package durable_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bake/cloud/durable"
)

// TestTableUnchanged checks that a change that leaves a row as it is does not write it.
func TestTableUnchanged(t *testing.T) {
	type row struct{ Name string }
	dir, writes := t.TempDir(), 0
	table, err := durable.OpenTable[row](dir, func() { writes++ })
	if err != nil {
		t.Fatal(err)
	}
	name := func(to string) func(*row) { return func(r *row) { r.Name = to } }
	if err := table.Put("a", &row{"one"}); err != nil || writes != 1 {
		t.Fatalf("Put: %v after %d writes, want one", err, writes)
	}
	file := filepath.Join(dir, "a.json")
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Edit("a", name("one")); err != nil || writes != 1 {
		t.Error("unchanged:", writes, err)
	}
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Error("the file was replaced:", err)
	}
	if err := table.Edit("a", name("")); err != nil || writes != 2 {
		t.Error("changed:", writes, err)
	}
	if err := table.Change("b", func(*row) error { return nil }); err != nil || writes != 3 {
		t.Error("a new empty row:", writes, err)
	}
	again, err := durable.OpenTable[row](dir, func() {})
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := again.Get("a"); !ok || a.Name != "" || len(again.IDs()) != 2 {
		t.Error("read again:", again.IDs(), a)
	}
}

// TestDamagedRow: an error about a damaged row says which file it is and what to do about it, and
// doing that helps.
func TestDamagedRow(t *testing.T) {
	type row struct{ Name string }
	dir := t.TempDir()
	file := filepath.Join(dir, "a.json")
	if err := os.WriteFile(file, []byte(`{"Name": "cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := durable.OpenTable[row](dir, func() {})
	if err == nil || !strings.Contains(err.Error(), file+" is damaged: ") || !strings.HasSuffix(err.Error(), "; move it to another directory to go on without what it describes") {
		t.Errorf("a damaged row: %v", err)
	}
	if err := os.Rename(file, filepath.Join(t.TempDir(), "a.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := durable.OpenTable[row](dir, func() {}); err != nil {
		t.Errorf("without the row: %v", err)
	}
}

// TestReplaceDirectory: a directory in the place of a file is named, and stays as it is.
func TestReplaceDirectory(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "endpoint.json")
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	err := durable.Replace(name, []byte("x"), 0o600)
	if want := name + " is a directory, and a file has to be there: delete the directory"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !entries[0].IsDir() {
		t.Errorf("the directory contains %v, %v; want only endpoint.json", entries, err)
	}
}
