package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"bake/cloud/image"
	"bake/cloud/image/debian/debiantest"
	"bake/cloud/machine/sandbox"
)

func TestImportTar(t *testing.T) {
	plain := archive(t, "bin/sh", "etc/os-release")
	for _, compression := range []string{"", "gz", "xz", "zst"} {
		t.Run("compression "+compression, func(t *testing.T) {
			s := openStore(t, t.TempDir())
			var last image.Progress
			data := debiantest.Compress(t, compression, plain)
			b, err := s.ImportTar(t.Context(), bytes.NewReader(data), image.ImportOptions{
				Name: "mine", User: "ops", Source: "a file", Size: int64(len(data)), Progress: func(p image.Progress) { last = p },
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := layerFiles(t, s, b.Layers[0]); got != "bin/sh\netc/os-release" {
				t.Errorf("it holds %q", got)
			}
			if b.User != "ops" || b.Arch != runtime.GOARCH || b.RootDevice != "/dev/xvda" {
				t.Errorf("base %+v", b)
			}
			if saved, err := s.Base("mine"); err != nil || !cmp.Equal(saved, b) {
				t.Errorf("saved %+v, %v", saved, err)
			}
			if last.Done != last.Total || last.Total != int64(len(data)) {
				t.Errorf("the last report is %+v", last)
			}
		})
	}
}

func TestImportTarErrors(t *testing.T) {
	good := archive(t, "bin/sh")
	xz := debiantest.Compress(t, "xz", good)
	for name, test := range map[string]struct {
		data []byte
		base string
		err  string
	}{
		"bad name":   {good, "My Base", "use lower-case letters"},
		"not a root": {archive(t, "rootfs/bin/sh"), "b", "no root file system"},
		"no archive": {[]byte(strings.Repeat("hello ", 200)), "b", "the file is neither a tar archive nor a disk image that bake recognizes: import a tar archive of a root file system, or"},
		"short":      {[]byte("hello"), "b", "is neither a tar archive nor a disk image"},
		"empty":      {nil, "b", "the file is empty: import a tar archive"},
		"cut":        {xz[:len(xz)/2], "b", "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			_, err := s.ImportTar(t.Context(), bytes.NewReader(test.data), image.ImportOptions{Name: test.base})
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if left := listing(t, dir); left != "lock" && left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// ociLayer returns a layer in the image library's form.
func ociLayer(t *testing.T, content []byte) v1.Layer {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// ociImage returns an image with these layers, lowest first.
func ociImage(t *testing.T, arch, user string, layers ...[]byte) v1.Image {
	t.Helper()
	img := empty.Image
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.User, config.Config.Env = "linux", arch, user, []string{"PATH=/bin"}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		if img, err = mutate.AppendLayers(img, ociLayer(t, l)); err != nil {
			t.Fatal(err)
		}
	}
	return img
}

// startRegistry starts a registry and returns its host and port.
func startRegistry(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

func push(t *testing.T, ref string, img v1.Image) {
	t.Helper()
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, img); err != nil {
		t.Fatal(err)
	}
}

// TestImportOCI imports an image from every kind of source.
func TestImportOCI(t *testing.T) {
	img := ociImage(t, runtime.GOARCH, "ops:ops", archive(t, "bin/sh", "etc/a"), archive(t, "etc/b"))
	ref := startRegistry(t) + "/team/app:v1"
	push(t, ref, img)
	dir := t.TempDir()

	layoutDir := filepath.Join(dir, "layout")
	path, err := layout.Write(layoutDir, empty.Index)
	if err == nil {
		err = path.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	}
	if err == nil { // the image is for another architecture
		err = path.AppendImage(ociImage(t, "s390x", "", archive(t, "bin/sh")), layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "s390x"}))
	}
	if err != nil {
		t.Fatal(err)
	}
	dockerFile := filepath.Join(dir, "docker.tar")
	tag, err := name.NewTag("registry.example/app:v1")
	if err == nil {
		err = tarball.WriteToFile(dockerFile, tag, img)
	}
	if err != nil {
		t.Fatal(err)
	}
	ociFile := filepath.Join(dir, "oci.tar.gz")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.AddFS(os.DirFS(layoutDir)), w.Close(), os.WriteFile(ociFile, debiantest.Compress(t, "gz", b.Bytes()), 0o644)); err != nil {
		t.Fatal(err)
	}

	for place, ref := range map[string]string{"registry": ref, "OCI layout": layoutDir, "Docker file": dockerFile, "OCI file": ociFile} {
		t.Run(place, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			var last image.Progress
			base, err := s.ImportOCI(t.Context(), ref, image.ImportOptions{Name: "app", Progress: func(p image.Progress) { last = p }})
			if err != nil {
				t.Fatal(err)
			}
			var layers []string
			for _, id := range base.Layers {
				layers = append(layers, layerFiles(t, s, id))
			}
			if d := cmp.Diff([]string{"etc/b", "bin/sh\netc/a"}, layers); d != "" {
				t.Errorf("layers (-want +got):\n%s", d)
			}
			if base.User != "ops" || base.Arch != runtime.GOARCH || !slices.Equal(base.Env, []string{"PATH=/bin"}) || !strings.HasPrefix(base.Source, ref) {
				t.Errorf("base %+v", base)
			}
			if last.Done != last.Total || last.Total == 0 {
				t.Errorf("the last report is %+v", last)
			}
			if left := listing(t, filepath.Join(dir, "tmp")); left != "" {
				t.Errorf("left in tmp: %s", left)
			}
		})
	}
}

func TestImportOCISharesLayers(t *testing.T) {
	host := startRegistry(t)
	common := archive(t, "bin/sh")
	push(t, host+"/a:1", ociImage(t, runtime.GOARCH, "1000", common, archive(t, "a")))
	// The common layer occurs twice, and one other layer is new.
	push(t, host+"/b:1", ociImage(t, runtime.GOARCH, "", common, archive(t, "b"), common))
	s := openStore(t, t.TempDir())
	a, err := s.ImportOCI(t.Context(), host+"/a:1", image.ImportOptions{Name: "a"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.ImportOCI(t.Context(), host+"/b:1", image.ImportOptions{Name: "b", User: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Layers) != 2 || b.Layers[0] != a.Layers[1] || layerFiles(t, s, b.Layers[1]) != "b" {
		t.Errorf("a is %v and b is %v", a.Layers, b.Layers)
	}
	if a.User != "root" || b.User != "me" {
		t.Errorf("users %q and %q", a.User, b.User)
	}
}

func TestImportOCIErrors(t *testing.T) {
	host := startRegistry(t)
	push(t, host+"/foreign:1", ociImage(t, "s390x", "", archive(t, "bin/sh")))
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// A layer whose content does not match the image's digest.
	docker := func(layer []byte, manifest string) []byte {
		config, err := json.Marshal(v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers",
			DiffIDs: []v1.Hash{{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}}}})
		if err != nil {
			t.Fatal(err)
		}
		files := map[string]string{"layer.tar": string(layer), "config.json": string(config), "manifest.json": manifest}
		var entries []tar.Header
		for name := range files {
			entries = append(entries, tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644})
		}
		entries = append(entries, tar.Header{Typeflag: tar.TypeSymlink, Name: "outside.tar", Linkname: "/etc/passwd"})
		return debiantest.Tar(t, entries, func(name string) string { return files[name] })
	}
	one := `[{"Config": "config.json", "Layers": ["layer.tar"]}]`
	for name, test := range map[string]struct{ ref, err string }{
		"no registry":         {"debian:12", `there is no file "debian:12", and an image reference must include its registry, as in registry.example/debian:12`},
		"no registry, a path": {"library/debian:12", "an image reference must include its registry"},
		"no such file":        {"./image.tar", "no such file"},
		"no such image":       {host + "/nothing:1", "NAME_UNKNOWN"},
		"bad reference":       {host + "/UPPER:1", "UPPER"},
		"another platform":    {host + "/foreign:1", "for linux/s390x"},
		"directory":           {t.TempDir(), "contains no OCI image"},
		"not an image":        {write("root.tar", archive(t, "bin/sh")), "not an image"},
		"damaged layer":       {write("damaged.tar", docker(archive(t, "bin/sh"), one)), "the image is damaged"},
		"two images":          {write("two.tar", docker(nil, `[{}, {}]`)), "2 images, and must contain one"},
		"no config":           {write("noconfig.tar", docker(nil, `[{"Config": "../config.json"}]`)), "escapes"},
		"layer outside":       {write("outside.tar", docker(nil, `[{"Config": "config.json", "Layers": ["outside.tar"]}]`)), "escapes"},
		"layers miscounted":   {write("count.tar", docker(nil, `[{"Config": "config.json", "Layers": []}]`)), "lists 0 layers and its configuration 1"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			_, err := s.ImportOCI(t.Context(), test.ref, image.ImportOptions{Name: "b"})
			if err == nil || !strings.Contains(err.Error(), test.err) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if left := listing(t, dir); left != "lock" && left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

// TestImportOCIWhiteouts imports an image that deletes files, with the real driver, and checks the
// deletions in the layer.
func TestImportOCIWhiteouts(t *testing.T) {
	if os.Getenv("BAKE_TEST_MACHINES") == "" {
		t.Skip("set BAKE_TEST_MACHINES=1 to unpack layers with the driver of real machines")
	}
	dir, err := os.MkdirTemp("", "whiteouts-")
	if err != nil {
		t.Fatal(err)
	}
	driver, err := sandbox.New(sandbox.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := driver.Remove(t.Context(), dir); err != nil {
			t.Error(err)
		}
	})
	s, err := image.Open(dir, driver)
	if err != nil {
		t.Fatal(err)
	}
	ref := startRegistry(t) + "/app:1"
	push(t, ref, ociImage(t, runtime.GOARCH, "", archive(t, "bin/sh", "etc/a", "d/x"), archive(t, "etc/.wh.a", "d/.wh..wh..opq", "d/y")))
	base, err := s.ImportOCI(t.Context(), ref, image.ImportOptions{Name: "app"})
	if err != nil {
		t.Fatal(err)
	}
	top, err := s.Path(base.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	if err := driver.Pack(t.Context(), top, &packed); err != nil {
		t.Fatal(err)
	}
	var names []string
	for r := tar.NewReader(&packed); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		if h.Typeflag != tar.TypeDir {
			names = append(names, h.Name)
		}
	}
	slices.Sort(names)
	if d := cmp.Diff([]string{"d/.wh..wh..opq", "d/y", "etc/.wh.a"}, names); d != "" {
		t.Errorf("names (-want +got):\n%s", d)
	}
	info, err := os.Lstat(filepath.Join(top, "etc/a"))
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		t.Errorf("the deletion of /etc/a is %v, %v", info, err)
	}
}
