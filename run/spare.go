package run

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"bake/builder/amazon"
	"bake/step"
)

// Reason is why a sweep leaves something alone.
type Reason string

// The reasons to leave something alone.
const (
	inProgress Reason = "in-progress"       // its run is in progress on this host
	wasKept    Reason = "kept"              // by -on-error=keep
	goesOn     Reason = "by-stages"         // another host may be continuing it
	unknown    Reason = "unreadable-ledger" // it is unknown whether its run is over
	tooYoung   Reason = "too-young"
	ageless    Reason = "unknown-age"
)

// Spared describes resources of a run that a sweep leaves alone.
type Spared struct {
	Run       string
	Started   time.Time // when the run started; zero if unknown
	Why       Reason
	Resources []step.Resource
}

// String describes the reason, and how to delete the resources anyway.
func (s Spared) String() string {
	id := s.Run
	if id == "" {
		id = "unknown"
	}
	var b strings.Builder
	switch s.Why {
	case inProgress:
		fmt.Fprintf(&b, "Run %s is in progress and is not swept:", id)
	case wasKept:
		fmt.Fprintf(&b, "Run %s was kept (-on-error=keep) and is not swept. To delete it: bake sweep -run %s", id, id)
	case goesOn:
		fmt.Fprintf(&b, "Run %s belongs to a cell of a fleet, and another worker may be continuing it, so it is not swept. If it has ended: bake sweep -run %s", id, id)
	case unknown:
		fmt.Fprintf(&b, "Run %s is not swept, since its ledger cannot be read. If it is over: bake sweep -tags -run %s", id, id)
	case tooYoung:
		fmt.Fprintf(&b, "Not old enough (run %s):", id)
	case ageless:
		fmt.Fprintf(&b, "Not swept, because their age is unknown (run %s). If the run has ended: bake sweep -tags -run %s", id, id)
	}
	for _, r := range s.Resources {
		fmt.Fprintf(&b, "\n  %s", r)
	}
	return b.String()
}

// SweptResource is the result of a sweep for one resource.
type SweptResource struct {
	Resource step.Resource `json:"resource"`
	Region   string        `json:"region,omitempty"`
	Run      string        `json:"run"`
	Created  time.Time     `json:"created,omitzero"` // for a resource in a ledger: when its run started
	Action   string        `json:"action"`           // deleted, would-delete, failed or spared
	Why      Reason        `json:"reason,omitempty"` // why it was spared
	Error    string        `json:"error,omitempty"`  // why it was not deleted
}

// spare reports the runs that are left alone.
func (o SweepOptions) spare(all []Spared) {
	for _, s := range all {
		if o.Local && !onThisHost(s.Resources) {
			continue
		}
		if o.Spared != nil {
			o.Spared(s)
		}
		for _, r := range s.Resources {
			if o.Resource != nil {
				o.Resource(SweptResource{Resource: r, Region: r.Where, Run: s.Run, Created: latest(created(r), s.Started), Action: "spared", Why: s.Why})
			}
		}
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// created returns when the cloud created r, or the zero time if that is unknown.
func created(r step.Resource) time.Time {
	at, err := time.Parse(time.RFC3339, r.With[amazon.WithCreated])
	if err != nil {
		return time.Time{}
	}
	return at
}

// old returns the reason why something created at that time is too young to be deleted,
// or "".
func (o SweepOptions) old(at time.Time) Reason {
	switch {
	case o.OlderThan == 0:
		return ""
	case at.IsZero():
		return ageless
	case o.Now().Sub(at) < o.OlderThan:
		return tooYoung
	}
	return ""
}

// young reports whether the resources of d are too young to be deleted, or of unknown
// age, and if so passes them to spare. Resources found by tags have been filtered already.
func (o SweepOptions) young(d dead) bool {
	if o.Tags != nil {
		return false
	}
	why := o.old(d.header.Started)
	if why != "" {
		o.spare([]Spared{{d.header.Run, d.header.Started, why, d.owned}})
	}
	return why != ""
}

// choose returns the resources found by tags that the sweep must delete, and reports the
// others, grouped by run.
func (o SweepOptions) choose(found []step.Resource, all survey) (chosen []step.Resource) {
	var spared []Spared
	for _, r := range found {
		run := r.With[amazon.WithRun]
		why := all.others[run]
		if why == "" || o.Run != "" && why == unknown { // the user confirms that it is over
			why = o.old(created(r))
		}
		if why == "" {
			chosen = append(chosen, r)
			continue
		}
		i := slices.IndexFunc(spared, func(s Spared) bool { return s.Run == run && s.Why == why })
		if i < 0 {
			i, spared = len(spared), append(spared, Spared{Run: run, Why: why})
		}
		spared[i].Resources = append(spared[i].Resources, r)
	}
	o.spare(spared)
	return chosen
}

// fates are the errors of deletions for one run, by resource key.
type fates struct {
	mu  sync.Mutex
	why map[string]error
}

// watch wraps destroyers so that their errors are recorded.
func (f *fates) watch(all step.Destroyers) step.Destroyers {
	watched := step.Destroyers{}
	for prefix, d := range all {
		watched[prefix] = step.DestroyerFunc(func(ctx context.Context, r step.Resource) error {
			err := d.Destroy(ctx, r)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.why[r.Key] = err
			return err
		})
	}
	return watched
}

// tell reports the result for each resource of a run. err is the error of the run.
func (o SweepOptions) tell(d dead, s SweptRun, f *fates, err error) {
	if o.Resource == nil {
		return
	}
	for _, r := range s.Owned {
		one := SweptResource{Resource: r, Region: r.Where, Run: d.header.Run, Created: created(r), Action: "deleted"}
		if o.Tags == nil {
			one.Created = latest(one.Created, d.header.Started)
		}
		if run := r.With[amazon.WithRun]; run != "" {
			one.Run = run
		}
		switch {
		case o.DryRun:
			one.Action = "would-delete"
		case slices.ContainsFunc(s.Left, func(l step.Resource) bool { return l.Key == r.Key }):
			one.Action = "failed"
			if why := cmp.Or(f.why[r.Key], err); why != nil {
				one.Error = why.Error()
			}
		}
		o.Resource(one)
	}
}
