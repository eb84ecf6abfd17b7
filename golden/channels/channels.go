// Package channels decides which image a channel may name. It does no I/O.
package channels

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Rule holds the requirements of a channel for an image.
type Rule struct {
	Name     string
	Requires []string      // such as verify.boot; each must have passed
	From     string        // channel that must name the image first; empty: none
	Soak     time.Duration // how long From must have named it
	Approval bool          // the image must have been approved for this channel
}

// State is what is known about an image.
type State struct {
	Passed   []string  // the checks that it has passed
	Untold   bool      // the passed checks are not known
	In       bool      // From names it, everywhere
	Since    time.Time // From has named it everywhere
	Approved bool
	Now      time.Time
}

// Wait holds what an image waits for if only time or an approval keeps it out of a
// channel. The zero value means that the image may enter, or that waiting would not help.
type Wait struct {
	Until    time.Time // when From will have named it for long enough; zero: it has already
	Approval bool      // an approval is missing
}

// Closed returns why the image may not enter the channel; empty if it may. wait is what
// the image waits for, if waiting is sufficient.
func (r Rule) Closed(s State) (reasons []string, wait Wait) {
	for _, name := range r.Requires {
		switch {
		case s.Untold:
			return []string{"its tags do not say which checks it has passed; build it again"}, Wait{}
		case !slices.Contains(s.Passed, name):
			reasons = append(reasons, name+" has not passed")
		}
	}
	if r.From != "" && !s.In {
		reasons = append(reasons, fmt.Sprintf("channel %s does not name it", r.From))
	}
	never := len(reasons) > 0
	if r.From != "" && s.In && s.Now.Sub(s.Since) < r.Soak {
		wait.Until = s.Since.Add(r.Soak).UTC()
		reasons = append(reasons, fmt.Sprintf("it must have been in channel %s for %s, which is so from %s on", r.From, r.Soak, wait.Until.Format(time.RFC3339)))
	}
	if wait.Approval = r.Approval && !s.Approved; wait.Approval {
		reasons = append(reasons, "nobody has approved it: bake images approve AMI "+r.Name)
	}
	if never {
		return reasons, Wait{}
	}
	return reasons, wait
}

// Parameter returns the default parameter name of a channel of an image.
func Parameter(image, channel string) string { return "/bake/" + image + "/" + channel }

// ApprovalTag returns the key of the tag that records who approved an image for a channel,
// and when.
func ApprovalTag(channel string) string { return "bake:approved:" + channel }

// Passed returns the names in a bake:verified tag. It returns false if the tag holds a
// digest, because there were too many names.
func Passed(tag string) ([]string, bool) {
	if tag == "" {
		return nil, true
	}
	if strings.HasPrefix(tag, "sha256:") {
		return nil, false
	}
	return strings.Split(tag, ","), true
}
