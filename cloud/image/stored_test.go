package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bake/cloud/image"
	"bake/cloud/image/disk"
	"bake/cloud/machine/machinetest"
)

// layerOf makes a layer of files; names and contents alternate.
func layerOf(t *testing.T, s *image.Store, files ...string) image.LayerID {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	id, err := s.Import(t.Context(), &b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// work returns the store's layers and unfinished work.
func work(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, pattern := range []string{"layers/*", "tmp/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, found...)
	}
	return names
}

// failing is a writer that fails after n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errors.New("no room")
	}
	return len(p), nil
}

// TestStoredImage checks that layers can be stored and restored in order, also in another store,
// and that neither a truncated file nor a failing writer leaves anything behind.
func TestStoredImage(t *testing.T) {
	ctx := t.Context()
	dir, other := t.TempDir(), t.TempDir()
	from, err := image.Open(dir, &machinetest.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	to, err := image.Open(other, &machinetest.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	layers := []image.LayerID{layerOf(t, from, "etc/name", "upper", ".wh.gone", ""), layerOf(t, from, "gone", "x", "etc/large", strings.Repeat("large ", 20000))}
	var file bytes.Buffer
	if err := from.StoreImage(ctx, &file, []byte("about"), layers, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	if about, err := image.ReadAbout(bytes.NewReader(file.Bytes())); err != nil || string(about) != "about" {
		t.Errorf("%q, %v", about, err)
	}
	made, err := to.RestoreImage(ctx, bytes.NewReader(file.Bytes()))
	if err != nil || len(made) != 2 {
		t.Fatalf("RestoreImage = %v, %v, want two layers", made, err)
	}
	paths, err := to.Paths(made)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"etc/name", "etc/large"} {
		if _, err := os.Stat(filepath.Join(paths[i], name)); err != nil {
			t.Error(err)
		}
	}
	before := work(t, other)
	for n := 0; n < file.Len(); n += 1 + file.Len()/50 {
		if made, err := to.RestoreImage(ctx, bytes.NewReader(file.Bytes()[:n])); err == nil || len(made) != 0 {
			t.Errorf("the first %d bytes are restored: %v", n, made)
		}
		if err := from.StoreImage(ctx, &failing{n}, []byte("about"), layers, func(_, _ int64) {}); err == nil {
			t.Errorf("it is stored in %d bytes", n)
		}
	}
	if after := work(t, other); !slices.Equal(before, after) {
		t.Errorf("there was %q, and is %q", before, after)
	}
	if err := from.StoreImage(ctx, io.Discard, bytes.Repeat([]byte("x"), 2<<20), nil, func(_, _ int64) {}); err == nil {
		t.Error("a description of 2 MiB is stored")
	}
	if err := from.StoreImage(ctx, io.Discard, nil, []image.LayerID{"layer-0123456789abcdef"}, func(_, _ int64) {}); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("a layer that is not there: %v", err)
	}
}

// TestStoredHoles checks that an entry that consists of a huge hole is rejected: a few bytes can
// declare a terabyte.
func TestStoredHoles(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{{Name: "image.json", Mode: 0o600, Size: 2}, {Name: "layers/0.tar", Mode: 0o600, Size: 512, Format: tar.FormatPAX,
		PAXRecords: map[string]string{"GNX.sparse.major": "1", "GNX.sparse.minor": "0", "GNX.sparse.name": "layers/0.tar", "GNX.sparse.realsize": "1099511627776"}}} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(append([]byte("0\n"), make([]byte, h.Size-2)...)); err != nil { // no data
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	file := bytes.ReplaceAll(b.Bytes(), []byte("GNX."), []byte("GNU.")) // the writer refuses to write this prefix
	err := image.ReadStored(bytes.NewReader(file), func(string, io.Reader) error { t.Error("it is read"); return nil })
	if err == nil || !strings.Contains(err.Error(), "where a layer should be") {
		t.Error(err)
	}
}

// TestStoredBomb checks that every image that can be stored can be restored, in whatever order well
// and badly compressible layers occur.
func TestStoredBomb(t *testing.T) {
	const large = 1<<30 + 100<<20
	zeros := image.StoredLayer{Size: large, Pack: func(w io.Writer) error {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(zeroes{}, large), make([]byte, 1<<20))
		return err
	}}
	random := image.StoredLayer{Size: 8 << 20, Pack: func(w io.Writer) error {
		_, err := io.CopyN(w, rand.Reader, 8<<20)
		return err
	}}
	for name, test := range map[string]struct {
		layers []image.StoredLayer
		stored bool
	}{
		"zeros first": {[]image.StoredLayer{zeros, random}, false},
		"zeros last":  {[]image.StoredLayer{random, zeros}, true},
	} {
		r, w := io.Pipe()
		written := make(chan error, 1)
		go func() {
			err := image.WriteStored(w, []byte("about"), test.layers, func(int64) {})
			w.CloseWithError(err)
			written <- err
		}()
		err := image.ReadStored(r, func(_ string, layer io.Reader) error { _, err := io.Copy(io.Discard, layer); return err })
		_ = r.Close()
		if werr := <-written; (werr == nil) != test.stored || (err == nil) != test.stored || !test.stored && !strings.Contains(werr.Error(), "when it is restored") {
			t.Errorf("%s: stored: %v; restored: %v", name, werr, err)
		}
	}
}

// zeroes is an endless stream of zeros.
type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestStoredSparse checks that a layer can be stored only if its sparse files are not too large to
// be unpacked.
func TestStoredSparse(t *testing.T) {
	ctx := t.Context()
	s, err := image.Open(t.TempDir(), &machinetest.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	for size, stored := range map[int64]bool{1 << 30: true, 1<<40 + 1: false} {
		id := layerOf(t, s, "disk.raw", "x")
		dir, err := s.Path(id)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, "disk.raw"), size); err != nil {
			t.Fatal(err)
		}
		var file bytes.Buffer
		err = s.StoreImage(ctx, &file, []byte("about"), []image.LayerID{id}, func(_, _ int64) {})
		if stored && err == nil {
			_, err = s.RestoreImage(ctx, &file)
		}
		if (err == nil) != stored || err != nil && !strings.Contains(err.Error(), "disk.raw") {
			t.Errorf("a sparse file of %d bytes: %v", size, err)
		}
	}
}

