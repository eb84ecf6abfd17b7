package image

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// layoutDir is a directory in which OCI layouts are written by hand.
type layoutDir struct {
	t   testing.TB
	dir string
}

func newLayoutDir(t testing.TB) layoutDir {
	l := layoutDir{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.write("oci-layout", `{"imageLayoutVersion":"1.0.0"}`)
	return l
}

func (l layoutDir) write(name, content string) {
	if err := os.WriteFile(filepath.Join(l.dir, name), []byte(content), 0o644); err != nil {
		l.t.Fatal(err)
	}
}

func (l layoutDir) link(target, name string) {
	if err := os.Symlink(target, filepath.Join(l.dir, name)); err != nil {
		l.t.Fatal(err)
	}
}

func (l layoutDir) blob(content string) (digest string) {
	sum := sha256.Sum256([]byte(content))
	l.write("blobs/sha256/"+hex.EncodeToString(sum[:]), content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// image writes an image with one layer and returns the digests of its parts.
func (l layoutDir) image(layer string) (manifest, config, blob string) {
	blob = l.blob(layer)
	config = l.blob(fmt.Sprintf(`{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":[%q]}}`, runtime.GOARCH, blob))
	manifest = l.blob(fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":%q,"digest":%q,"size":1},"layers":[{"mediaType":%q,"digest":%q,"size":1}]}`,
		types.OCIManifestSchema1, types.OCIConfigJSON, config, types.OCIUncompressedLayer, blob))
	return manifest, config, blob
}

// index returns an index that lists manifests.
func index(kind types.MediaType, digests ...string) string {
	var list []string
	for _, d := range digests {
		list = append(list, fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":1}`, kind, d))
	}
	return fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, strings.Join(list, ","))
}

func file(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }

// TestHostileLayouts opens layouts that refer to files of the host or to themselves.
func TestHostileLayouts(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	replace := func(l layoutDir, name, target string) {
		if err := os.Rename(filepath.Join(l.dir, name), filepath.Join(l.dir, "moved")); err != nil {
			t.Fatal(err)
		}
		l.link(target, name)
	}
	for name, test := range map[string]struct {
		make func(layoutDir)
		err  string
	}{
		"good": {func(l layoutDir) {}, ""},
		"named twice": {func(l layoutDir) {
			m, _, _ := l.image("layer")
			l.write("index.json", index(types.OCIManifestSchema1, m, m))
		}, ""},
		"index is a device":      {func(l layoutDir) { replace(l, "index.json", "/dev/zero") }, "index.json is not a regular file"},
		"index is outside":       {func(l layoutDir) { replace(l, "index.json", secret) }, "index.json is not a regular file"},
		"index is a link within": {func(l layoutDir) { replace(l, "index.json", "moved") }, "index.json is not a regular file"},
		"index is a pipe": {func(l layoutDir) {
			replace(l, "index.json", "x")
			os.Remove(filepath.Join(l.dir, "index.json"))
			syscall.Mkfifo(filepath.Join(l.dir, "index.json"), 0o600)
		}, "index.json is not a regular file"},
		"index is huge":     {func(l layoutDir) { os.Truncate(filepath.Join(l.dir, "index.json"), 1<<40) }, "at most"},
		"blobs are outside": {func(l layoutDir) { replace(l, "blobs", filepath.Dir(secret)) }, "escapes"},
		"layer is a link": {func(l layoutDir) {
			_, _, blob := l.image("layer")
			replace(l, file(blob), "../../moved")
		}, "is not a regular file"},
		"config is another": {func(l layoutDir) {
			_, config, _ := l.image("layer")
			l.write(file(config), `{"os":"linux"}`)
		}, "the image is damaged"},
		"manifest is another": {func(l layoutDir) {
			m, _, _ := l.image("layer")
			l.write(file(m), "{}")
		}, "the image is damaged"},
		"index without end": {func(l layoutDir) {
			m, _, _ := l.image("layer")
			below := l.blob(index(types.OCIManifestSchema1, m))
			for i := range 14 {
				ten := make([]string, 10)
				for j := range ten {
					ten[j] = below
				}
				below = l.blob(index(types.OCIImageIndex, ten...) + strings.Repeat(" ", i))
			}
			l.write("index.json", index(types.OCIImageIndex, below))
		}, ""},
		"index too deep": {func(l layoutDir) {
			below := l.blob("{}")
			for i := range maxIndexes + 1 {
				below = l.blob(index(types.OCIImageIndex, below) + strings.Repeat(" ", i))
			}
			l.write("index.json", index(types.OCIImageIndex, below))
		}, "more than 1000 manifests"},
		"digest of another kind": {func(l layoutDir) {
			l.write("index.json", index(types.OCIManifestSchema1, "sha512:"+strings.Repeat("0", 128)))
		}, "sha512"},
		"digest is a path": {func(l layoutDir) {
			l.write("index.json", index(types.OCIManifestSchema1, "sha256:../../../etc/passwd"))
		}, "index.json"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayoutDir(t)
			m, _, _ := l.image("layer")
			l.write("index.json", index(types.OCIManifestSchema1, m))
			test.make(l)
			done := make(chan error, 1)
			go func() {
				img, err := openLayout(l.dir, v1.Platform{OS: "linux", Architecture: runtime.GOARCH})
				if err == nil && len(img.layers) != 1 {
					err = fmt.Errorf("%d layers", len(img.layers))
				}
				done <- err
			}()
			select {
			case err := <-done:
				if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
					t.Errorf("error %v, want %q", err, test.err)
				}
				if err != nil && strings.Contains(err.Error(), "invalid character 's'") {
					t.Errorf("it read the secret: %v", err)
				}
			case <-time.After(time.Minute):
				t.Fatal("it does not end")
			}
		})
	}
}

