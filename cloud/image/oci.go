package image

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"
)

// ImportOCI makes a base of an OCI or Docker image. Ref is a directory with an
// OCI layout, a file that "docker save" or "podman save" wrote, or else a
// reference to an image in a registry, which must name the registry. The
// credentials for it are those of the user's Docker configuration.
//
// Layers that the store already has from another image are not read again.
func (s *Store) ImportOCI(ctx context.Context, ref string, o ImportOptions) (Base, error) {
	if err := checkBaseName(o.Name); err != nil {
		return Base{}, err
	}
	var base Base
	err := s.work(ctx, func(dir string) error {
		img, err := openOCI(ctx, ref, dir)
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

// ociImage is what is needed of an image, wherever it is.
type ociImage struct {
	config *v1.ConfigFile
	digest string // of what identifies it, or ""
	layers []ociLayer
}

// ociLayer is one layer of an image.
type ociLayer struct {
	diffID v1.Hash // of the uncompressed tar
	size   int64   // of what open returns
	open   func() (io.ReadCloser, error)
}

func (s *Store) importImage(ctx context.Context, img *ociImage, ref string, o ImportOptions) (Base, error) {
	config := img.config
	if config.OS != "linux" || config.Architecture != runtime.GOARCH {
		return Base{}, fmt.Errorf("the image is for %s/%s and this host runs linux/%s", config.OS, config.Architecture, runtime.GOARCH)
	}
	ids, err := s.importLayers(ctx, img.layers, o.Progress)
	if err != nil {
		return Base{}, err
	}
	slices.Reverse(ids) // OCI lists the lowest first
	user := o.User
	if user == "" {
		user, _, _ = strings.Cut(config.Config.User, ":")
		if user != "" && user[0] >= '0' && user[0] <= '9' {
			user = "" // a number, which nobody can log in with
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
	// If this fails, the layers have no owner and Collect finds them.
	return b, s.SaveBase(b)
}

// importLayers makes store layers of an image's layers, some at a time, and
// returns their ids in the same order. A layer that the image has twice counts
// once, at its upper place: overlayfs refuses repeats, and the lower one is
// hidden by the upper.
func (s *Store) importLayers(ctx context.Context, layers []ociLayer, report func(Progress)) ([]LayerID, error) {
	records, err := s.records()
	if err != nil {
		return nil, err
	}
	have := map[string]LayerID{}
	for _, r := range records {
		if r.DiffID != "" {
			have[r.DiffID] = r.ID
		}
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

// importOCILayer makes one store layer and checks that its content is what the
// image says.
func (s *Store) importOCILayer(ctx context.Context, l ociLayer, progress *sharedProgress) (LayerID, error) {
	compressed, err := l.open()
	if err != nil {
		return "", err
	}
	defer compressed.Close()
	content, err := decompress(io.TeeReader(compressed, progress))
	if err != nil {
		return "", err
	}
	defer content.Close()
	hash := sha256.New()
	return s.importLayer(ctx, io.TeeReader(content, hash), layerRecord{DiffID: l.diffID.String()}, func(string) error {
		if got := hex.EncodeToString(hash.Sum(nil)); got != l.diffID.Hex {
			return fmt.Errorf("its content is sha256:%s and the image says %s: the image is damaged", got, l.diffID)
		}
		return nil
	})
}

// sharedProgress adds up what several readers read.
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

// openOCI finds the image that ref means. It may put files into dir, which must
// outlive the image.
func openOCI(ctx context.Context, ref, dir string) (*ociImage, error) {
	platform := v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
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
		return nil, fmt.Errorf("%q names neither a file nor a registry: write the registry too, such as registry.example/%s", ref, ref)
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

// fromImage takes what is needed from the library's form of an image whose
// layers are stored compressed.
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
		out.layers = append(out.layers, ociLayer{diffID, size, l.Compressed})
	}
	return out, nil
}

// openArchive opens a tar file that holds an OCI layout or is in the format of
// "docker save". Its files are unpacked into dir, since layers are read in
// whatever order.
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
	if _, err := os.Stat(filepath.Join(unpacked, "oci-layout")); err == nil {
		return openLayout(unpacked, platform)
	}
	if _, err := os.Stat(filepath.Join(unpacked, "manifest.json")); err == nil {
		return openDockerArchive(unpacked)
	}
	return nil, fmt.Errorf("%s: it is no image: it has neither an oci-layout nor a manifest.json at its top", file)
}

// openDockerArchive opens the unpacked form of a "docker save" file with one
// image.
func openDockerArchive(dir string) (*ociImage, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var manifest []struct {
		Config string
		Layers []string
	}
	b, err := root.ReadFile("manifest.json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &manifest); err != nil {
		return nil, fmt.Errorf("manifest.json: %w", err)
	}
	if len(manifest) != 1 {
		return nil, fmt.Errorf("the archive holds %d images where one is wanted", len(manifest))
	}
	out := &ociImage{config: &v1.ConfigFile{}}
	if b, err = root.ReadFile(filepath.Clean(manifest[0].Config)); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, out.config); err != nil {
		return nil, fmt.Errorf("%s: %w", manifest[0].Config, err)
	}
	diffIDs := out.config.RootFS.DiffIDs
	if len(diffIDs) != len(manifest[0].Layers) {
		return nil, fmt.Errorf("the archive lists %d layers and its configuration %d", len(manifest[0].Layers), len(diffIDs))
	}
	for i, name := range manifest[0].Layers {
		// Older archives name a layer that they have already by a link to it.
		info, err := root.Stat(filepath.Clean(name)) // fails when it leads outside
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, filepath.Clean(name))
		out.layers = append(out.layers, ociLayer{diffIDs[i], info.Size(), func() (io.ReadCloser, error) { return os.Open(path) }})
	}
	return out, nil
}

// unpackFiles writes the regular files and symbolic links of an archive below
// dir and nowhere else.
func unpackFiles(r io.Reader, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if err == io.EOF {
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

// openLayout opens the only image for the platform of an OCI layout.
func openLayout(dir string, platform v1.Platform) (*ociImage, error) {
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: it holds no OCI image: %w", dir, err)
	}
	found, err := imagesFor(index, platform)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		return nil, fmt.Errorf("%s: it holds %d images for %s/%s where one is wanted", dir, len(found), platform.OS, platform.Architecture)
	}
	return fromImage(found[0])
}

// imagesFor collects the images for a platform from an index and the indexes
// below it.
func imagesFor(index v1.ImageIndex, platform v1.Platform) ([]v1.Image, error) {
	manifest, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var found []v1.Image
	for _, d := range manifest.Manifests {
		switch {
		case d.MediaType.IsIndex():
			sub, err := index.ImageIndex(d.Digest)
			if err != nil {
				return nil, err
			}
			below, err := imagesFor(sub, platform)
			if err != nil {
				return nil, err
			}
			found = append(found, below...)
		case d.MediaType.IsImage() && (d.Platform == nil || d.Platform.Satisfies(platform)):
			img, err := index.Image(d.Digest)
			if err != nil {
				return nil, err
			}
			found = append(found, img)
		}
	}
	return found, nil
}
