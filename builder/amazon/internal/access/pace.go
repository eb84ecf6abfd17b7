package access

import "time"

// Pace defines the durations of waits, which depend on the speed of a cloud.
type Pace struct {
	// Early is the first pause of a wait for a change that may happen at once; 0 if no
	// change does.
	Early time.Duration

	// Monitor is the longest pause between polls of a state that is not expected to change.
	Monitor time.Duration

	// Retry is the pause before a failed operation is repeated.
	Retry time.Duration

	// Visible is how long a new resource may be invisible.
	Visible time.Duration

	// Released is how long a deleted resource may still be in use.
	Released time.Duration

	// Known is how long a new resource may be unknown to other services; 0 if there is no
	// delay.
	Known time.Duration
}

// pace returns the times for AWS. AWS guarantees none of them: they are several times the
// usual values. A cloud on this machine has a single consistent state, but may simulate
// EC2.
func (s *Session) pace() Pace {
	if s.Loopback() {
		return Pace{Early: 20 * time.Millisecond, Monitor: 2 * time.Second, Retry: 100 * time.Millisecond, Visible: 500 * time.Millisecond, Released: 3 * time.Second}
	}
	return Pace{Monitor: 15 * time.Second, Retry: 10 * time.Second, Visible: 5 * time.Second, Released: 30 * time.Second, Known: 2 * time.Minute}
}
