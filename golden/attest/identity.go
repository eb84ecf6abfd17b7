package attest

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
)

// Identity identifies the image of an attestation: its ID, where it was made, and its
// description at that time.
type Identity struct {
	Image   string            `json:"image"` // name of the image block
	ID      string            `json:"id"`
	Region  string            `json:"region"`
	Account string            `json:"account"`
	Name    string            `json:"name"`
	Tags    map[string]string `json:"tags"` // those set by bake
}

// The names of subjects that are not images.
const (
	identitySubject = "identity"
	filesSubject    = "files"
)

// identityIs is the name of a build's internal parameter with the identity.
const identityIs = "identity"

// BuildType is the build type of images that have an image block.
const BuildType = "urn:bake:buildtype:image:v1"

// digest returns the SHA-256 of the identity as JSON.
func (id Identity) digest() (string, error) {
	text, err := encode(id, "")
	return fmt.Sprintf("%x", sha256.Sum256(text)), err
}

// Attested returns the statement about an image, with how it was built and, unless that is
// empty, the digest of the manifest of its files.
func Attested(id Identity, files string, p Provenance) ([]byte, error) {
	sum, err := id.digest()
	if err != nil {
		return nil, err
	}
	if p.BuildDefinition.InternalParameters == nil {
		p.BuildDefinition.InternalParameters = map[string]any{}
	}
	p.BuildDefinition.InternalParameters[identityIs] = id
	subjects := []Resource{Image(id.Region, id.ID), {Name: identitySubject, Digest: map[string]string{"sha256": sum}}}
	if files != "" {
		subjects = append(subjects, Resource{Name: filesSubject, Digest: map[string]string{"sha256": files}})
	}
	return New(subjects, SLSA, p)
}

// Identity returns the image that the statement is about, and the digest of the manifest of
// its files, "" if there is none.
func (st *Statement) Identity() (id Identity, files string, err error) {
	if err := st.Meet(Expected{PredicateType: SLSA, BuilderID: BuilderID}); err != nil {
		return id, "", err
	}
	var p struct {
		BuildDefinition struct {
			BuildType          string `json:"buildType"`
			InternalParameters struct {
				Identity *Identity `json:"identity"`
			} `json:"internalParameters"`
		} `json:"buildDefinition"`
	}
	if err := json.Unmarshal(st.Predicate, &p); err != nil {
		return id, "", fmt.Errorf("its predicate is not a provenance: %w", err)
	}
	if p.BuildDefinition.BuildType != BuildType || p.BuildDefinition.InternalParameters.Identity == nil {
		return id, "", errors.New("it is not about an image of an image block")
	}
	id = *p.BuildDefinition.InternalParameters.Identity
	sum, err := id.digest()
	if err != nil {
		return id, "", err
	}
	want := Expected{Subjects: []Resource{Image(id.Region, id.ID), {Name: "the identity of the image", Digest: map[string]string{"sha256": sum}}}}
	if err := st.Meet(want); err != nil {
		return id, "", err
	}
	for _, s := range st.Subject {
		if s.Name == filesSubject {
			files = s.Digest["sha256"]
		}
	}
	return id, files, nil
}

// Differs returns how the image have differs from the attested one. have is the image
// itself or, if isCopy is true, a copy of it.
func (id Identity) Differs(have Identity, isCopy bool) (reasons []string) {
	differ := func(what, attested, is string) {
		if attested != is {
			reasons = append(reasons, fmt.Sprintf("%s is %q, but %q is attested", what, is, attested))
		}
	}
	if !isCopy {
		differ("its ID", id.ID, have.ID)
		differ("its region", id.Region, have.Region)
		differ("its account", id.Account, have.Account)
		differ("its name", id.Name, have.Name)
	}
	var keys []string
	for k := range id.Tags {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		is, ok := have.Tags[k]
		if !ok {
			reasons = append(reasons, fmt.Sprintf("its tag %s is missing, but %q is attested", k, id.Tags[k]))
			continue
		}
		differ("its tag "+k, id.Tags[k], is)
	}
	return reasons
}
