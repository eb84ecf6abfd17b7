package builder

// Start is what a builder is about to launch the machine of a build from.
type Start struct {
	Region string
	Image  string // its ID

	// Options are those that decide, beside the image, what the machine is before it is
	// provisioned. They encode as JSON.
	Options any

	// Unfit says why the machine has to be launched from this very image; empty if any
	// image will do that was made of such a machine.
	Unfit string

	// Gone is the image that was the answer before, and is not there any more: there is none
	// but this one.
	Gone string
}
