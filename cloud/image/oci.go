package image

import (
	"archive/tar"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// ImportOCI makes a base from an OCI or Docker image. ref is a directory with an OCI layout, a file
// written by "docker save" or "podman save", or else a reference to an image in a registry, which
// must name the registry. The credentials are those of the user's Docker configuration.
//
// Layers that the store already has from another image are not read again.
func (s *Store) ImportOCI(ctx context.Context, ref string, o ImportOptions) (Base, error) {
	if err := checkBaseName(o.Name); err != nil {
		return Base{}, err
	}
	var base Base
	err := s.work(ctx, func(dir string) error {
		img, err := openOCI(ctx, ref, dir, o.Arch)
		if err != nil {
			return err
		}
		base, err = s.importImage(ctx, img, ref, o)
		return err
	})
	if err != nil {
		return Base{}, s.explain("import "+ref, err)
	}
	return base, nil
}

// ociImage is what an import uses of an image, from any source.
type ociImage struct {
	config *v1.ConfigFile
	digest string // identifies the image; may be empty
	layers []ociLayer
}

// ociLayer is one layer of an image.
type ociLayer struct {
	diffID v1.Hash // of the uncompressed tar
	digest v1.Hash // of what open returns; not set if open verifies it itself
	size   int64   // of what open returns
	open   func() (io.ReadCloser, error)
}

func (s *Store) importImage(ctx context.Context, img *ociImage, ref string, o ImportOptions) (Base, error) {
	config := img.config
	if want := cmp.Or(o.Arch, runtime.GOARCH); config.OS != "linux" || config.Architecture != want {
		return Base{}, fmt.Errorf("the image is for %s/%s and not for linux/%s", config.OS, config.Architecture, want)
	}
	ids, err := s.importLayers(ctx, img.layers, o.Progress)
	if err != nil {
		return Base{}, err
	}
	slices.Reverse(ids) // OCI lists the lowest layer first
	user := o.User
	if user == "" {
		user, _, _ = strings.Cut(config.Config.User, ":")
		if user != "" && user[0] >= '0' && user[0] <= '9' {
			user = "" // a numeric user id cannot log in
		}
	}
	source := o.Source
	if source == "" {
		source = strings.TrimSpace(ref + " " + img.digest)
	}
	b := Base{
		Name:       o.Name,
		Layers:     ids,
		Arch:       config.Architecture,
		User:       orRoot(user),
		RootDevice: rootDevice,
		Env:        config.Config.Env,
		Source:     source,
		Created:    time.Now().UTC(),
	}
	// If this fails, Collect will delete the layers.
	return b, s.SaveBase(b)
}

// importLayers makes store layers from an image's layers, several at a time, and returns their ids
// in the same order. A layer that occurs twice in the image is used once, at its upper position:
// overlayfs refuses repetitions, and the upper layer hides the lower one.
func (s *Store) importLayers(ctx context.Context, layers []ociLayer, report func(Progress)) ([]LayerID, error) {
	have, err := s.byDigest()
	if err != nil {
		return nil, err
	}
	var wanted []ociLayer
	for i, l := range layers {
		if !slices.ContainsFunc(layers[i+1:], func(above ociLayer) bool { return above.diffID == l.diffID }) {
			wanted = append(wanted, l)
		}
	}
	progress := &sharedProgress{report: report, p: Progress{Phase: "import layers"}}
	for _, l := range wanted {
		progress.p.Total += l.size
	}
	ids := make([]LayerID, len(wanted))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(3)
	for i, l := range wanted {
		if id, ok := have[l.diffID.String()]; ok {
			ids[i] = id
			progress.add(l.size)
			continue
		}
		g.Go(func() (err error) {
			if ids[i], err = s.importOCILayer(ctx, l, progress); err != nil {
				return fmt.Errorf("layer %d of %d: %w", i+1, len(wanted), err)
			}
			return nil
		})
	}
	return ids, g.Wait()
}

// importOCILayer makes one store layer and verifies its content against the image.
func (s *Store) importOCILayer(ctx context.Context, l ociLayer, progress *sharedProgress) (LayerID, error) {
	compressed, err := l.open()
	if err != nil {
		return "", err
	}
	defer compressed.Close()
	blobHash := sha256.New()
	raw := io.TeeReader(compressed, io.MultiWriter(progress, blobHash))
	content, err := decompress(raw)
	if err != nil {
		return "", err
	}
	defer content.Close()
	hash := sha256.New()
	return s.importLayer(ctx, io.TeeReader(content, hash), layerRecord{DiffID: l.diffID.String()}, func(string) error {
		if got := hex.EncodeToString(hash.Sum(nil)); got != l.diffID.Hex {
			return fmt.Errorf("its content is sha256:%s and the image says %s: the image is damaged", got, l.diffID)
		}
		if l.digest.Hex == "" {
			return nil
		}
		if _, err := io.Copy(io.Discard, raw); err != nil { // read whatever follows the compressed stream
			return err
		}
		if got := hex.EncodeToString(blobHash.Sum(nil)); got != l.digest.Hex {
			return fmt.Errorf("its file is sha256:%s and the image says %s: the image is damaged", got, l.digest)
		}
		return nil
	})
}

// sharedProgress is the total progress of several readers.
type sharedProgress struct {
	report func(Progress)

	mu sync.Mutex
	p  Progress
}

func (s *sharedProgress) add(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p.Done += n
	if s.report != nil {
		s.report(s.p)
	}
}

// Write counts b as read.
func (s *sharedProgress) Write(b []byte) (int, error) {
	s.add(int64(len(b)))
	return len(b), nil
}

// openOCI opens the image that ref refers to. It may put files into dir, which must exist as long
// as the image is used.
func openOCI(ctx context.Context, ref, dir, arch string) (*ociImage, error) {
	platform := v1.Platform{OS: "linux", Architecture: cmp.Or(arch, runtime.GOARCH)}
	info, err := os.Stat(ref)
	switch {
	case err == nil && info.IsDir():
		return openLayout(ref, platform)
	case err == nil:
		return openArchive(ref, dir, platform)
	case strings.HasPrefix(ref, "/") || strings.HasPrefix(ref, "./") || strings.HasPrefix(ref, "../") || strings.HasSuffix(ref, ".tar"):
		return nil, err
	}
	host, _, qualified := strings.Cut(ref, "/")
	if !qualified || !strings.ContainsAny(host, ".:") && host != "localhost" {
		return nil, fmt.Errorf("there is no file %q, and an image reference must include its registry, as in registry.example/%s", ref, ref)
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(r, remote.WithContext(ctx), remote.WithPlatform(platform), remote.WithAuthFromKeychain(authn.DefaultKeychain))
	if err != nil {
		return nil, err
	}
	return fromImage(img)
}

// fromImage converts the library's form of an image whose layers are compressed.
func fromImage(img v1.Image) (*ociImage, error) {
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	digest, err := img.Digest()
	if err != nil {
		return nil, err
	}
	layers, err := img.Layers()
	if err != nil {
		return nil, err
	}
	out := &ociImage{config: config, digest: digest.String()}
	for _, l := range layers {
		diffID, err := l.DiffID()
		if err != nil {
			return nil, err
		}
		size, err := l.Size()
		if err != nil {
			return nil, err
		}
		out.layers = append(out.layers, ociLayer{diffID: diffID, size: size, open: l.Compressed})
	}
	return out, nil
}

// openArchive opens a tar file with an OCI layout or in the format of "docker save". It unpacks the
// files into dir, because layers are read in any order.
func openArchive(file, dir string, platform v1.Platform) (*ociImage, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := decompress(f)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	unpacked := filepath.Join(dir, "archive")
	if err := unpackFiles(content, unpacked); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if _, err := os.Lstat(filepath.Join(unpacked, "oci-layout")); err == nil {
		img, err := openLayout(unpacked, platform)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return img, nil
	}
	if _, err := os.Lstat(filepath.Join(unpacked, "manifest.json")); err == nil {
		img, err := openDockerArchive(unpacked)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		return img, nil
	}
	return nil, fmt.Errorf("%s: not an image: it has neither an oci-layout nor a manifest.json at its top", file)
}

// maxDocument limits the size of an image's JSON documents.
const maxDocument = 4 << 20

// imageDir is a directory with the files of an image. The files are untrusted: no file outside of
// the directory is read.
type imageDir string

// open opens a regular file and returns its size. If follow is set, the name may be a link to a
// file in the directory.
func (d imageDir) open(name string, follow bool) (*os.File, int64, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	name = filepath.Clean(name)
	if info, err := root.Lstat(name); err != nil {
		return nil, 0, err
	} else if !info.Mode().IsRegular() && !(follow && info.Mode().Type() == os.ModeSymlink) {
		return nil, 0, fmt.Errorf("%s is not a regular file", name)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // O_NONBLOCK, because a FIFO would block
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// document reads a JSON document into v. If want is set, it verifies the document's digest.
func (d imageDir) document(name string, want v1.Hash, v any) error {
	f, size, err := d.open(name, false)
	if err != nil {
		return err
	}
	defer f.Close()
	if size > maxDocument {
		return fmt.Errorf("%s has %d bytes; at most %d are read", name, size, maxDocument)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxDocument))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); want.Hex != "" && got != want.Hex {
		return fmt.Errorf("the content of %s is sha256:%s and the image says %s: the image is damaged", name, got, want)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// blob returns the name of the file with a digest in an OCI layout.
func blob(h v1.Hash) (string, error) {
	sum, err := hex.DecodeString(h.Hex)
	if err != nil || h.Algorithm != "sha256" || len(sum) != sha256.Size {
		return "", fmt.Errorf("the digest %q has an unsupported algorithm", h)
	}
	return "blobs/sha256/" + h.Hex, nil
}

// blobDocument reads the JSON document with a digest.
func (d imageDir) blobDocument(h v1.Hash, v any) error {
	name, err := blob(h)
	if err != nil {
		return err
	}
	return d.document(name, h, v)
}

// openDockerArchive opens an unpacked "docker save" file, which must contain one image.
func openDockerArchive(dir string) (*ociImage, error) {
	d := imageDir(dir)
	var manifest []struct {
		Config string
		Layers []string
	}
	if err := d.document("manifest.json", v1.Hash{}, &manifest); err != nil {
		return nil, err
	}
	if len(manifest) != 1 {
		return nil, fmt.Errorf("the archive contains %d images, and must contain one", len(manifest))
	}
	// The file name of the configuration is its digest.
	var digest v1.Hash
	base := strings.TrimSuffix(path.Base(manifest[0].Config), ".json")
	if _, err := hex.DecodeString(base); err == nil && len(base) == 2*sha256.Size {
		digest = v1.Hash{Algorithm: "sha256", Hex: strings.ToLower(base)}
	}
	out := &ociImage{config: &v1.ConfigFile{}}
	if err := d.document(manifest[0].Config, digest, out.config); err != nil {
		return nil, err
	}
	diffIDs := out.config.RootFS.DiffIDs
	if len(diffIDs) != len(manifest[0].Layers) {
		return nil, fmt.Errorf("the archive lists %d layers and its configuration %d", len(manifest[0].Layers), len(diffIDs))
	}
	for i, name := range manifest[0].Layers {
		// Older archives use a link for a repeated layer.
		l, err := d.layer(name, true)
		if err != nil {
			return nil, err
		}
		l.diffID = diffIDs[i]
		out.layers = append(out.layers, l)
	}
	return out, nil
}

// layer returns the layer in a file.
func (d imageDir) layer(name string, follow bool) (ociLayer, error) {
	f, size, err := d.open(name, follow)
	if err != nil {
		return ociLayer{}, err
	}
	return ociLayer{size: size, open: func() (io.ReadCloser, error) {
		f, _, err := d.open(name, follow)
		return f, err
	}}, f.Close()
}

// unpackFiles extracts the regular files and symbolic links of an archive into dir. Nothing is
// written outside of dir.
func unpackFiles(r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		if h.Typeflag != tar.TypeReg && h.Typeflag != tar.TypeSymlink {
			continue
		}
		if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeSymlink {
			if err := root.Symlink(h.Linkname, name); err != nil {
				return err
			}
			continue
		}
		f, err := root.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, tr)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}

// openLayout opens the image for a platform in an OCI layout; there must be only one.
func openLayout(dir string, platform v1.Platform) (*ociImage, error) {
	d := imageDir(dir)
	var index v1.IndexManifest
	if err := d.document("index.json", v1.Hash{}, &index); err != nil {
		return nil, fmt.Errorf("%s: the directory contains no OCI image: %w", dir, err)
	}
	seen := map[v1.Hash]bool{}
	found, err := d.imagesFor(&index, platform, seen)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s: it contains %d images for %s/%s, and must contain one", dir, len(found), platform.OS, platform.Architecture)
	}
	return d.image(found[0])
}

// imagesFor returns the digests of the images for a platform from an index and its nested indexes,
// without duplicates. seen holds the indexes that were visited, because an index may refer to
// another one any number of times.
func (d imageDir) imagesFor(index *v1.IndexManifest, platform v1.Platform, seen map[v1.Hash]bool) ([]v1.Hash, error) {
	var found []v1.Hash
	for _, desc := range index.Manifests {
		if seen[desc.Digest] {
			continue
		}
		switch {
		case desc.MediaType.IsIndex():
			seen[desc.Digest] = true
			if len(seen) > maxIndexes {
				return nil, fmt.Errorf("the image has more than %d manifests", maxIndexes)
			}
			var sub v1.IndexManifest
			if err := d.blobDocument(desc.Digest, &sub); err != nil {
				return nil, err
			}
			below, err := d.imagesFor(&sub, platform, seen)
			if err != nil {
				return nil, err
			}
			found = append(found, below...)
		case desc.MediaType.IsImage() && (desc.Platform == nil || desc.Platform.Satisfies(platform)):
			seen[desc.Digest] = true
			found = append(found, desc.Digest)
		}
	}
	return found, nil
}

// maxIndexes limits the number of manifests of a layout that are read, and so the depth of nested
// indexes.
const maxIndexes = 1000

// image opens the image whose manifest has that digest.
func (d imageDir) image(digest v1.Hash) (*ociImage, error) {
	var manifest v1.Manifest
	if err := d.blobDocument(digest, &manifest); err != nil {
		return nil, err
	}
	out := &ociImage{config: &v1.ConfigFile{}, digest: digest.String()}
	if err := d.blobDocument(manifest.Config.Digest, out.config); err != nil {
		return nil, err
	}
	diffIDs := out.config.RootFS.DiffIDs
	if len(diffIDs) != len(manifest.Layers) {
		return nil, fmt.Errorf("the manifest lists %d layers and the configuration %d", len(manifest.Layers), len(diffIDs))
	}
	for i, desc := range manifest.Layers {
		name, err := blob(desc.Digest)
		if err != nil {
			return nil, err
		}
		l, err := d.layer(name, false)
		if err != nil {
			return nil, err
		}
		l.diffID, l.digest = diffIDs[i], desc.Digest
		out.layers = append(out.layers, l)
	}
	return out, nil
}
