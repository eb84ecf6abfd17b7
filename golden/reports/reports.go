// Package reports stores the documents about images in a directory or a bucket: under names
// for people, which the next run may reuse, and under their digests, which are in tags of the
// images.
package reports

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"bake/internal/hostpath"
	"bake/internal/imagetag"
	"bake/internal/wholefile"
)

// The tags of images that hold the SHA-256 of a document.
const (
	SBOM        = "bake:sbom"
	Manifest    = "bake:manifest"    // the list of the image's files
	Attestation = "bake:attestation" //
	Record      = "bake:report"      // the list of all other documents
)

// Run is the tag of images that holds the ID of the run whose reports have these documents. It
// stays when the image is finished, and copies have it too.
const Run = imagetag.Reports

// byDigest is the directory of documents whose names are their digests.
const byDigest = "sha256"

// Logs is the directory of logs. In a local directory, only the owner may read it, like
// the state of runs.
const Logs = "logs"

// Digest returns the SHA-256 of a document.
func Digest(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

// Bucket stores documents independently of this host.
type Bucket interface {
	// Put stores a document under a name, completely or not at all.
	Put(ctx context.Context, name string, text []byte) error

	// Get returns the document with a name, of at most limit bytes. If it does not exist,
	// the error is an [fs.ErrNotExist].
	Get(ctx context.Context, name string, limit int64) ([]byte, error)

	// String returns the location, for people.
	String() string
}

// Store stores documents in a directory and, unless Bucket is nil, in a bucket. With a
// bucket, the directory holds what was written or read on this host.
type Store struct {
	Dir    string
	Bucket Bucket
}

// String returns the location of the documents, for people.
func (s Store) String() string {
	if s.Bucket != nil {
		return s.Bucket.String()
	}
	return s.Dir
}

// Path returns the path of the document with that digest on this host.
func (s Store) Path(digest string) string { return filepath.Join(s.Dir, byDigest, digest) }

// At returns the location of the document with a name, for people.
func (s Store) At(name string) string {
	if s.Bucket != nil {
		return s.Bucket.String() + "/" + name
	}
	return filepath.Join(s.Dir, name)
}

// Keep writes a document under its digest, which it returns, and under a name.
func (s Store) Keep(ctx context.Context, name string, text []byte) (digest string, err error) {
	digest = Digest(text)
	if err := s.Write(ctx, byDigest+"/"+digest, text); err != nil {
		return "", err
	}
	return digest, s.Write(ctx, name, text)
}

// Write writes a document only under a name, in which slashes separate directories.
func (s Store) Write(ctx context.Context, name string, text []byte) error {
	if err := s.writeFile(name, text); err != nil || s.Bucket == nil {
		return err
	}
	return s.Bucket.Put(ctx, name, text)
}

// writeFile writes a document into the directory. Links cannot lead out of it.
func (s Store) writeFile(name string, text []byte) error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil { // readable for users who may read the parent directory
		return err
	}
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return err
	}
	defer root.Close()
	ofDirs, mode := fs.FileMode(0o755), fs.FileMode(0o644)
	if strings.HasPrefix(name, Logs+"/") {
		ofDirs, mode = 0o700, 0o600
	}
	if err = root.MkdirAll(filepath.FromSlash(path.Dir(name)), ofDirs); err == nil {
		err = wholefile.WriteIn(root, filepath.FromSlash(name), mode, text)
	}
	if err != nil {
		return fmt.Errorf("in %s: %w", s.Dir, err)
	}
	return nil
}

// Read returns the document with that digest, of at most limit bytes. If only the bucket has
// it, Read also stores it in the directory.
func (s Store) Read(ctx context.Context, digest string, limit int64) ([]byte, error) {
	return s.ReadNamed(ctx, byDigest+"/"+digest, digest, limit)
}

// ReadNamed is Read for a document that was written under a name, and must have that digest.
func (s Store) ReadNamed(ctx context.Context, name, digest string, limit int64) ([]byte, error) {
	if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%.80q is not the SHA-256 of a document", digest)
	}
	if !filepath.IsLocal(filepath.FromSlash(name)) {
		return nil, fmt.Errorf("%.80q is not the name of a document", name)
	}
	at := filepath.Join(s.Dir, filepath.FromSlash(name))
	text, err := s.readFile(name, limit)
	if errors.Is(err, fs.ErrNotExist) && s.Bucket != nil {
		if text, err = s.Bucket.Get(ctx, name, limit); err == nil && Digest(text) == digest {
			err = s.writeFile(name, text)
		}
		at = s.At(name)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not among the reports in %s: %w", strings.TrimPrefix(name, byDigest+"/"), s, fs.ErrNotExist)
	case err == nil && Digest(text) != digest:
		return nil, fmt.Errorf("%s was changed: its SHA-256 is %s now", at, Digest(text))
	}
	return text, err
}

// RunOf returns the run whose reports include the documents about an image with these
// tags. It is empty if the tags do not name a run in bake's format.
func RunOf(tags map[string]string) string {
	if run := tags[Run]; uuid.Validate(run) == nil {
		return run
	}
	return ""
}

// readFile reads a document in the directory. Links cannot lead out of it.
func (s Store) readFile(name string, limit int64) ([]byte, error) {
	root, err := os.OpenRoot(s.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	text, err := hostpath.ReadRegular(root.OpenFile, filepath.FromSlash(name), limit)
	if err != nil {
		return nil, fmt.Errorf("in %s: %w", s.Dir, err)
	}
	return text, nil
}

// ReadFile reads a regular file of at most limit bytes. It does not block on other kinds of
// files.
func ReadFile(path string, limit int64) ([]byte, error) {
	return hostpath.ReadRegular(os.OpenFile, path, limit)
}
