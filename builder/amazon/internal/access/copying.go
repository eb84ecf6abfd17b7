package access

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Copying decides whether a copy of an image that EC2 gives up is made again. A copy that
// failed is made up to three times. While a region makes as many copies as it may at once,
// which ends by itself, others wait their turn, for 180 times Pace.Retry: half an hour on
// AWS.
type Copying struct {
	Pace Pace

	failed int // copies
	pause  time.Duration
	waited time.Duration
}

// copies is the maximum number of attempts to make a copy.
const copies = 3

// Again returns the pause before the copy that ended with err is made again, and a phrase
// that says so, or false if it is not to be made again.
func (c *Copying) Again(err error) (pause time.Duration, text string, ok bool) {
	var broken *ImageError
	switch {
	case Is(err, "ResourceLimitExceeded") && strings.Contains(err.Error(), "in progress"):
		if c.waited >= 180*c.Pace.Retry {
			return 0, "", false
		}
		text = "copying again when others have finished"
	case errors.As(err, &broken) || Is(err, "ResourceLimitExceeded", "InternalError"):
		if c.failed++; c.failed == copies {
			return 0, "", false
		}
		text = fmt.Sprintf("copying again (attempt %d of %d)", c.failed+1, copies)
	default:
		return 0, "", false
	}
	c.pause = min(max(c.Pace.Retry, 3*c.pause), 9*c.Pace.Retry)
	c.waited += c.pause
	return c.pause, text, true
}
