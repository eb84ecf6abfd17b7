package images

import (
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Stages are the ages at which old releases of an image are deprecated, disabled and
// deleted. Each stage follows [minPause] after the one before at the earliest, so that users
// who still need an image notice while it can be enabled again.
type Stages struct {
	Deprecate, Disable time.Duration // 0: never
	Delete             time.Duration // 0: at any age; or Never
}

// Never is the age at which images are not deleted.
const Never = time.Duration(-1)

// minPause is the minimum duration of each stage in the life of an image.
const minPause = 7 * 24 * time.Hour

// soon is the margin within which a coming deprecation counts as begun, because EC2 accepts
// no deprecation time in the past.
const soon = 5 * time.Minute

// DisabledTag records since when an image is disabled, and SharedTag whom it was shared
// with before, because EC2 does not keep either. If a value does not fit into one tag, it
// continues in others, whose keys end in -2, -3 and so on.
const (
	DisabledTag = "bake:disabled"
	SharedTag   = "bake:shared"
)

// next returns the action for an image that is not kept, and its reason. For an image that
// stays for now, why is the reason for that.
func (s Stages) next(i Image, now time.Time) (action, why string) {
	var (
		available  = i.State == string(types.ImageStateAvailable) && !rejected(i)
		disabled   = i.State == string(types.ImageStateDisabled) && !rejected(i)
		deprecated = i.Deprecated != nil && i.Deprecated.Before(now.Add(soon))
		after      time.Duration
		last       *time.Time // when the previous stage began, if there is one
		was        string
	)
	since := i.disabledSince()
	switch {
	case available && !deprecated && s.Deprecate > 0:
		action, after = PlanDeprecate, s.Deprecate
	case available && s.Disable > 0:
		action, after = PlanDisable, s.Disable
		if s.Deprecate > 0 {
			last, was = i.Deprecated, "deprecated"
		}
	case disabled && s.Disable > 0 && since == nil && s.Delete != Never:
		return PlanDisable, "it is disabled, but it is not known since when: its time counts from now on"
	case s.Delete != Never:
		action, after = PlanRemove, s.Delete
		if disabled && s.Disable > 0 {
			last, was = since, "disabled"
		} else if available && s.Deprecate > 0 {
			last, was = i.Deprecated, "deprecated"
		}
	default:
		return PlanKeep, "no further stage applies to it"
	}
	if now.Sub(i.Created) < after {
		return PlanKeep, "younger than " + days(after)
	}
	if last != nil && now.Before(last.Add(minPause)) {
		return PlanKeep, fmt.Sprintf("to be %s on %s, %s after it was %s", participle(action), last.Add(minPause).UTC().Format(time.DateOnly), days(minPause), was)
	}
	if after > 0 {
		why = "older than " + days(after)
	}
	return action, why
}

// participle returns the past participle of an action's verb.
func participle(action string) string {
	return map[string]string{PlanDeprecate: "deprecated", PlanDisable: "disabled", PlanRemove: "removed"}[action]
}

// disabledSince returns when an image was disabled; nil if that is not known.
func (i Image) disabledSince() *time.Time {
	text := i.Tags[DisabledTag]
	return moment(&text)
}

// needed returns the uses that prevent an action on an image. Deprecation does not prevent
// launches: only images that are held or distributed must not be deprecated.
func needed(action string, uses []Use) []Use {
	if action != PlanDeprecate {
		return uses
	}
	return slices.DeleteFunc(slices.Clone(uses), func(u Use) bool { return u.Guard != GuardHeld && u.Guard != GuardChannel })
}
