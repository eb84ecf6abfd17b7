package image

import (
	"fmt"
	"regexp"
	"sort"
	"sync"
	"time"
)

// Base is a root file system that images can be made of.
type Base struct {
	Name       string    `json:"name"`
	Layers     []LayerID `json:"layers"`             // topmost first
	Arch       string    `json:"arch"`               // as Go names it: amd64, arm64
	User       string    `json:"user"`               // the login user
	RootDevice string    `json:"root_device"`        // such as /dev/xvda
	Size       int32     `json:"size,omitempty"`     // of a root volume for it, GiB; 0 is 8
	Env        []string  `json:"env,omitempty"`      // from the configuration of an OCI image
	Source     string    `json:"source"`             // what it was made from, for people
	Packages   []string  `json:"packages,omitempty"` // name=version, where known
	Mirrors    []string  `json:"mirrors,omitempty"`  // URLs that its package manager fetches from, where known
	Created    time.Time `json:"created"`
}

// ImportPrefix begins the names of the bases of imported images, which Collect deletes
// when nothing names them.
const ImportPrefix = "import-"

var basePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,127}$`) })

func checkBaseName(name string) error {
	if !basePattern().MatchString(name) {
		return fmt.Errorf("base name %q: use lower-case letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

// Base returns the base of that name; the cause of the error is ErrNotFound
// when there is none.
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

// Bases returns all bases, by name.
func (s *Store) Bases() ([]Base, error) {
	all, err := readRecords[Base](s.path("bases"))
	if err != nil {
		return nil, fmt.Errorf("read bases: %w", err)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// SaveBase adds a base or replaces the one of its name. Its layers must exist.
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

// RemoveBase deletes a base; its layers stay until Collect. It is no error if
// it does not exist.
func (s *Store) RemoveBase(name string) error {
	if err := checkBaseName(name); err != nil {
		return err
	}
	return s.explain("remove base "+name, removeRecord(s.path("bases", name+".json")))
}
