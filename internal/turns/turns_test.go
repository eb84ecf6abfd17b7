package turns

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestEachHasItsTurn: within the given number of days, each name has exactly one turn, and a test
// has run all of its cases once.
func TestEachHasItsTurn(t *testing.T) {
	t.Setenv(Variable, "today")
	all := []string{"a", "b", "c", "d", "e", "f", "g"}
	synctest.Test(t, func(t *testing.T) {
		turns, seen := map[string]int{}, map[string]int{}
		for range len(all) {
			for _, name := range all {
				if Today(name, len(all)) {
					turns[name]++
				}
			}
			for _, name := range One(t, all) {
				seen[name]++
			}
			time.Sleep(24 * time.Hour)
		}
		for _, name := range all {
			if turns[name] != 1 || seen[name] != 1 {
				t.Errorf("%s had %d turns of its own and %d of a test in %d days", name, turns[name], seen[name], len(all))
			}
		}
	})
}

// TestOneEach: a test with a turn in 12 days runs another of its cases each time, and all of them in
// turn, although their number and 12 have a divisor in common.
func TestOneEach(t *testing.T) {
	t.Setenv(Variable, "today")
	synctest.Test(t, func(t *testing.T) {
		seen := map[string]bool{}
		for range 4 {
			seen[OneEach(t, []string{"a", "b", "c", "d"}, 12)[0]] = true
			time.Sleep(12 * 24 * time.Hour)
		}
		if len(seen) != 4 {
			t.Errorf("in four turns, it has run only %v", seen)
		}
	})
}

func TestAllRunUnlessInTurns(t *testing.T) {
	t.Setenv(Variable, "")
	for days := range 9 {
		if !Today(fmt.Sprint(days), days+1) {
			t.Errorf("not the turn of %d", days)
		}
	}
	if got := One(t, []int{1, 2, 3}); len(got) != 3 {
		t.Errorf("goes through %v", got)
	}
}

// TestOfADate: the turns of a date do not depend on the current time.
func TestOfADate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 5 {
			t.Setenv(Variable, time.Now().UTC().Format(time.DateOnly))
			then := One(t, []int{1, 2, 3, 4})[0]
			t.Setenv(Variable, "today")
			if now := One(t, []int{1, 2, 3, 4})[0]; now != then {
				t.Errorf("%d today, and %d by the date", now, then)
			}
			time.Sleep(24 * time.Hour)
		}
	})
	t.Setenv(Variable, "tomorrow")
	defer func() {
		if recover() == nil {
			t.Error("a word that says nothing has all tests run")
		}
	}()
	Today("a", 2)
}
