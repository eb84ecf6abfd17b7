package sandbox

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// Moves go on for two seconds after the last machine began, or until one fails.
func TestQuickMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q quickMoves
		n := 0
		var fails error
		move := func() error { n++; return fails }
		q.begin(move)
		time.Sleep(movesTime / 2)
		if n < 400 {
			t.Errorf("%d moves in a second", n)
		}
		q.begin(move)
		time.Sleep(movesTime - movesPause/2)
		if n < 1400 || n > 1501 {
			t.Errorf("%d moves in three seconds", n)
		}
		synctest.Wait()
		time.Sleep(time.Minute)
		if n > 1501 {
			t.Errorf("%d moves: they go on", n)
		}

		n, fails = 0, errors.New("the machine has ended")
		q.begin(move)
		time.Sleep(time.Second)
		if n != 1 {
			t.Errorf("%d moves of a machine that has ended", n)
		}
		fails = nil
		q.begin(move)
		time.Sleep(time.Second)
		if n < 400 {
			t.Errorf("%d moves of the next machine", n)
		}
		time.Sleep(time.Minute) // until they have ended
	})
}