// TestBombGuard decompresses an endless stream.
func TestBombGuard(t *testing.T) {
	zero, err := os.Open("/dev/zero")
	if err != nil {
		t.Fatal(err)
	}
	defer zero.Close()
	in := &countingReader{r: strings.NewReader("compressed")}
	io.ReadAll(in)
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, &bombGuard{ReadCloser: zero, in: in}, make([]byte, 1<<20))
	if err == nil || !strings.Contains(err.Error(), "decompression bomb") || n > harmlessSize {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// FuzzOpenArchive opens arbitrary data as an image archive. Nothing outside of the directory may be
// read, and an image that opens must be readable.
func FuzzOpenArchive(f *testing.F) {
	pack := func(files ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := 0; i < len(files); i += 2 {
			h := &tar.Header{Typeflag: tar.TypeReg, Name: files[i], Size: int64(len(files[i+1])), Mode: 0o644}
			if target, ok := strings.CutPrefix(files[i+1], "->"); ok {
				h = &tar.Header{Typeflag: tar.TypeSymlink, Name: files[i], Linkname: target}
			}
			if err := w.WriteHeader(h); err != nil {
				f.Fatal(err)
			}
			if h.Size > 0 {
				io.WriteString(w, files[i+1])
			}
		}
		w.Close()
		return b.Bytes()
	}
	f.Add(pack("oci-layout", "{}", "index.json", "->/dev/zero"))
	f.Add(pack("oci-layout", "{}", "index.json", index(types.OCIManifestSchema1, "sha256:"+strings.Repeat("0", 64)), "blobs/sha256/"+strings.Repeat("0", 64), "{}"))
	f.Add(pack("manifest.json", `[{"Config": "c", "Layers": ["l"]}]`, "c", `{"os":"linux","rootfs":{"diff_ids":["sha256:`+strings.Repeat("0", 64)+`"]}}`, "l", "->m", "m", "x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		parent := t.TempDir()
		name := filepath.Join(parent, "archive.tar")
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(parent, "dir")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		img, err := openOCI(context.Background(), name, dir, "")
		if entries, readErr := os.ReadDir(parent); readErr != nil || len(entries) != 2 {
			t.Fatalf("beside the directory: %v, %v", entries, readErr)
		}
		if err != nil {
			return
		}
		for _, l := range img.layers {
			r, err := l.open()
			if err != nil {
				t.Fatal(err)
			}
			r.Close()
		}
	})
}
