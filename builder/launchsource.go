package builder

// LaunchSource is the image that a builder is about to launch its machine from.
type LaunchSource struct {
	Region string
	Image  string // its ID

	// Options are the other options that determine what the machine is before it is
	// provisioned. They can be encoded as JSON.
	Options any

	// Unfit is the reason why the machine must be launched from this image; empty if an
	// image of a machine that was launched from it is acceptable too.
	Unfit string

	// Gone is the image that ResolveSource returned before, if it no longer exists.
	Gone string
}
