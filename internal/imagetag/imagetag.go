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
	Inputs   = "bake:inputs"   // the digest of what it is made of
	Parent   = "bake:parent"   // the ID of the image that it was built on
	Verified = "bake:verified" // what the image has passed, separated by commas, or the digest of that list
	Reports  = "bake:reports"  // the run that has made it, and has its reports

	Run        = "bake:run"        // the run that has not finished it yet
	Rejected   = "bake:rejected"   // the run whose verification it has failed
	Quarantine = "bake:quarantine" // likewise, and the image cannot be launched
	Revoked    = "bake:revoked"    // why the image must not be used any more
)

// Made is when an image was made, as far as EC2 tells.
type Made struct {
	Created time.Time // in seconds
	Tags    map[string]string
	ID      string
}

// Order compares images as [Age] does, and else by their own ids, so that all who compare them agree.
func Order(a, b Made) int { return cmp.Or(Age(a, b), strings.Compare(a.ID, b.ID)) }

// Age compares images by when they were made, as [cmp.Compare] does: those of the same second by when
// the runs began that made them, which their ids tell. It is 0 if that is not known.
func Age(a, b Made) int {
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(began(a), began(b)))
}

// began is when the run began that has made an image, in milliseconds since 1970; 0 if its id does not
// tell, as those of older versions do not.
func began(m Made) uint64 {
	u, err := uuid.Parse(m.Tags[Reports])
	if err != nil || u.Version() != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(u[8:]) & (1<<48 - 1)
}
