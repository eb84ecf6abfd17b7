package builder

import "time"

// Retention says what becomes of the images of a name when there are newer ones: of all but
// the newest Keep in each region, from certain ages on. An age of 0 never comes.
type Retention struct {
	Image                      string // the value of the tag bake:image
	Keep                       int
	Deprecate, Disable, Delete time.Duration

	// To is where the images go. The accounts that have images of their own have the same
	// done to them, and the accounts that they are shared with are asked for what uses them.
	To Distribution
}
