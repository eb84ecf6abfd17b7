// Package cloudtest serves an embedded cloud with fake machines, for tests of EC2 clients.
package cloudtest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/confined"
	"bake/cloud/image"
	"bake/cloud/image/disk"
	"bake/cloud/machine/machinetest"
)

// Server is a cloud served on a loopback address.
type Server struct {
	*cloud.Cloud
	URL    string
	Driver *machinetest.Driver
	Images *Images
}

// Start serves a cloud until the test ends. Options that are not set get defaults: a new directory,
// a fake driver, and the images of [NewImages].
func Start(t testing.TB, opts cloud.Options) *Server {
	t.Helper()
	s, err := Open(t.Context(), t.TempDir, opts)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.URL = "http://" + l.Addr().String()
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(s.Close(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Open is like Start, for tests that serve and close the cloud themselves. newDir creates a
// directory.
func Open(ctx context.Context, newDir func() string, opts cloud.Options) (*Server, error) {
	s := &Server{}
	if opts.Dir == "" {
		opts.Dir = newDir()
	}
	if opts.Driver == nil {
		opts.Driver = &machinetest.Driver{}
	}
	if opts.Images == nil {
		opts.Images = NewImages(filepath.Join(opts.Dir, "layers"))
	}
	s.Driver, _ = opts.Driver.(*machinetest.Driver)
	s.Images, _ = opts.Images.(*Images)
	var err error
	s.Cloud, err = cloud.Open(ctx, opts)
	return s, err
}

// Config returns a configuration for clients of an account, given by its profile, in a region. The
// clients do not retry.
func (s *Server) Config(profile, region string) aws.Config {
	for _, c := range s.Credentials() {
		if c.Profile == profile {
			return aws.Config{
				Region: region, BaseEndpoint: aws.String(s.URL), Retryer: func() aws.Retryer { return aws.NopRetryer{} },
				HTTPClient:  &http.Client{Transport: plainBodies{&http.Transport{}}},
				Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, ""),
			}
		}
	}
	panic("there is no profile " + profile)
}

// plainBodies sends request bodies without their WriteTo method. The SDK closes a body as soon as
// the response begins, which makes WriteTo fail with io.EOF. If the transport has not yet reached
// the end of the body by then, it closes the connection, and the rest of the response is lost.
type plainBodies struct{ http.RoundTripper }

func (p plainBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r = r.WithContext(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return p.RoundTripper.RoundTrip(r)
}

// EC2 returns an EC2 client of an account, given by its profile, in a region. It does not retry.
func (s *Server) EC2(profile, region string) *ec2.Client {
	return ec2.NewFromConfig(s.Config(profile, region))
}

// Images is an image store in which each base has one empty layer.
type Images struct {
	dir string

	// EnsureError, if not nil, is called by Ensure, and its error is returned.
	EnsureError func(ctx context.Context, base string) error

	// Cloning, if not nil, is called before the disk of a running machine is copied. Flushing, if
	// not nil, is called instead of a flush.
	Cloning, Flushing func() error

	// Storing and Restoring, if not nil, are called while StoreImage and RestoreImage are halfway
	// through a file.
	Storing, Restoring func() error

	// Exporting, if not nil, is called before a disk is exported.
	Exporting func() error

	mu           sync.Mutex
	publications []cloud.Publication
}

var _ cloud.Images = (*Images)(nil)

// NewImages returns a store in dir with one Debian image, as published on EC2.
func NewImages(dir string) *Images {
	return &Images{dir: dir, publications: []cloud.Publication{{
		Owner: "136693071363", Name: "debian-12-amd64-20250316-2053", Description: "Debian 12 (20250316-2053)", Architecture: "x86_64",
		Created: time.Date(2025, 3, 16, 20, 53, 0, 0, time.UTC), Base: "debian-12", User: "admin", Size: 8,
		Parameters: []string{"/aws/service/debian/release/12/20250316-2053/amd64", "/aws/service/debian/release/12/latest/amd64"},
	}}}
}

// Publish adds a publication.
func (i *Images) Publish(p cloud.Publication) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.publications = append(i.publications, p)
}

// Publications implements [cloud.Images].
func (i *Images) Publications() ([]cloud.Publication, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]cloud.Publication(nil), i.publications...), nil
}

// Recall implements [cloud.Images]. It finds nothing.
func (i *Images) Recall(string) (string, error) { return "", nil }

// Ensure implements [cloud.Images].
func (i *Images) Ensure(ctx context.Context, base string, progress func(cloud.Progress)) ([]string, error) {
	if i.EnsureError != nil {
		if err := i.EnsureError(ctx, base); err != nil {
			return nil, err
		}
	}
	progress(cloud.Progress{Base: base, Phase: "make", Done: 1, Total: 1})
	id := "base-" + base
	return []string{id}, os.MkdirAll(filepath.Join(i.dir, id), 0o755)
}

// NewID implements [cloud.Images].
func (i *Images) NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return "layer-" + hex.EncodeToString(b[:])
}

// Freeze implements [cloud.Images].
func (i *Images) Freeze(_ context.Context, id string, dir confined.Dir) error {
	if err := os.MkdirAll(i.dir, 0o755); err != nil {
		return err
	}
	return dir.Rename(filepath.Join(i.dir, id))
}

