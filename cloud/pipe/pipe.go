// Package pipe connects a function that writes a stream to one that reads it.
package pipe

import (
	"context"
	"io"
)

// Through calls write in a new goroutine, and read with the stream that it writes. It returns the
// error of read when both have returned. If write fails, read gets that error instead of io.EOF.
// When read returns, further writes fail and the context of write is cancelled. An error of write
// that read has not seen is discarded.
func Through(ctx context.Context, write func(context.Context, io.Writer) error, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	written := make(chan struct{})
	go func() {
		defer close(written)
		w.CloseWithError(write(ctx, w))
	}()
	defer func() {
		_ = r.Close() // never fails
		cancel()
		<-written
	}()
	return read(r)
}
