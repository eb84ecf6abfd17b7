package image

import (
	"fmt"
	"sort"
	"time"

	"bake/cloud/lazyregexp"
)

// Base is a root file system to make images from.
type Base struct {
	Name       string    `json:"name"`
	Layers     []LayerID `json:"layers"`             // topmost first
	Arch       string    `json:"arch"`               // GOARCH, such as amd64
	User       string    `json:"user"`               // login user
	RootDevice string    `json:"root_device"`        // such as /dev/xvda
	Size       int32     `json:"size,omitempty"`     // of the root volume of its images, in GiB; 0 means 8
	Env        []string  `json:"env,omitempty"`      // from the configuration of an OCI image
	Source     string    `json:"source"`             // human-readable origin
	Packages   []string  `json:"packages,omitempty"` // name=version, where known
	Mirrors    []string  `json:"mirrors,omitempty"`  // URLs that its package manager downloads from, where known
	Created    time.Time `json:"created"`
}

// ImportPrefix is the prefix of the names of imported images' bases, which Collect deletes when
// nothing refers to them.
const ImportPrefix = "import-"

var basePattern = lazyregexp.New(`^[a-z0-9][a-z0-9._-]{0,127}$`)

func checkBaseName(name string) error {
	if !basePattern.Get().MatchString(name) {
		return fmt.Errorf("base name %q: use lower-case letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

// Base returns the base with that name. The error is ErrNotFound if there is none.
func (s *Store) Base(name string) (Base, error) {
	var b Base
	if err := checkBaseName(name); err != nil {
		return b, err
	}
	if err := readRecord(s.path("bases", name+".json"), &b); err != nil {
		return b, fmt.Errorf("base %s: %w", name, err)
	}
	return b, nil
}

// Bases returns all bases, sorted by name.
func (s *Store) Bases() ([]Base, error) {
	all, err := readRecords[Base](s.path("bases"))
	if err != nil {
		return nil, fmt.Errorf("read bases: %w", err)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// SaveBase stores a base, replacing one with the same name. Its layers must exist.
func (s *Store) SaveBase(b Base) error {
	if err := checkBaseName(b.Name); err != nil {
		return err
	}
	if len(b.Layers) == 0 {
		return fmt.Errorf("base %s has no layers", b.Name)
	}
	if _, err := s.Paths(b.Layers); err != nil {
		return fmt.Errorf("save base %s: %w", b.Name, err)
	}
	return s.explain("save base "+b.Name, writeRecord(s.path("bases", b.Name+".json"), b))
}

// RemoveBase deletes a base. Its layers stay until Collect. It is no error if the base does not
// exist.
func (s *Store) RemoveBase(name string) error {
	if err := checkBaseName(name); err != nil {
		return err
	}
	return s.explain("remove base "+name, removeRecord(s.path("bases", name+".json")))
}
