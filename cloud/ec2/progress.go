package ec2

import (
	"io"
	"sync"
	"sync/atomic"
)

// progress records the progress of tasks and snapshots. It is not stored: interrupted work has
// failed.
type progress struct{ of sync.Map } // *atomic.Int32, percent, by id

// reached raises the progress of an id to percent. It never lowers it.
func (p *progress) reached(id string, percent int64) {
	v, _ := p.of.LoadOrStore(id, new(atomic.Int32))
	for n := v.(*atomic.Int32); ; {
		if was := n.Load(); was >= int32(percent) || n.CompareAndSwap(was, int32(percent)) {
			return
		}
	}
}

// part returns a function that reports the progress of a part of the work on ids, scaled to the
// range of percentages from from to to.
func (p *progress) part(from, to int64, ids ...string) func(done, of int64) {
	return func(done, of int64) {
		share := float64(1)
		if of > 0 {
			share = max(0, min(1, float64(done)/float64(of)))
		}
		for _, id := range ids {
			p.reached(id, from+int64(share*float64(to-from)))
		}
	}
}

// percent returns the progress of an id, and whether it is being worked on.
func (p *progress) percent(id string) (percent int32, working bool) {
	v, ok := p.of.Load(id)
	if !ok {
		return 0, false
	}
	return v.(*atomic.Int32).Load(), true
}

// ended forgets the progress of ids whose work has ended.
func (p *progress) ended(ids ...string) {
	for _, id := range ids {
		p.of.Delete(id)
	}
}

// reading is a reader that reports how many of size bytes have been read.
type reading struct {
	io.Reader
	size, done int64
	report     func(done, of int64)
}

func (r *reading) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.done += int64(n)
	r.report(r.done, r.size)
	return n, err
}
