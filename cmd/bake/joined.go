package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// goneError is the cause of a context that ended since the process which served
// the local cloud has ended, and all machines with it.
type goneError struct{ pid int }

func (e *goneError) Error() string {
	return fmt.Sprintf("the local cloud has gone: process %d, which served it, was ended, and its machines with it. Run this again; instances that it has left are stopped, and 'bake sweep' or a TerminateInstances call removes them. "+
		"To keep the local cloud independent of single commands, let 'bake cloud up' serve it in a terminal of its own", e.pid)
}

// watchEvery is how often a process that serves the local cloud for this one is
// looked for.
const watchEvery = time.Second

// watch returns a context that ends with a *goneError when the process that serves
// the cloud has ended without waiting for this one. The caller releases it.
func (c *localCloud) watch(parent context.Context) (ctx context.Context, release func()) {
	if c.own != nil {
		return parent, func() {}
	}
	ctx, cancel := context.WithCancelCause(parent)
	go func() {
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			d := net.Dialer{Timeout: watchEvery}
			conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(c.Endpoint, "http://"))
			if errors.Is(err, syscall.ECONNREFUSED) { // anything else may be a busy host
				cancel(&goneError{c.servedBy})
				return
			}
			if err == nil {
				conn.Close()
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

// dependence says whose end would end this process's machines, empty if it is this
// process itself.
func (c *localCloud) dependence() string {
	if c.own != nil {
		return ""
	}
	return fmt.Sprintf("Process %d serves the local cloud: if it is ended at once, by a second Ctrl-C or a kill, the machines end with it.", c.servedBy)
}
