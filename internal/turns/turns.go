// Package turns distributes tests that take minutes over several days. All of them run
// unless BAKE_TEST_SCRIPTS is "today", as in CI, or a date such as 2026-01-31, for the
// tests that CI runs on that day.
package turns

import (
	"fmt"
	"hash/fnv"
	"os"
	"testing"
	"time"
)

// Variable is the environment variable that selects the tests to run.
const Variable = "BAKE_TEST_SCRIPTS"

// Today reports whether the test with this name runs today. It runs once in the given
// number of days.
func Today(name string, days int) bool {
	day, all := today()
	return all || day%days == number(name)%days
}

// Skip skips a test unless it is its turn, which comes once in this many days.
func Skip(t testing.TB, days int) {
	t.Helper()
	if !Today(t.Name(), days) {
		t.Skipf("takes minutes, so it is run once in %d days with %s=today", days, Variable)
	}
}

// One returns the cases that a test runs: all of them or, when tests are distributed over
// days, one of them, a different one each day.
func One[T any](t testing.TB, all []T) []T { return OneEach(t, all, 1) }

// OneEach is [One] for a test that itself runs once in the given number of days: the next case
// follows when that many days have passed.
func OneEach[T any](t testing.TB, all []T, days int) []T {
	day, every := today()
	if every || len(all) == 0 {
		return all
	}
	n := (number(t.Name()) + day/days) % len(all)
	return all[n : n+1]
}

// today returns the number of the day. all is true if all tests run.
func today() (day int, all bool) {
	date := time.Now()
	switch value := os.Getenv(Variable); value {
	case "":
		return 0, true
	case "today":
	default:
		var err error
		if date, err = time.Parse(time.DateOnly, value); err != nil {
			panic(fmt.Sprintf("%s is %q, which is neither today nor a date: %v", Variable, value, err))
		}
	}
	return int(date.Unix() / 86400), false
}

// number returns a number for a name that distributes tests over the days.
func number(name string) int {
	h := fnv.New32a()
	h.Write([]byte(name))
	return int(h.Sum32() >> 1) // fits into an int on every system
}
