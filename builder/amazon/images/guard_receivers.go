package images

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"bake/builder/amazon/internal/access"
)

// Receivers returns a guard for changes that remove images from accounts that they are
// shared with. It returns an *[InUseError] if one of the accounts uses them, as far as the
// guards are enabled.
func (a *Account) Receivers(g Guards) func(context.Context, []Shared, SharingChange) error {
	for _, name := range guardNames() {
		if name != GuardReceivers {
			g.Ignore = append(slices.Clone(g.Ignore), name)
		}
	}
	return func(ctx context.Context, losing []Shared, c SharingChange) error {
		images := imagesOf(losing)
		uses := a.Uses(ctx, images, g)
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		for _, s := range losing {
			uses[s.Image.ID] = slices.DeleteFunc(uses[s.Image.ID], func(u Use) bool { return u.account != "" && !c.takes(s.Before, u.account) })
			for _, who := range s.copiers(c) {
				if g.on(GuardReceivers) {
					uses.add(s.Image.ID, Use{Guard: GuardReceivers, User: fmt.Sprintf("the snapshots are shared with %s, but not the image: AWS does not tell whether there are images made of them", who), Unknown: true})
				}
			}
		}
		used := slices.DeleteFunc(slices.Clone(images), func(i Image) bool { return !InUse(uses[i.ID]) })
		if len(used) > 0 {
			return &InUseError{used, uses}
		}
		return nil
	}
}

// imagesAtOnce is how many images of a region are queried concurrently.
const imagesAtOnce = 8

// receivers finds out whether accounts use images that are shared with them. If there is a
// role to assume in an account, it queries the account directly; for the others, it asks
// AWS. A failure for one image does not affect the others.
func (l *usageScan) receivers(ctx context.Context, images []Image) error {
	var (
		each errgroup.Group
		mu   sync.Mutex
		has  = map[string][]Image{} // by the account that is queried directly
	)
	each.SetLimit(imagesAtOnce)
	for _, i := range images {
		each.Go(func() error {
			with, err := l.a.Sharing(ctx, i)
			if err != nil {
				l.use(i.ID, Use{Guard: GuardReceivers, User: fmt.Sprintf("whom it is shared with is not known: %s", err), Unknown: true})
				return nil
			}
			var asked []string
			if l.g.Role.ARN != "" {
				asked, with.Accounts = with.Accounts, nil
			}
			mu.Lock()
			for _, account := range asked {
				has[account] = append(has[account], i)
			}
			mu.Unlock()
			if !with.Empty() {
				l.received(ctx, i, with, asked)
			}
			return nil
		})
	}
	err := each.Wait()
	for account, images := range has {
		each.Go(func() error {
			l.inAccount(ctx, account, images)
			return nil
		})
	}
	return errors.Join(err, each.Wait())
}

// inAccount queries which resources of an account use images that are shared with it, with
// all guards that look for users.
func (l *usageScan) inAccount(ctx context.Context, account string, images []Image) {
	say := func(i Image, u Use) {
		l.use(i.ID, Use{Guard: GuardReceivers, User: "account " + account + ", which it is shared with" + u.User, Warning: u.Warning, Unknown: u.Unknown, account: account})
	}
	other, err := l.a.in(ctx, account, l.g.Role)
	var regions []string
	if err == nil {
		regions, err = other.enabled(ctx)
	}
	if err != nil {
		for _, i := range images {
			say(i, Use{User: ": whether it uses it is not known: " + err.Error(), Unknown: true})
		}
		return
	}
	g := l.g
	g.Role, g.Ignore = Role{}, []string{GuardHeld, GuardRecent, GuardReceivers}
	there := other.newUsageScan(l.region, images, g)
	if slices.Contains(regions, l.region) { // otherwise nothing can be launched there
		there.all(ctx)
	}
	for _, i := range images {
		for _, u := range there.uses[i.ID] {
			say(i, Use{User: ": " + u.User, Warning: u.Warning, Unknown: u.Unknown})
		}
		if len(there.uses[i.ID]) == 0 {
			say(i, Use{User: ", has nothing that uses it", Warning: true})
		}
	}
}

