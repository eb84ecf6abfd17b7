package images

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// The guards: each is a way in which an image can be in use.
const (
	GuardHeld       = "held"       // by its tag bake:hold, or by deregistration protection
	GuardChannel    = "channel"    // a parameter of Systems Manager names it, or did before its last change, or has its ID in its text
	GuardInstances  = "instances"  // an instance that is not terminated was launched from it
	GuardReferences = "references" // what DescribeImageReferences finds, such as recipes of EC2 Image Builder
	GuardTemplates  = "templates"  // a launch template names it in its default or latest version
	GuardScaling    = "scaling"    // an Auto Scaling group or a launch configuration
	GuardFleets     = "fleets"     // an EC2 Fleet or a Spot Fleet that may launch more
	GuardRecent     = "recent"     // it was launched, or made, a short time ago
	GuardReceivers  = "receivers"  // an account that it is shared with uses it
	GuardChildren   = "children"   // images were made from it; they only cause warnings
)

// guardNames returns the names of all guards, in the order in which users of an image are
// listed.
func guardNames() []string {
	return []string{
		GuardHeld, GuardChannel, GuardInstances, GuardTemplates, GuardScaling, GuardFleets, GuardReferences, GuardRecent, GuardReceivers, GuardChildren,
	}
}

// HoldTag is the tag of images that must be kept. Its value says who requires that, and
// why.
const HoldTag = "bake:hold"

// Guards define how to find out whether an image is in use. The zero value runs all
// guards, with the usual limits.
type Guards struct {
	Ignore      []string      // guards that do not run
	Recent      time.Duration // how long ago a launch still counts; 0: a week
	AllVersions bool          // every version of a launch template guards, and not only the default and the latest
	Reports     bool          // query the accounts that an image is shared with, by a usage report; otherwise sharing counts as use
	Role        Role          // the role to assume in the accounts that an image is shared with, to query them directly
	Children    bool          // find images that were made from it
	Now         func() time.Time
}

// usualRecent is how long ago a launch counts as use. AWS reports launches up to a day
// late, so an image that is younger than settled may have been launched unnoticed.
const (
	usualRecent = 7 * 24 * time.Hour
	settled     = 48 * time.Hour
)

// Check returns an error if a name of an ignored guard is wrong.
func (g Guards) Check() error {
	for _, name := range g.Ignore {
		if !slices.Contains(guardNames(), name) {
			return fmt.Errorf("there is no guard %q; the guards are %s", name, strings.Join(guardNames(), ", "))
		}
	}
	return nil
}

func (g Guards) on(name string) bool { return !slices.Contains(g.Ignore, name) }

func (g Guards) now() time.Time {
	if g.Now == nil {
		return time.Now()
	}
	return g.Now()
}

// Use is a use of an image that a guard has found.
type Use struct {
	Guard   string `json:"guard"`
	User    string `json:"user"`              // such as "instance i-0abc (running)"
	Warning bool   `json:"warning,omitempty"` // it does not need the image
	Unknown bool   `json:"unknown,omitempty"` // the guard could not decide, which counts as use

	past     bool   // the user does not launch it now, but may later
	template bool   // it is a launch template that EC2 knows, in whichever version
	id       string // of the user, by which it is known if another guard has found it, too
	account  string // of the user, if that is another one
}

func (u Use) String() string {
	if u.Warning {
		return "warning: " + u.User
	}
	return u.Guard + ": " + u.User
}

// InUse reports whether one of the uses keeps an image.
func InUse(uses []Use) bool { return slices.ContainsFunc(uses, func(u Use) bool { return !u.Warning }) }

// Uses are the known uses of images, by image ID.
type Uses map[string][]Use

func (u Uses) add(image string, use Use) { u[image] = append(u[image], use) }

// asked is the largest number of images to query individually even if another guard has
// found them in use: for few images, the result lists all users.
const asked = 10

// Uses finds what uses images, which all belong to the account. It first makes the queries
// that cover all images of a region. It then queries images individually, but only those
// without a known use, or all if there are few. It returns no error: a guard that could
// not decide counts as a use.
func (a *Account) Uses(ctx context.Context, images []Image, g Guards) Uses {
	regions := map[string][]Image{}
	for _, i := range images {
		regions[i.Region] = append(regions[i.Region], i)
	}
	var (
		each errgroup.Group
		mu   sync.Mutex
		all  = Uses{}
	)
	each.SetLimit(regionsAtOnce)
	for region, in := range regions {
		each.Go(func() error {
			l := a.newUsageScan(region, in, g)
			l.all(ctx)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(all, l.uses)
			return nil
		})
	}
	_ = each.Wait() // a failure is a use
	return all
}

// usageScan is the search for what uses images in one region.
type usageScan struct {
	a      *Account
	region string
	g      Guards
	images []Image

	mu        sync.Mutex
	ids       []string // of images
	uses      Uses     // of images
	snapshots Uses     // of snapshots, which launch templates and fleets map
	named     []version
	aliases   []alias
	templates map[string]*template // by ID and by name
	failed    map[string]string    // why guards could not decide for the whole region
	broken    []Use                // users of resources that do not exist

	onFailure func(guard string, err error) // called for guards that could not decide; may be nil
}

func (a *Account) newUsageScan(region string, images []Image, g Guards) *usageScan {
	l := &usageScan{a: a, region: region, g: g, images: images, uses: Uses{}, snapshots: Uses{}, templates: map[string]*template{}, failed: map[string]string{}}
	for _, i := range images {
		l.ids = append(l.ids, i.ID)
	}
	return l
}

