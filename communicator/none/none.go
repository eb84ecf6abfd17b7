// Package none is the communicator of a build without a machine to talk to.
package none

import (
	"context"
	"io/fs"
	"os"

	"bake/communicator"
)

// Communicator succeeds at every command without doing anything and fails at
// every file transfer.
type Communicator struct{}

// Run implements [communicator.Communicator].
func (Communicator) Run(ctx context.Context, _ communicator.Command) (communicator.Status, error) {
	return communicator.Status{}, context.Cause(ctx)
}

// Put implements [communicator.Communicator].
func (Communicator) Put(context.Context, string, fs.FS) error { return communicator.ErrNoMachine }

// Get implements [communicator.Communicator].
func (Communicator) Get(context.Context, string, *os.Root) error { return communicator.ErrNoMachine }

// Close implements [communicator.Communicator].
func (Communicator) Close() error { return nil }