// TestExportDisk checks that an exported disk can be imported as a single layer with the merged
// content.
func TestExportDisk(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	s, err := image.Open(dir, &machinetest.Driver{})
	if err != nil {
		t.Fatal(err)
	}
	layers := []image.LayerID{layerOf(t, s, "etc/name", "upper", "usr/.wh.gone", ""), layerOf(t, s, "bin/sh", "#!", "etc/name", "lower", "usr/gone", "x", "usr/kept", "y")}
	before := len(work(t, dir))
	err = s.ExportDisk(ctx, layers, 64<<20, func(_, _ int64) {}, func(f *os.File) error {
		id, _, err := s.ImportDisk(ctx, disk.Disk{ReaderAt: f, Size: 64 << 20})
		if err != nil {
			return err
		}
		root, err := s.Path(id)
		if err != nil {
			return err
		}
		for name, want := range map[string]string{"bin/sh": "#!", "etc/name": "upper", "usr/kept": "y", "usr/gone": ""} {
			if got, err := os.ReadFile(filepath.Join(root, name)); string(got) != want || (err == nil) != (want != "") {
				t.Errorf("%s holds %q, %v", name, got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ExportDisk(ctx, layers, 64<<20, func(_, _ int64) {}, func(*os.File) error { return errors.New("not wanted") }); err == nil || !strings.Contains(err.Error(), "not wanted") {
		t.Errorf("an error of who uses it: %v", err)
	}
	if err := s.ExportDisk(ctx, layers, 1<<20, func(_, _ int64) {}, func(*os.File) error { return nil }); err == nil {
		t.Error("a disk of 1 MiB is made")
	}
	if left := work(t, dir); len(left) != before+2 { // the layer and its record
		t.Errorf("what is left: %q", left)
	}
}

// TestRestoredLayersAreShared checks that a layer that the store has is not made again, and that a
// layer with a wrong digest is rejected.
func TestRestoredLayersAreShared(t *testing.T) {
	ctx, dir, other := t.Context(), t.TempDir(), t.TempDir()
	from, to := openStore(t, dir), openStore(t, other)
	layers := []image.LayerID{layerOf(t, from, "etc/name", "upper"), layerOf(t, from, "etc/name", "lower")}
	var file bytes.Buffer
	if err := from.StoreImage(ctx, &file, []byte("about"), layers, func(_, _ int64) {}); err != nil {
		t.Fatal(err)
	}
	if made, err := from.RestoreImage(ctx, bytes.NewReader(file.Bytes())); err != nil || !slices.Equal(made, layers) {
		t.Errorf("%v have become %v, %v", layers, made, err)
	}
	first, err := to.RestoreImage(ctx, bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := to.RestoreImage(ctx, bytes.NewReader(file.Bytes())); err != nil || !slices.Equal(again, first) {
		t.Errorf("%v are restored again as %v, %v", first, again, err)
	}

	sum := sha256.Sum256(packed(t, from, layers[0]))
	digest := fmt.Sprintf("sha256:%x", sum)
	lower, upper := packed(t, from, layers[1]), packed(t, from, layers[0])
	stored := func(claims ...string) *bytes.Buffer {
		var file bytes.Buffer
		var claimed []image.StoredLayer
		for n, claim := range claims {
			content := lower
			if n > 0 {
				content = upper
			}
			claimed = append(claimed, image.StoredLayer{Size: int64(len(content)), Digest: claim, Pack: func(w io.Writer) error { _, err := w.Write(content); return err }})
		}
		if err := image.WriteStored(&file, []byte("about"), claimed, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		return &file
	}
	before, there := work(t, dir), work(t, other)
	for _, claim := range []string{digest, "sha256:" + strings.Repeat("0", 64), "x"} {
		for _, s := range []*image.Store{from, to} {
			if made, err := s.RestoreImage(ctx, stored(claim)); err == nil || !strings.Contains(err.Error(), "and the image says") {
				t.Errorf("what claims to be %.20s is restored as %v, %v", claim, made, err)
			}
		}
	}
	if now := work(t, dir); !slices.Equal(before, now) || !slices.Equal(there, work(t, other)) {
		t.Errorf("there was %q and is %q", before, now)
	}
	// A layer without a declared digest is made.
	if made, err := from.RestoreImage(ctx, stored("", digest)); err != nil || slices.Contains(layers, made[0]) || made[1] != layers[0] {
		t.Errorf("%v, %v", made, err)
	}
	third := openStore(t, t.TempDir()) // a store with two equal layers
	if made, err := third.RestoreImage(ctx, stored("", digest, digest)); err != nil || len(made) != 3 || made[1] != made[2] {
		t.Errorf("%v, %v", made, err)
	}
}

// FuzzReadStored reads stored images with one damaged byte.
func FuzzReadStored(f *testing.F) {
	var file bytes.Buffer
	layer := image.StoredLayer{Size: 1024, Digest: "sha256:00", Pack: func(w io.Writer) error { _, err := w.Write(make([]byte, 1024)); return err }}
	if err := image.WriteStored(&file, []byte("about"), []image.StoredLayer{layer, layer}, func(int64) {}); err != nil {
		f.Fatal(err)
	}
	plain, err := gzip.NewReader(&file)
	if err != nil {
		f.Fatal(err)
	}
	whole, err := io.ReadAll(plain)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{0}, uint32(0))
	f.Fuzz(func(t *testing.T, patch []byte, at uint32) {
		data := bytes.Clone(whole)
		for i, b := range patch {
			data[(int(at)+i)%len(data)] = b
		}
		read := int64(0)
		_ = image.ReadStored(bytes.NewReader(data), func(_ string, layer io.Reader) error { // any error is acceptable
			n, err := io.Copy(io.Discard, layer)
			read += n
			return err
		})
		if read > int64(len(data)) {
			t.Errorf("%d bytes hold layers of %d", len(data), read)
		}
	})
}
