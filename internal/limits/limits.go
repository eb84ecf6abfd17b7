// Package limits limits the resources that evaluating a template can use: even a short
// one can nest, repeat or double its values until the memory is full.
package limits

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"bake/internal/stack"
)

// Limits on the evaluation of a template.
const (
	maxCPU    = 15 * time.Second
	maxHeap   = 3 << 30 // bytes, more than there were at the first check
	checkTime = 20 * time.Millisecond
	graceCPU  = 2 * time.Second // after a cancellation
)

// Run calls f and returns nil when f has returned. If f uses more processor time or memory
// than the evaluation of a template can need, or goes on computing after ctx was cancelled,
// Run returns an error at once. f is then still running: its data must not be touched, and the
// program should exit. Time that f spends waiting does not count: it can end what it waits for
// when ctx is cancelled.
func Run(ctx context.Context, f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		stack.Grow()
		f()
	}()
	cpu := cpuTime()
	var heap uint64  // at the first check
	cancelled := cpu // processor time at the cancellation
	tick := time.NewTicker(checkTime)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return nil
		case <-tick.C:
			size := heapSize()
			if heap == 0 {
				heap = size
			}
			if size > heap+maxHeap {
				return fmt.Errorf("evaluating it takes more than %d GiB of memory: some value in it grows without bounds, or it has too many values", maxHeap>>30)
			}
			used := cpuTime()
			if used > cpu+maxCPU {
				return fmt.Errorf("evaluating it takes more than %s of CPU time: some expression in it repeats without bounds, or it has too many values that depend on each other", maxCPU)
			}
			if ctx.Err() == nil {
				cancelled = used
			} else if used > cancelled+graceCPU {
				return fmt.Errorf("its evaluation was stopped: %w", context.Cause(ctx))
			}
		}
	}
}

func heapSize() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
