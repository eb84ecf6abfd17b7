package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/ownership"
	"bake/internal/imagetag"
	"bake/internal/lazyregexp"
)

// PruneOptions select the images to prune.
type PruneOptions struct {
	Query             // the images to examine, among the account's own
	Spare    []string // names and IDs of images that are not changed, regardless of their age
	Keep     int      // number of newest available images of each group that are not changed; at least 1
	Stages   Stages   // for the others
	Max      Share    // maximum number of images of a group to disable, and to remove, in one run
	Together bool     // all of them are releases of one image, regardless of their names
	Guards   Guards
	To       builder.Distribution // of the images
}

// Share is a number of images, or a percentage of all images.
type Share struct {
	N       int
	Percent bool
}

// ParseShare reads "5" or "20%".
func ParseShare(text string) (Share, error) {
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 || strings.HasPrefix(number, "+") {
		return Share{}, fmt.Errorf("%q is neither a number of images, such as 5, nor a percentage from 1%% to 100%%", text)
	}
	return Share{n, percent}, nil
}

func (s Share) String() string {
	if s.Percent {
		return strconv.Itoa(s.N) + "%"
	}
	return strconv.Itoa(s.N)
}

// of returns how many of n images the share is, at least 1.
func (s Share) of(n int) int {
	if s.Percent {
		return max(1, n*s.N/100)
	}
	return s.N
}

// The actions of a [Plan] on an image.
const (
	PlanKeep      = "keep"      // it is one of the newest, or too young
	PlanDeprecate = "deprecate" // others no longer find it, but can still launch it
	PlanDisable   = "disable"   // the image cannot be launched until it is enabled again
	PlanRemove    = "remove"    // it is removed
	PlanUsed      = "in-use"    // it would change if nothing used it
	PlanLater     = "later"     // it would change, but not in this run
)

// Planned is the planned action on an image, and its reason.
type Planned struct {
	Image  Image  `json:"image"`
	Group  string `json:"group"`
	Action string `json:"action"`
	Reason string `json:"reason"`
	Uses   []Use  `json:"uses,omitempty"`

	want string // the action, if nothing prevents it
}

// acts reports whether the plan changes the image.
func (p *Planned) acts() bool { return p.Action != "" && p.Action == p.want }

// Plan is the list of changes that pruning would make.
type Plan struct {
	Images []Planned `json:"images"` // by group and region, the newest first

	groups []*planGroup
}

// Empty reports whether the plan changes nothing.
func (p *Plan) Empty() bool {
	return !slices.ContainsFunc(p.Images, func(i Planned) bool { return i.acts() })
}

// Count returns how many images have an action, and the total size of their volumes.
func (p *Plan) Count(action string) (n int, gib int64) {
	for _, i := range p.Images {
		if i.Action == action {
			n++
			gib += int64(i.Image.size())
		}
	}
	return n, gib
}

// planGroup is the releases of one image in one region.
type planGroup struct {
	name, region string
	images       []*Planned // newest first
	most         int        // maximum number to disable, and to remove, in one run
}

// Plan decides what to do with the images. If some regions fail, it returns a plan for the
// others, with an error that joins the failures: without a complete list of the images of a
// region, no image is removed there.
func (a *Account) Plan(ctx context.Context, o PruneOptions) (*Plan, error) {
	o.Owners = []string{"self"}
	o.OlderThan = 0 // younger images count towards the number to keep
	all, err := a.List(ctx, o.Query)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	plan := &Plan{groups: grouped(all, o.Together)}
	var candidates []*Planned
	for _, g := range plan.groups {
		g.most = o.Max.of(len(g.images))
		candidates = append(candidates, g.decide(o)...)
	}
	a.guard(ctx, plan, candidates, o)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	for _, g := range plan.groups {
		for _, i := range g.images {
			plan.Images = append(plan.Images, *i)
		}
	}
	return plan, err
}

// PlanEach makes a plan in each account that holds images of o.To, as returned by
// [Account.Keepers], and calls do with the account, its guards and the plan; several
// reports whether there are further accounts. In another account, the guards do not use
// the role, because the owner of the images is responsible for whom they are shared with.
// An account that cannot be opened, or has no plan, does not affect the others; the error
// joins all failures.
func (a *Account) PlanEach(ctx context.Context, o PruneOptions, run string, do func(in *Account, g Guards, plan *Plan, several bool) error) error {
	keepers, err := a.Keepers(ctx, o.To, run)
	errs := []error{err}
	for _, in := range keepers {
		if context.Cause(ctx) != nil {
			break
		}
		there := o
		if in != a {
			there.Guards.Role = Role{}
		}
		plan, err := in.Plan(ctx, there)
		if errs = append(errs, err); plan != nil {
			errs = append(errs, do(in, there.Guards, plan, len(keepers) > 1))
		}
	}
	return errors.Join(errs...)
}

