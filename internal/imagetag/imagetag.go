// Package imagetag defines the keys of the tags that describe an image of bake, for all
// code that writes or reads them.
package imagetag

import (
	"cmp"
	"encoding/binary"
	"strings"
	"time"

	"github.com/google/uuid"
)

// The tags.
const (
	Image    = "bake:image"    // the name of its image block
	Inputs   = "bake:inputs"   // the digest of its inputs
	Parent   = "bake:parent"   // the ID of the image that it was built on
	Verified = "bake:verified" // the checks that the image has passed, separated by commas, or the digest of that list
	Reports  = "bake:reports"  // the run that has made the image, and holds its reports

	Run        = "bake:run"        // the run that has not finished it yet
	Rejected   = "bake:rejected"   // the run whose verification it has failed
	Quarantine = "bake:quarantine" // likewise, and the image cannot be launched
	Revoked    = "bake:revoked"    // why the image must no longer be used
)

// Made holds what EC2 reports about when an image was made.
type Made struct {
	Created time.Time // in seconds
	Tags    map[string]string
	ID      string
}

// Order compares images as [Age] does, and then by their own ids, so that all callers
// order them in the same way.
func Order(a, b Made) int { return cmp.Or(Age(a, b), strings.Compare(a.ID, b.ID)) }

// Age compares images by their creation times, as [cmp.Compare] does. Images of the same
// second are compared by the start of their runs, which the ids of runs contain. It is 0
// if that is not known.
func Age(a, b Made) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(began(a), began(b)))
}

// began returns when the run that made an image began, in milliseconds since 1970. It is 0
// if the id does not contain it, as in older versions.
func began(m Made) uint64 {
	u, err := uuid.Parse(m.Tags[Reports])
	if err != nil || u.Version() != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(u[8:]) & (1<<48 - 1)
}
