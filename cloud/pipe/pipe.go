// Package pipe has one function write what another reads.
package pipe

import (
	"context"
	"io"
)

// Through calls write, in a goroutine of its own, and read with what it writes, and returns the error
// of read once both have ended. The reader meets an error of the writer in place of the end. When the
// reader has ended, writing fails and the writer's context is cancelled: what a reader has not asked
// for, and why the writer could not hand it over, is not reported.
func Through(ctx context.Context, write func(context.Context, io.Writer) error, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(write(ctx, w))
	}()
	defer func() {
		_ = r.Close() // which cannot fail
		cancel()
		<-written
	}()
	return read(r)
}