// Clone implements [cloud.Images].
func (i *Images) Clone(_ context.Context, dir confined.Dir) (string, error) {
	if i.Cloning != nil {
		if err := i.Cloning(); err != nil {
			return "", err
		}
	}
	id := i.NewID()
	return id, os.CopyFS(filepath.Join(i.dir, id), os.DirFS(dir.Path()))
}

// Flush implements [cloud.Images]. It writes nothing: a test's layers need not survive a crash of
// the host.
func (i *Images) Flush() error {
	if i.Flushing != nil {
		return i.Flushing()
	}
	return nil
}

// Hold implements [cloud.Images]. Collect never deletes anything.
func (i *Images) Hold(context.Context) (release func(), err error) { return func() {}, nil }

// ImportDisk implements [cloud.Images]. The layer contains the image as a file named disk.
func (i *Images) ImportDisk(_ context.Context, image *os.File, format string) (cloud.ImportedDisk, error) {
	data, err := io.ReadAll(image)
	if err != nil || !slices.Contains(disk.Formats, format) {
		return cloud.ImportedDisk{}, errors.Join(fmt.Errorf("no image in the format %q", format), err)
	}
	id := i.NewID()
	if err := os.MkdirAll(filepath.Join(i.dir, id), 0o755); err != nil {
		return cloud.ImportedDisk{}, err
	}
	return cloud.ImportedDisk{Layer: id, User: "root", Size: int64(len(data))}, os.WriteFile(filepath.Join(i.dir, id, "disk"), data, 0o600)
}

// ExportDisk implements [cloud.Images]. The disk begins with the layer ids.
func (i *Images) ExportDisk(_ context.Context, layers []string, size int64, report func(done, of int64), use func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(i.dir), "disk")
	if err != nil {
		return err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }() // the test's directory is deleted anyway
	report(1, 2)
	if i.Exporting != nil {
		if err := i.Exporting(); err != nil {
			return err
		}
	}
	_, err = f.WriteString(strings.Join(layers, " "))
	if err = errors.Join(err, f.Truncate(min(size, 1<<20))); err != nil {
		return err
	}
	return use(f)
}

// StoreImage implements [cloud.Images].
func (i *Images) StoreImage(_ context.Context, w io.Writer, about []byte, layers []string, report func(done, of int64)) error {
	var stored []image.StoredLayer
	total := int64(0)
	for _, id := range layers {
		var packed bytes.Buffer
		t := tar.NewWriter(&packed)
		if err := errors.Join(t.AddFS(os.DirFS(filepath.Join(i.dir, id))), t.Close()); err != nil {
			return err
		}
		total += int64(packed.Len())
		stored = append(stored, image.StoredLayer{Size: int64(packed.Len()), Pack: func(w io.Writer) error {
			if i.Storing != nil {
				if err := i.Storing(); err != nil {
					return err
				}
			}
			_, err := packed.WriteTo(w)
			return err
		}})
	}
	return image.WriteStored(w, about, stored, func(n int64) { report(n, total) })
}

// About implements [cloud.Images].
func (i *Images) About(r io.Reader) ([]byte, error) { return image.ReadAbout(r) }

// RestoreImage implements [cloud.Images].
func (i *Images) RestoreImage(_ context.Context, r io.Reader) (made []string, err error) {
	err = image.ReadStored(r, func(_ string, layer io.Reader) error {
		id := i.NewID()
		dir := filepath.Join(i.dir, id)
		made = append(made, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		if err := unpack(root, layer); err != nil || i.Restoring == nil {
			return err
		}
		return i.Restoring()
	})
	if err == nil {
		return made, nil
	}
	for _, id := range made {
		err = errors.Join(err, os.RemoveAll(filepath.Join(i.dir, id)))
	}
	return nil, err
}

// unpack extracts the directories and files of an archive.
func unpack(root *os.Root, archive io.Reader) error {
	for t := tar.NewReader(archive); ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case h.Typeflag == tar.TypeDir:
			err = root.MkdirAll(h.Name, 0o755)
		default:
			var data []byte
			if data, err = io.ReadAll(t); err == nil {
				err = errors.Join(root.MkdirAll(filepath.Dir(h.Name), 0o755), root.WriteFile(h.Name, data, 0o644))
			}
		}
		if err != nil {
			return err
		}
	}
}

// Paths implements [cloud.Images].
func (i *Images) Paths(layers []string) ([]string, error) {
	var out []string
	for _, id := range layers {
		name := filepath.Join(i.dir, id)
		if _, err := os.Stat(name); err != nil {
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		out = append(out, name)
	}
	return out, nil
}

// Layers returns the ids of all layers.
func (i *Images) Layers() ([]string, error) {
	entries, err := os.ReadDir(i.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, err
}

// Size implements [cloud.Images]. It is the total size of the files.
func (i *Images) Size(_ context.Context, id string) (size int64, err error) {
	err = fs.WalkDir(os.DirFS(i.dir), id, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

// InBases implements [cloud.Images].
func (i *Images) InBases(layers []string) (map[string]bool, error) {
	in := map[string]bool{}
	for _, id := range layers {
		in[id] = strings.HasPrefix(id, "base-")
	}
	return in, nil
}

// Collect implements [cloud.Images]. It deletes nothing: a test's layers are always recent.
func (i *Images) Collect(context.Context, func() (layers, bases []string)) error { return nil }