// guard queries the uses of the candidates, the oldest first: in bulk where possible, and
// individually for those that would be removed.
func (a *Account) guard(ctx context.Context, plan *Plan, candidates []*Planned, o PruneOptions) {
	bulk := o.Guards
	bulk.Ignore = append(slices.Clone(bulk.Ignore), GuardReferences, GuardReceivers)
	var ask []Image
	for _, c := range candidates {
		ask = append(ask, c.Image)
	}
	uses := a.Uses(ctx, ask, bulk)
	for _, c := range candidates {
		if c.Uses = needed(c.want, uses[c.Image.ID]); InUse(c.Uses) {
			c.Action, c.Reason = PlanUsed, "in use"
		} else if c.want == PlanDeprecate {
			c.Action = PlanDeprecate
		}
	}
	rest := o.Guards
	for _, name := range guardNames() {
		if name != GuardReferences && name != GuardReceivers {
			rest.Ignore = append(slices.Clone(rest.Ignore), name)
		}
	}
	for {
		var next []*Planned
		ask = nil
		for _, g := range plan.groups {
			for _, c := range g.next() {
				next, ask = append(next, c), append(ask, c.Image)
			}
		}
		if len(next) == 0 || context.Cause(ctx) != nil {
			return
		}
		uses := a.Uses(ctx, ask, rest)
		for _, c := range next {
			c.Uses = append(c.Uses, uses[c.Image.ID]...)
			if c.Action = c.want; InUse(c.Uses) {
				c.Action, c.Reason = PlanUsed, "in use"
			}
		}
	}
}

// next returns the oldest undecided images of the group, as many as may still be changed.
func (g *planGroup) next() (some []*Planned) {
	done := map[string]int{}
	for _, i := range g.images {
		if i.acts() {
			done[i.want]++
		}
	}
	for _, i := range slices.Backward(g.images) {
		if i.Action == PlanLater && done[i.want] < g.most {
			some = append(some, i)
			done[i.want]++
		}
	}
	return some
}

// Retained returns the options for a retention.
func Retained(r builder.Retention, most Share, g Guards) PruneOptions {
	if g.Role.ARN == "" {
		g.Role = roleOf(r.To, "")
	}
	o := PruneOptions{To: r.To, Keep: r.Keep, Stages: Stages{Deprecate: r.Deprecate, Disable: r.Disable, Delete: r.Delete}, Max: most, Guards: g}
	if r.Delete == 0 {
		o.Stages.Delete = Never
	}
	o.Filters = []Filter{{Name: "tag:" + ImageTag, Values: []string{exactly(r.Image)}}}
	return o
}

// grouped sorts images into groups, each of one architecture: by the tag bake:image, else
// by the name without times.
func grouped(all []Image, together bool) (groups []*planGroup) {
	by := map[string]*planGroup{}
	for _, i := range all {
		name := cmp.Or(i.Tags[ImageTag], stem(i.Name))
		if together {
			name = "all"
		}
		key := i.Region + "\x00" + name
		if !together {
			key += "\x00" + i.Architecture
		}
		if by[key] == nil {
			by[key] = &planGroup{name: name, region: i.Region}
		}
		by[key].images = append(by[key].images, &Planned{Image: i, Group: name})
	}
	groups = slices.Collect(maps.Values(by))
	sort.Slice(groups, func(i, j int) bool {
		a, b := groups[i], groups[j]
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.region, b.region)) < 0
	})
	for _, g := range groups {
		sort.Slice(g.images, func(i, j int) bool { return imagetag.Order(g.images[j].Image.made(), g.images[i].Image.made()) < 0 })
	}
	return groups
}