// received records which accounts use a shared image, except for those that were queried
// directly.
func (l *usageScan) received(ctx context.Context, i Image, with Sharing, asked []string) {
	shared := Use{Guard: GuardReceivers, User: fmt.Sprintf("shared with %s", with)}
	if !l.g.Reports {
		l.use(i.ID, shared)
		return
	}
	entries, err := l.report(ctx, i)
	if err != nil {
		shared.User += ": whether they use it is not known: " + err.Error()
		shared.Unknown = true
		l.use(i.ID, shared)
		return
	}
	used := false
	for _, e := range entries {
		if e.Count > 0 && e.Account != l.a.ID && !slices.Contains(asked, e.Account) {
			used = true
			what := strings.TrimPrefix(e.Kind, "ec2:")
			l.use(i.ID, Use{Guard: GuardReceivers, User: fmt.Sprintf("account %s, which it is shared with (%s: %d)", e.Account, what, e.Count), account: e.Account})
		}
	}
	if !used {
		shared.User += ", whom AWS's report of " + l.g.now().UTC().Format(time.DateTime) + " UTC does not show to use it; the last day may be missing from it"
		shared.Warning = true
		l.use(i.ID, shared)
	}
}

// reportEntry is the number of times an account uses an image.
type reportEntry struct {
	Account string `xml:"accountId"`
	Kind    string `xml:"resourceType"`
	Count   int64  `xml:"usageCount"`
}

// Waiting for a usage report.
const (
	reportPause = 15 * time.Second
	reportLimit = 10 * time.Minute
)

// report returns what AWS knows about the accounts that use an image. The data lags behind
// by a day, so it is requested once and cached.
func (l *usageScan) report(ctx context.Context, i Image) ([]reportEntry, error) {
	known := l.a.reports
	if entries, ok := known.get(i.ID); ok {
		return entries, nil
	}
	entries, err := l.makeReport(ctx, i)
	if err == nil {
		known.put(i.ID, entries)
	}
	return entries, err
}

// reports are usage reports, by image ID.
type reports struct {
	mu sync.Mutex
	of map[string][]reportEntry
}

func (r *reports) get(id string) (entries []reportEntry, ok bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	entries, ok = r.of[id]
	return entries, ok
}

func (r *reports) put(id string, entries []reportEntry) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.of[id] = entries
}

// makeReport makes EC2 create a report of the accounts that use an image, reads it, and
// deletes it; otherwise EC2 would delete it after 30 days.
func (l *usageScan) makeReport(ctx context.Context, i Image) (entries []reportEntry, err error) {
	q := l.a.session.EC2Query(l.region)
	var made struct {
		ID string `xml:"reportId"`
	}
	err = q.Do(ctx, "CreateImageUsageReport", url.Values{
		"ImageId": {i.ID}, "ClientToken": {uuid.NewString()}, "ResourceType.1.ResourceType": {"ec2:Instance"}, "ResourceType.2.ResourceType": {"ec2:LaunchTemplate"},
	}, &made)
	if err != nil {
		return nil, err
	}
	defer func() { // the report is free and expires, so a failure does not matter
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = q.Do(last, "DeleteImageUsageReport", url.Values{"ReportId": {made.ID}}, &struct{}{})
	}()
	said := false
	err = l.a.session.Watch(reportPause, reportLimit).Until(ctx, "the usage report of image "+i.ID, func(ctx context.Context) (bool, error) {
		var reports struct {
			Reports []struct {
				ID     string `xml:"reportId"`
				State  string `xml:"state"`
				Reason string `xml:"stateReason"`
			} `xml:"imageUsageReportSet>item"`
		}
		err := q.Do(ctx, "DescribeImageUsageReports", url.Values{"ReportId.1": {made.ID}}, &reports)
		if err != nil && !access.NotFound(err) {
			return false, err
		}
		for _, r := range reports.Reports {
			if r.ID == made.ID && r.State == "error" {
				return false, fmt.Errorf("AWS could not make the usage report: %s", r.Reason)
			} else if r.ID == made.ID && r.State == "available" {
				return true, nil
			}
		}
		if !said {
			said = true
			l.a.say(ctx, "Waiting until AWS has made its report of who uses image %s in %s, for at most %s.", i.ID, l.region, reportLimit)
		}
		return false, nil
	})
	if err != nil {
		return nil, err
	}
	var page struct {
		Entries []reportEntry `xml:"imageUsageReportEntrySet>item"`
		Token   string        `xml:"nextToken"`
	}
	err = queryPages(ctx, q, "DescribeImageUsageReportEntries", url.Values{"ReportId.1": {made.ID}}, &page, func() string {
		entries = append(entries, page.Entries...)
		return page.Token
	})
	return entries, err
}
