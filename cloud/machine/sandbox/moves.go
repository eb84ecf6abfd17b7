package sandbox

import (
	"sync"
	"time"
)

// quickMoves makes the kernel move processes between control groups without
// delay while machines start. systemd moves each service that it starts to its
// group, and waits for that. The first move after a pause waits for an RCU
// grace period, some 10 ms; moves within another grace period do not. So
// quickMoves keeps moving a process to the group that it is in. The mount
// option favordynmods, see cgroups(7), has this effect too, but on the whole
// host and for good.
type quickMoves struct {
	mu    sync.Mutex
	move  func() error
	until time.Time
	runs  bool
}

const (
	movesPause = 2 * time.Millisecond // shorter than a grace period
	movesTime  = 2 * time.Second      // after the start of a machine; by then, it has let its user in
)

// begin makes moves quick for a while. move moves some process to its own group.
func (q *quickMoves) begin(move func() error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.move, q.until = move, time.Now().Add(movesTime)
	if !q.runs {
		q.runs = true
		go q.run()
	}
}

func (q *quickMoves) run() {
	for move := q.next(nil); move != nil; {
		err := move()
		time.Sleep(movesPause)
		move = q.next(err)
	}
}

// next returns what to do next, or nil if moves need not be quick any longer or
// the last move failed: then the machine has ended.
func (q *quickMoves) next(err error) func() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.runs = err == nil && time.Now().Before(q.until); !q.runs {
		return nil
	}
	return q.move
}