// all runs all guards.
func (l *usageScan) all(ctx context.Context) {
	l.held()
	l.recent()
	l.users(ctx)
	open := l.images
	if len(open) > asked {
		open = slices.DeleteFunc(slices.Clone(open), func(i Image) bool { return InUse(l.uses[i.ID]) })
	}
	l.single(ctx, open)
	l.finish()
}

// single runs the guards that query images individually or a few at a time.
func (l *usageScan) single(ctx context.Context, open []Image) {
	var each errgroup.Group
	for guard, ask := range map[string]func(context.Context, []Image) error{
		GuardReferences: l.references, GuardReceivers: l.receivers, GuardChildren: l.children,
	} {
		each.Go(func() error {
			if l.g.on(guard) && (guard != GuardChildren || l.g.Children) && len(open) > 0 {
				l.unless(guard, ask(ctx, open))
			}
			return nil
		})
	}
	_ = each.Wait() // a failure is a use
}

// users runs the guards that query a whole region.
func (l *usageScan) users(ctx context.Context) {
	l.launchers(ctx, map[string]func(context.Context) error{GuardInstances: l.instances, GuardChannel: l.channels})
	l.resolve(ctx)
}

// launchers finds resources that will launch machines, and runs more guards concurrently.
// Afterwards, l.aliases holds the resources that name their image by a parameter.
func (l *usageScan) launchers(ctx context.Context, more map[string]func(context.Context) error) {
	guards := map[string]func(context.Context) error{GuardScaling: l.scaling, GuardFleets: l.fleets}
	maps.Copy(guards, more)
	var each errgroup.Group
	for guard, ask := range guards {
		each.Go(func() error {
			if l.g.on(guard) {
				l.unless(guard, ask(ctx))
			}
			return nil
		})
	}
	needed := l.g.on(GuardTemplates) || l.g.on(GuardScaling) || l.g.on(GuardFleets)
	each.Go(func() error {
		if needed {
			l.unless(GuardTemplates, l.launchTemplates(ctx))
		}
		return nil
	})
	_ = each.Wait() // a failure is a use
	if needed {
		l.namedVersions(ctx)
	}
}

// unless records, if there is an error, that a guard could not decide.
func (l *usageScan) unless(guard string, err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.failed[guard]; ok {
		return
	}
	l.failed[guard] = fmt.Sprintf("could not tell in %s: %s", l.region, err)
	if l.g.on(guard) && l.onFailure != nil {
		l.onFailure(guard, err)
	}
}

// use records a use of an image, whether it is named by ID or by a parameter.
func (l *usageScan) use(image string, u Use) {
	if !l.g.on(u.Guard) || image == "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if name, ok := strings.CutPrefix(image, aliasPrefix); ok {
		l.aliases = append(l.aliases, alias{name, u})
		return
	}
	l.uses.add(image, u)
}

// held records which images have to be kept regardless of their use.
func (l *usageScan) held() {
	for _, i := range l.images {
		if why, ok := i.Tags[HoldTag]; ok {
			l.use(i.ID, Use{Guard: GuardHeld, User: strings.TrimSuffix("held by the tag "+HoldTag+": "+why, ": ")})
		}
		if i.protected() {
			l.use(i.ID, Use{Guard: GuardHeld, User: "deregistration protection: " + i.Protection})
		}
	}
}

// recent records images that may be in use in a way that leaves no other trace, such as
// launches by programs.
func (l *usageScan) recent() {
	now, window := l.g.now(), cmp.Or(l.g.Recent, usualRecent)
	for _, i := range l.images {
		switch {
		case i.LastLaunched != nil && now.Sub(*i.LastLaunched) < window:
			l.use(i.ID, Use{Guard: GuardRecent, User: "last launched on " + i.LastLaunched.Format(time.DateTime) + " UTC, less than " + days(window) + " ago"})
		case now.Sub(i.Created) < settled:
			l.use(i.ID, Use{Guard: GuardRecent, User: "created on " + i.Created.Format(time.DateTime) + " UTC; AWS may not have reported its launches yet, which takes up to " + days(settled)})
		}
	}
}

// days formats a duration for people.
func days(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
	return d.String()
}

// finish sorts the uses and drops references that another guard has found too. A guard that
// could not decide counts as a use of each image.
func (l *usageScan) finish() {
	for guard, text := range l.failed {
		for _, id := range l.ids {
			if l.g.on(guard) {
				l.uses.add(id, Use{Guard: guard, User: text, Unknown: true})
			}
		}
	}
	order := map[string]int{}
	for n, name := range guardNames() {
		order[name] = n
	}
	for id, uses := range l.uses {
		known := map[string]bool{}
		for _, u := range uses {
			if u.Guard != GuardReferences && u.id != "" {
				known[u.id] = true
			}
		}
		uses = slices.DeleteFunc(uses, func(u Use) bool { return u.Guard == GuardReferences && !u.Unknown && known[u.id] })
		sort.SliceStable(uses, func(i, j int) bool {
			a, b := uses[i], uses[j]
			return cmp.Or(cmp.Compare(order[a.Guard], order[b.Guard]), strings.Compare(a.User, b.User)) < 0
		})
		l.uses[id] = slices.Compact(uses)
	}
	for id := range l.uses {
		if !slices.Contains(l.ids, id) {
			delete(l.uses, id)
		}
	}
}
