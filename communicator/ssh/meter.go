package ssh

import (
	"context"

	"bake/communicator"
	"bake/step"
)

// meter reports how much of a transfer is done.
type meter struct {
	ctx      context.Context
	scope    *step.Scope
	progress step.Progress
	reported int64
}

// meterFrom is the size from which a transfer reports its progress, and how
// often it does.
const meterFrom = 1 << 20

func newMeter(ctx context.Context, s *step.Scope, files []communicator.Entry) *meter {
	m := &meter{ctx: ctx, scope: s, progress: step.Progress{Unit: "B"}}
	for _, f := range files {
		m.progress.Total += f.Info.Size()
	}
	return m
}

// add counts n bytes. It is not safe for concurrent use.
func (m *meter) add(n int) {
	m.progress.Done += int64(n)
	if m.progress.Done-m.reported >= meterFrom || m.progress.Done == m.progress.Total && m.reported > 0 {
		m.reported = m.progress.Done
		m.scope.Progress(m.ctx, m.progress)
	}
}

// skip subtracts from the total the bytes of a file of the given size that are in none of
// its parts.
func (m *meter) skip(size int64, parts []span) {
	m.progress.Total -= size
	for _, p := range parts {
		m.progress.Total += p.size
	}
}

// restore undoes skip, and subtracts done bytes that were counted, for a file that is sent
// again.
func (m *meter) restore(size int64, parts []span, done int) {
	m.progress.Total += size
	for _, p := range parts {
		m.progress.Total -= p.size
	}
	m.progress.Done -= int64(done)
	m.reported = min(m.reported, m.progress.Done)
}
