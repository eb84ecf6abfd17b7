// Package attested compares images in a cloud with their attestations: their identity and,
// on a machine launched from them, their files.
package attested

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"

	"bake/builder/amazon/images"
	"bake/golden/attest"
	"bake/golden/manifest"
	"bake/golden/reports"
)

// maxFile is the maximum size of an attestation, and of a list of files.
const maxFile = 512 << 20

// open reads the attestation in a file, which must be signed with key.
func open(path string, key crypto.PublicKey) (*attest.Statement, error) {
	text, err := reports.ReadFile(path, maxFile)
	if err != nil {
		return nil, err
	}
	return attest.Open(text, key)
}

// File is the attestation of a file that meets the requirements.
type File struct {
	Path      string
	Statement *attest.Statement
}

// Files reads attestations, which must be signed with key and match expected. The error
// names those that fail; the others are still returned.
func Files(paths []string, key crypto.PublicKey, expected attest.Expected) (all []File, err error) {
	for _, path := range paths {
		st, failed := open(path, key)
		if failed == nil {
			failed = st.Meet(expected)
		}
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", path, failed))
			continue
		}
		all = append(all, File{path, st})
	}
	return all, err
}

// IsImage reports whether an argument is the ID of an image, and not a file.
func IsImage(arg string) bool {
	rest, ok := strings.CutPrefix(arg, "ami-")
	return ok && (len(rest) == 8 || len(rest) == 17) && strings.Trim(rest, "0123456789abcdef") == ""
}

// Where defines where to find attestations, and the requirements on them.
type Where struct {
	File     string           // the attestation; empty: it is found by the image's tag
	Key      crypto.PublicKey // that the attestation must be signed with
	Expected attest.Expected
	Files    bool // the list of the image's files is read, too

	// Reports returns the location of the reports about an image with these tags.
	Reports func(ctx context.Context, a *images.Account, tags map[string]string) (reports.Store, error)
}

// Image is an image that matches its attestation.
type Image struct {
	images.Image
	Statement *attest.Statement

	reports reports.Store
	files   []byte // the manifest, if it was requested
}

// Find returns the image of an account with the ID or name in name, if its attestation is
// for it, or for the image that it is a copy of, and if it was not revoked.
func Find(ctx context.Context, a *images.Account, name string, w Where) (Image, error) {
	i, err := a.One(ctx, name)
	if err != nil {
		return Image{}, err
	}
	found := Image{Image: i}
	found.reports, err = w.Reports(ctx, a, i.Tags)
	if err == nil {
		err = found.open(ctx, w)
	}
	files := ""
	if err == nil {
		files, err = found.compare(ctx, a)
	}
	if err == nil && w.Files {
		err = found.list(ctx, files)
	}
	if err != nil {
		return found, fmt.Errorf("%s: %w", i.ID, err)
	}
	return found, nil
}

// UnreadError is the error for a document about an image that is missing from the reports.
type UnreadError struct {
	Files bool // it is the list of the image's files, and not its attestation
	err   error
}

func (e *UnreadError) Error() string {
	if e.Files {
		return "its list of files: " + e.err.Error()
	}
	return "its attestation cannot be read: " + e.err.Error()
}

func (e *UnreadError) Unwrap() error { return e.err }

// open reads the attestation that the image's tag names.
func (i *Image) open(ctx context.Context, w Where) error {
	digest := i.Tags[reports.Attestation]
	if digest == "" {
		return fmt.Errorf("the image has no tag %s: nothing is attested of it, or the tag was removed", reports.Attestation)
	}
	var text []byte
	var err error
	if w.File != "" {
		if text, err = reports.ReadFile(w.File, maxFile); err != nil {
			return fmt.Errorf("its attestation cannot be read: %w", err)
		}
		if reports.Digest(text) != digest {
			return fmt.Errorf("its tag %s names another attestation than %s: %.64s", reports.Attestation, w.File, digest)
		}
	} else if text, err = i.reports.Read(ctx, digest, maxFile); err != nil {
		return &UnreadError{err: err}
	}
	i.Statement, err = attest.Open(text, w.Key)
	if err == nil {
		err = i.Statement.Meet(w.Expected)
	}
	if err != nil {
		return fmt.Errorf("its attestation: %w", err)
	}
	return nil
}

// compare returns an error if the image differs from its attestation, and otherwise the digest
// of the list of its files, if one is attested.
func (i *Image) compare(ctx context.Context, a *images.Account) (files string, err error) {
	id, files, err := i.Statement.Identity()
	if err != nil {
		return "", fmt.Errorf("its attestation: %w", err)
	}
	isCopy, err := copyOf(ctx, a, i.Image, id)
	if err != nil {
		return "", err
	}
	have := attest.Identity{ID: i.ID, Region: i.Region, Account: i.Owner, Name: i.Name, Tags: i.Tags}
	if reasons := id.Differs(have, isCopy); len(reasons) > 0 {
		return "", fmt.Errorf("it differs from the attestation: %s", strings.Join(reasons, "; "))
	}
	if files != "" && id.Tags[reports.Manifest] != files {
		return "", errors.New("its attestation names two lists of files")
	}
	if why, revoked := i.Tags[images.RevokedTag]; revoked {
		return "", fmt.Errorf("the image was revoked: %s", cmp.Or(why, "without a reason"))
	}
	return files, nil
}

// copyOf reports whether an image is a copy of the attested one, rather than that image
// itself. Any other image is an error.
func copyOf(ctx context.Context, a *images.Account, i images.Image, id attest.Identity) (bool, error) {
	if i.ID == id.ID {
		return false, nil
	}
	lineage, err := a.Lineage(ctx, i)
	for _, from := range lineage {
		if !from.Copied {
			break
		}
		if from.ID == id.ID && from.Region == id.Region {
			return true, nil
		}
	}
	if err != nil {
		return false, fmt.Errorf("the image that it was copied from cannot be determined: %w", err)
	}
	return false, fmt.Errorf("it is not the attested image: that is %s in %s, and this is not a copy of it", id.ID, id.Region)
}

// list reads the list of files with that digest.
func (i *Image) list(ctx context.Context, digest string) (err error) {
	if digest == "" {
		return ErrNoList
	}
	if i.files, err = i.reports.Read(ctx, digest, maxFile); err != nil {
		return &UnreadError{Files: true, err: err}
	}
	return nil
}

// Files returns the attested list of the image's files, if Find was called with that
// option.
func (i Image) Files() (*manifest.Manifest, error) {
	files, err := manifest.Parse(bytes.NewReader(i.files))
	if err != nil {
		return nil, fmt.Errorf("%s: its list of files: %w", i.ID, err)
	}
	return files, nil
}

// mostChanges is the maximum number of changed files that an error lists.
const mostChanges = 50

// DifferError is the error of an image if the files of one of its machines differ from the
// attested ones.
type DifferError struct {
	Image   string // its ID
	Changes []manifest.Change
}

func (e *DifferError) Error() string {
	lines := []string{fmt.Sprintf("%s: files of a machine of it differ from those that are attested (%d):", e.Image, len(e.Changes))}
	for n, c := range e.Changes {
		if n == mostChanges {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Changes)-n))
			break
		}
		lines = append(lines, c.String())
	}
	return strings.Join(lines, "\n  ")
}
