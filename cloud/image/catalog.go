package image

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"syscall"
	"time"

	"bake/cloud/lazyregexp"
)

// Publication is an image that a publisher offers on EC2, and the local base that provides its
// content.
type Publication struct {
	ID             string    `json:"id,omitempty"` // AMI id, if the image can only be found by it; usually empty, which means derived from the other fields
	Owner          string    `json:"owner"`        // account id, 12 digits
	OwnerAlias     string    `json:"owner_alias,omitempty"`
	Name           string    `json:"name"`
	Description    string    `json:"description"`
	Architecture   string    `json:"architecture"` // EC2's name: x86_64, arm64
	RootDeviceName string    `json:"root_device_name"`
	VolumeType     string    `json:"volume_type,omitempty"` // of the root volume; empty means gp3
	Size           int32     `json:"size,omitempty"`        // of the root volume, in GiB; 0 means 8
	Ephemeral      int       `json:"ephemeral,omitempty"`   // number of instance stores in its mapping, from /dev/sdb on
	BootMode       string    `json:"boot_mode,omitempty"`
	ImdsSupport    string    `json:"imds_support,omitempty"`
	CreationDate   time.Time `json:"creation_date"`
	Deprecated     time.Time `json:"deprecated,omitzero"` // zero means never
	LoginUser      string    `json:"login_user"`
	Base           string    `json:"base"`                 // name of the base; it may not exist yet: see Ensure
	Parameters     []string  `json:"parameters,omitempty"` // public Systems Manager parameters that name the image
}

// builtin returns the publications that every store has: the images of all releases. Their owners,
// names and dates are those of real images, so that filters written for EC2 find them and
// most_recent selects the newest.
func builtin() []Publication {
	var list []Publication
	for _, r := range releases() {
		list = append(list, r.publications()...)
	}
	return list
}

// EC2Arch returns EC2's name for a GOARCH value.
func EC2Arch(goarch string) string {
	if goarch == "amd64" {
		return "x86_64"
	}
	return goarch
}

// Publications returns the built-in and the added publications, sorted by owner and name.
func (s *Store) Publications() ([]Publication, error) {
	added, err := readRecords[Publication](s.path("publications"))
	if err != nil {
		return nil, fmt.Errorf("read publications: %w", err)
	}
	for i, p := range added {
		added[i].OwnerAlias = cmp.Or(p.OwnerAlias, publisherOf(p.Owner).Alias)
	}
	offered := s.offered()
	all := slices.DeleteFunc(append(builtin(), added...), func(p Publication) bool {
		there, known := offered[p.Base]
		return known && p.ID == "" && !there // an alias stays until the user removes it
	})
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		return strings.Compare(a.Owner+"/"+a.Name, b.Owner+"/"+b.Name) < 0
	})
	return all, nil
}

// offered reports, for each release by id, whether its images can be launched. A base that is not
// made automatically must exist, and the host must be able to run the release's programs.
func (s *Store) offered() map[string]bool {
	runs, all := map[string]bool{}, map[string]bool{}
	for _, r := range releases() {
		if _, asked := runs[r.Arch]; !asked {
			runs[r.Arch] = s.driver.Runs(r.Arch) == nil
		}
		all[r.ID] = runs[r.Arch] && (r.Suite != "" || s.made(r.ID))
	}
	return all
}

// made reports whether the base exists.
func (s *Store) made(id string) bool {
	_, err := os.Stat(s.path("bases", id+".json"))
	return err == nil
}

var (
	ownerPattern = lazyregexp.New(`^[0-9]{12}$`)
	// EC2 API Reference, CreateImage, parameter Name.
	namePattern = lazyregexp.New(`^[A-Za-z0-9()\[\] ./'@_-]{3,128}$`)
)

// CheckNames returns an error unless an image can have this owner and this name.
func CheckNames(owner, name string) error {
	if !ownerPattern.Get().MatchString(owner) {
		return fmt.Errorf("owner %q: use an account id of 12 digits", owner)
	}
	if !namePattern.Get().MatchString(name) {
		return fmt.Errorf("image name %q: use 3 to 128 letters, digits, spaces and ()[]./-'@_", name)
	}
	return nil
}

// Publish stores a publication. Its base must exist, and its owner must not have another image with
// that name. Zero fields are set from the base.
func (s *Store) Publish(p Publication) error {
	if err := CheckNames(p.Owner, p.Name); err != nil {
		return err
	}
	base, err := s.Base(p.Base)
	if err != nil {
		return fmt.Errorf("publish %s: %w", p.Name, err)
	}
	if p.Architecture == "" {
		p.Architecture = EC2Arch(base.Arch)
	}
	p.RootDeviceName = cmp.Or(p.RootDeviceName, publisherOf(p.Owner).RootDevice, base.RootDevice)
	if p.LoginUser == "" {
		p.LoginUser = base.User
	}
	p.Size = cmp.Or(p.Size, base.Size)
	if p.CreationDate.IsZero() {
		p.CreationDate = base.Created
	}
	unlock, err := lock(context.Background(), s.path("publications", "lock"), syscall.LOCK_EX)
	if err != nil {
		return s.explain("publish "+p.Name, err)
	}
	defer unlock()
	if err := s.CheckNew(p.Owner, p.Name); err != nil {
		return err
	}
	return s.explain("publish "+p.Name, writeRecord(s.publicationPath(p.Owner, p.Name), p))
}

// CheckAdded returns an error if a publication was not added, since only added ones can be removed.
func (s *Store) CheckAdded(owner, name string) error {
	for _, p := range builtin() {
		if p.Owner == owner && p.Name == name {
			return fmt.Errorf("image %s of %s is built in", name, owner)
		}
	}
	var p Publication
	if err := readRecord(s.publicationPath(owner, name), &p); err != nil {
		return fmt.Errorf("image %s of %s: %w", name, owner, err)
	}
	return nil
}

// Unpublish removes an added publication from the catalog. Its base stays until Collect.
func (s *Store) Unpublish(owner, name string) error {
	if err := s.CheckAdded(owner, name); err != nil {
		return err
	}
	return s.explain("unpublish "+name, removeRecord(s.publicationPath(owner, name)))
}

// publicationPath returns the file of a publication. The file name is derived from a hash, because
// names may contain any character.
func (s *Store) publicationPath(owner, name string) string {
	sum := sha256.Sum256([]byte(owner + "\x00" + name))
	return s.path("publications", hex.EncodeToString(sum[:16])+".json")
}