// times matches what templates put into names to make them unique: dates, with or without
// a time of day, seconds since 1970, and UUIDs.
var times = lazyregexp.New(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|\d{4}-\d{2}-\d{2}([T_ -]?\d{2}[:.-]?\d{2}([:.-]?\d{2})?Z?)?|\d{8}([T_-]?\d{4,6}Z?)?(\d{2,6})?|\d{10,14}`)

// stem returns the common part of the names of an image's releases.
func stem(name string) string { return times.Get().ReplaceAllString(name, "*") }

// decide determines which images of the group stay as they are regardless of their use,
// and returns the others. All operations that retire images use it. It does no I/O.
func (g *planGroup) decide(o PruneOptions) (candidates []*Planned) {
	stay := func(i *Planned, format string, args ...any) {
		i.Action, i.Reason = PlanKeep, fmt.Sprintf(format, args...)
	}
	newest := g.images[0].Image
	if why := unfinished(newest); why != "" {
		for _, i := range g.images {
			stay(i, "the newest of the group, %s, %s: nothing is removed before it has been replaced or removed", newest.ID, why)
		}
		return nil
	}
	available, current := 0, 0
	for _, i := range g.images {
		if run := i.Image.Tags[ownership.RunTag]; run != "" { // sweep deletes it, or the run ends well
			stay(i, "run %s of bake has not finished with it", run)
			continue
		}
		state := types.ImageState(i.Image.State)
		if _, revoked := i.Image.Tags[RevokedTag]; revoked || rejected(i.Image) {
			state = types.ImageStateInvalid // it must not be launched, even if EC2 allows it
		}
		if state == types.ImageStateAvailable {
			available++
			if i.Image.status(o.Guards.now()) == string(types.ImageStateAvailable) { // not deprecated
				current++
			}
		}
		action, why := o.Stages.next(i.Image, o.Guards.now())
		switch {
		case slices.Contains(o.Spare, i.Image.Name) || slices.Contains(o.Spare, i.Image.ID): // copies have the name
			stay(i, "this run has made or reused it")
		case state == types.ImageStateAvailable && available <= o.Keep:
			stay(i, "one of the newest %d", o.Keep)
		case state == types.ImageStateAvailable && current <= o.Keep && i.Image.status(o.Guards.now()) == string(types.ImageStateAvailable):
			stay(i, "one of the newest %d that are not deprecated", o.Keep)
		case state == types.ImageStatePending || state == types.ImageStateTransient:
			stay(i, "it is %s", state)
		case action == PlanKeep:
			stay(i, "%s", why)
		default:
			i.Action, i.want, i.Reason = PlanLater, action, fmt.Sprintf("not one of the newest %d", o.Keep)
			if why != "" {
				i.Reason += ", and " + why
			}
			candidates = append(candidates, i)
		}
	}
	if available < o.Keep {
		for _, i := range candidates {
			stay(i, "only %d of the group are available", available)
		}
		return nil
	}
	return candidates
}

// unfinished returns why an image does not count as a replacement for older ones; empty if
// it does.
func unfinished(i Image) string {
	switch types.ImageState(i.State) {
	case types.ImageStatePending, types.ImageStateFailed, types.ImageStateError, types.ImageStateInvalid, types.ImageStateTransient:
		return "is " + i.State
	}
	if rejected(i) {
		return "has failed its verification"
	}
	return ""
}

// rejected reports whether an image was kept although its verification has failed.
func rejected(i Image) bool {
	_, kept := i.Tags[ownership.RejectedTag]
	_, quarantined := i.Tags[ownership.QuarantineTag]
	return kept || quarantined
}

// Prune carries out the plan. It changes an image only if, at that moment, the image is as
// it was planned and not in use, and the images of its group that must stay still exist.
func (r *Remover) Prune(ctx context.Context, plan *Plan) error {
	var errs []error
	for _, g := range plan.groups {
		for _, i := range slices.Backward(g.images) {
			if !i.acts() {
				continue
			}
			if cause := context.Cause(ctx); cause != nil {
				return errors.Join(append(errs, cause)...)
			}
			err := r.stillKept(ctx, g)
			if err == nil {
				err = r.one(ctx, i.Image, i.Action)
			}
			if _, used := errors.AsType[*InUseError](err); err != nil && !(used && r.tolerant) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// stillKept returns an error if an image of the group that replaces the images to remove
// is no longer available.
func (r *Remover) stillKept(ctx context.Context, g *planGroup) error {
	var kept []string
	for _, i := range g.images {
		if i.Action == PlanKeep && i.Image.State == string(types.ImageStateAvailable) && i.Image.Tags[ownership.RunTag] == "" {
			kept = append(kept, i.Image.ID)
		}
	}
	for some := range slices.Chunk(kept, filterValues) {
		found, err := r.Account.byID(ctx, g.region, some...)
		if err != nil {
			return err
		}
		for _, id := range some {
			if !slices.ContainsFunc(found, func(i Image) bool { return i.ID == id && i.State == string(types.ImageStateAvailable) }) {
				return fmt.Errorf("image %s of the group %s in %s, which is one of those to keep, is not available any more; nothing else of the group is removed", id, g.name, g.region)
			}
		}
	}
	return nil
}
