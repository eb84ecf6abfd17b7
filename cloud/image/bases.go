package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"bake/cloud/lazyregexp"
)

// ReleaseInfo describes a release to users of its base.
type ReleaseInfo struct {
	FromImage bool // its base can only be made from a container image
	ID, Title string
	Publisher string
	Owner     string // account id
	User      string // login user
}

// Releases returns the releases that there are bases of, or that bases can be made of.
func Releases() []ReleaseInfo {
	var out []ReleaseInfo
	for _, r := range releases() {
		out = append(out, ReleaseInfo{ID: r.ID, Title: r.Title, Publisher: publisherOf(r.Owner).Name, Owner: r.Owner, User: r.User, FromImage: r.Suite == ""})
	}
	return out
}

// release returns the release with that id. The error lists the ids.
func (s *Store) release(id string) (release, error) {
	if r, ok := findRelease(id); ok {
		return r, nil
	}
	var ids []string
	for _, r := range releases() {
		ids = append(ids, r.ID)
	}
	return release{}, fmt.Errorf("release %q: choose one of %s", id, strings.Join(ids, ", "))
}

// CheckNew returns an error if the owner already has an image with that name.
func (s *Store) CheckNew(owner, name string) error {
	all, err := s.Publications()
	if err != nil {
		return err
	}
	for _, other := range all {
		if other.Owner == owner && other.Name == name && other.ID == "" {
			return fmt.Errorf("account %s has an image named %s already: choose another name, or use -replace if it was imported", owner, name)
		}
	}
	return nil
}

// FillRelease makes the base of a release with fill, which gets the release's name and login user.
// It is an error if the base exists, unless replace is set. Machines that were started from the old
// base are not affected.
func (s *Store) FillRelease(ctx context.Context, id string, replace bool, fill func(ImportOptions) (Base, error)) (Base, error) {
	r, err := s.release(id)
	if err != nil {
		return Base{}, err
	}
	unlock, err := s.lockBase(ctx, id, nil)
	if err != nil {
		return Base{}, err
	}
	defer unlock()
	if _, err := s.Base(id); !errors.Is(err, ErrNotFound) && !replace {
		return Base{}, errors.Join(errThere(id), err)
	}
	b, err := fill(ImportOptions{Name: id, User: r.User, Arch: r.Arch})
	if err != nil {
		return Base{}, err
	}
	b.RootDevice = publisherOf(r.Owner).RootDevice
	return b, s.SaveBase(b)
}

// Lacks returns which of the programs that scripts and logins rely on are missing from the base.
func (s *Store) Lacks(b Base) ([]string, error) {
	paths, err := s.Paths(b.Layers)
	if err != nil {
		return nil, err
	}
	var lacks []string
	for _, want := range []struct {
		name  string
		files []string
	}{
		{"systemd", []string{"usr/lib/systemd/systemd", "lib/systemd/systemd"}},
		{"an SSH server", []string{"usr/sbin/sshd", "usr/bin/sshd"}},
		{"sudo", []string{"usr/bin/sudo"}},
		{"cloud-init", []string{"usr/bin/cloud-init"}},
	} {
		if !anyFile(paths, want.files) {
			lacks = append(lacks, want.name)
		}
	}
	return lacks, nil
}

func anyFile(layers, names []string) bool {
	for _, layer := range layers {
		for _, name := range names {
			if _, err := os.Lstat(filepath.Join(layer, name)); err == nil {
				return true
			}
		}
	}
	return false
}

var (
	imageIDPattern = lazyregexp.New(`^ami-[0-9a-f]{8}([0-9a-f]{9})?$`)
	digits         = lazyregexp.New(`\d+`)
)

// Alias publishes the base of a release under an AMI id of AWS, in every region, so that templates
// with that id work.
func (s *Store) Alias(id, releaseID string) error {
	if !imageIDPattern.Get().MatchString(id) {
		return fmt.Errorf("image id %q: it must have the form ami-0123456789abcdef0", id)
	}
	r, err := s.release(releaseID)
	if err != nil {
		return err
	}
	versions := r.Series[0].Versions
	p := r.publication(0, versions[len(versions)-1])
	p.ID, p.Description = id, p.Description+" ("+id+" of AWS)"
	return s.explain("alias "+id, writeRecord(s.path("publications", "alias-"+id+".json"), p))
}

// Recall publishes the image with that name, if a release has or may have had an image so named,
// for example with an earlier date than those in the catalog. fresh reports that it was not in the
// catalog before.
func (s *Store) Recall(name string) (p Publication, fresh bool, err error) {
	offered := s.offered()
	for _, r := range releases() {
		if !offered[r.ID] {
			continue
		}
		for n, known := range r.Series {
			version, ok := r.versionIn(name, known)
			if !ok || dateOf(version).IsZero() || dateOf(version).After(time.Now()) {
				continue
			}
			p = r.publication(n, version)
			if s.CheckNew(p.Owner, p.Name) != nil {
				return p, false, nil // already published, or no release has such names
			}
			return p, true, s.explain("publish "+p.Name, writeRecord(s.publicationPath(p.Owner, p.Name), p))
		}
	}
	return Publication{}, false, ErrNotFound
}

// versionIn returns the version in a name of the series. The version must have the same form as the
// newest one.
func (r release) versionIn(name string, of series) (version string, ok bool) {
	newest := of.Versions[len(of.Versions)-1]
	pattern := digits.Get().ReplaceAllStringFunc(regexp.QuoteMeta(newest), func(run string) string {
		if len(run) == 8 {
			return `\d{8}`
		}
		return `\d{1,8}`
	})
	parts := strings.SplitN(r.fill([]string{of.Name}, "\x00")[0], "\x00", 2)
	version, ok = strings.CutPrefix(name, parts[0])
	if ok {
		version, ok = strings.CutSuffix(version, parts[1])
	}
	return version, ok && regexp.MustCompile("^"+pattern+"$").MatchString(version)
}
