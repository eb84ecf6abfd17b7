package host

import "sync"

// Plugin is an installed plugin with its description.
type Plugin struct {
	Binary
	Description Description

	options Options
	stamp   stamp
	asking  *sync.Mutex // held while the user is asked
}
