// Package reports keeps the documents about images in a directory: under names for people,
// which the next run may use again, and under their digests, which are in tags of the images.
package reports

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bake/internal/wholefile"
)

// The tags of images that hold the SHA-256 of a document.
const (
	SBOM        = "bake:sbom"
	Manifest    = "bake:manifest"    // of the files of the image
	Attestation = "bake:attestation" //
	Record      = "bake:report"      // which says what other documents there are
)

// Run is the tag of images that holds the ID of the run whose reports have these documents. It
// stays when the image is finished, and copies have it too.
const Run = "bake:reports"

// byDigest is the directory of documents whose names are their digests.
const byDigest = "sha256"

// Digest is the SHA-256 of a document.
func Digest(text []byte) string { return fmt.Sprintf("%x", sha256.Sum256(text)) }

// Path is where the document with that digest is.
func Path(dir, digest string) string { return filepath.Join(dir, byDigest, digest) }

// Keep writes a document under its digest, which it returns, and under a name.
func Keep(dir, name string, text []byte) (digest string, err error) {
	digest = Digest(text)
	if err := os.MkdirAll(filepath.Join(dir, byDigest), 0o755); err != nil { //nolint:gosec // whoever may read the directory that it is in may read it
		return "", err
	}
	for _, path := range []string{filepath.Join(byDigest, digest), name} {
		err := wholefile.Write(filepath.Join(dir, path), 0o644, func(f *os.File) error {
			_, err := f.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return digest, nil
}

// Read returns the document with that digest, of at most limit bytes.
func Read(dir, digest string, limit int64) ([]byte, error) {
	if len(digest) != 64 || strings.Trim(digest, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%.80q is not the SHA-256 of a document", digest)
	}
	path := Path(dir, digest)
	text, err := ReadFile(path, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is not among the reports in %s: %w", digest, dir, fs.ErrNotExist)
	case err == nil && Digest(text) != digest:
		return nil, fmt.Errorf("%s was changed: its SHA-256 is %s now", path, Digest(text))
	}
	return text, err
}

// ReadFile reads a file of at most limit bytes.
func ReadFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s is %d MB, more than the limit of %d MB", path, info.Size()>>20, limit>>20)
	}
	return os.ReadFile(path)
}
