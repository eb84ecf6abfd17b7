package builder

import "time"

// Retention defines when older images of a name are retired: all except the newest Keep in
// each region, once they reach these ages. An age of 0 means never.
type Retention struct {
	Image                      string // the value of the tag bake:image
	Keep                       int
	Deprecate, Disable, Delete time.Duration

	// To is the distribution of the images. Copies in other accounts are retired too, and
	// the accounts that images are shared with are checked for uses of them.
	To Distribution
}
