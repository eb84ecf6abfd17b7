// Package imagetag names the tags that say what an image of bake is, for all that write them
// or read them.
package imagetag

// The tags.
const (
	Image    = "bake:image"    // the name of its image block
	Inputs   = "bake:inputs"   // the digest of what it is made of
	Parent   = "bake:parent"   // the ID of the image that it was built on
	Verified = "bake:verified" // what it has passed, separated by commas, or the digest of that

	Run        = "bake:run"        // the run that has not finished it yet
	Rejected   = "bake:rejected"   // the run whose verification it has failed
	Quarantine = "bake:quarantine" // likewise, and nobody can launch it
	Revoked    = "bake:revoked"    // why nobody is to use it any more
)
