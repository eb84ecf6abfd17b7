package communicator

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzUnpack feeds what a hostile machine could send: whatever it is, nothing
// is written outside the directory.
func FuzzUnpack(f *testing.F) {
	for _, h := range []tar.Header{
		{Name: "../out", Typeflag: tar.TypeReg, Size: 1},
		{Name: "/etc/out", Typeflag: tar.TypeReg, Size: 1},
		{Name: "a/../../out", Typeflag: tar.TypeDir},
		{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../out"},
		{Name: "hard", Typeflag: tar.TypeLink, Linkname: "../secret"},
		{Name: "dev", Typeflag: tar.TypeChar},
		{Name: "good", Typeflag: tar.TypeReg, Size: 1, Mode: 0o644},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&h); err != nil {
			f.Fatal(err)
		}
		if h.Size > 0 {
			w.Write([]byte("x"))
		}
		w.Close()
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		parent := t.TempDir()
		if err := os.WriteFile(filepath.Join(parent, "secret"), []byte("s"), 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(parent, "dst")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		_ = Unpack(t.Context(), bytes.NewReader(stream), root)
		if list, err := os.ReadDir(parent); err != nil || len(list) != 2 {
			t.Errorf("outside: %v, %v", list, err)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "hard")); err == nil && string(b) == "s" {
			t.Error("a file from outside was read")
		}
	})
}
