package images_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/step"
)

const day = 24 * time.Hour

// life has typical stages.
var life = images.Stages{Deprecate: 30 * day, Disable: 60 * day, Delete: 120 * day}

// TestStages: the actions on an image by its age and state, with a fixed clock.
func TestStages(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	ago := func(days int) *time.Time { at := now.Add(-time.Duration(days) * day); return &at }
	stamp := func(days int) string { return ago(days).Format(time.RFC3339) }
	newest := images.Image{ID: "ami-2", Name: "web-20260531", State: "available", Created: *ago(1)}
	for _, c := range []struct {
		what   string
		image  images.Image
		stages images.Stages
		want   string
	}{
		{"young", images.Image{State: "available", Created: *ago(29)}, life, "keep: younger than 30 days"},
		{"to deprecate", images.Image{State: "available", Created: *ago(30)}, life, "deprecate: not one of the newest 1, and older than 30 days"},
		{"old, and never seen before", images.Image{State: "available", Created: *ago(300)}, life, "deprecate: not one of the newest 1, and older than 30 days"},
		{"to be deprecated by the template", images.Image{State: "available", Created: *ago(31), Deprecated: ago(-300)}, life, "deprecate: not one of the newest 1, and older than 30 days"},
		{"just deprecated", images.Image{State: "available", Created: *ago(90), Deprecated: aws.Time(now.Add(2 * time.Minute))}, life, "keep: to be disabled on 2026-06-08, 7 days after it was deprecated"},
		{"deprecated", images.Image{State: "available", Created: *ago(59), Deprecated: ago(29)}, life, "keep: younger than 60 days"},
		{"to disable", images.Image{State: "available", Created: *ago(60), Deprecated: ago(30)}, life, "disable: not one of the newest 1, and older than 60 days"},
		{"deprecated this week", images.Image{State: "available", Created: *ago(300), Deprecated: ago(6)}, life, "keep: to be disabled on 2026-06-02, 7 days after it was deprecated"},
		{"deprecated a week ago", images.Image{State: "available", Created: *ago(300), Deprecated: ago(7)}, life, "disable: not one of the newest 1, and older than 60 days"},
		{"disabled", images.Image{State: "disabled", Created: *ago(119), Deprecated: ago(89), Tags: map[string]string{images.DisabledTag: stamp(59)}}, life, "keep: younger than 120 days"},
		{"disabled this week", images.Image{State: "disabled", Created: *ago(300), Tags: map[string]string{images.DisabledTag: stamp(6)}}, life, "keep: to be removed on 2026-06-02, 7 days after it was disabled"},
		{"to remove", images.Image{State: "disabled", Created: *ago(300), Tags: map[string]string{images.DisabledTag: stamp(7)}}, life, "remove: not one of the newest 1, and older than 120 days"},
		{"disabled by somebody", images.Image{State: "disabled", Created: *ago(300)}, life, "disable: not one of the newest 1, and it is disabled, but it is not known since when: its time counts from now on"},
		{"disabled by somebody, with a wrong tag", images.Image{State: "disabled", Created: *ago(300), Tags: map[string]string{images.DisabledTag: "long ago"}}, life, "disable: not one of the newest 1, and it is disabled, but it is not known since when: its time counts from now on"},
		{"enabled again", images.Image{State: "available", Created: *ago(300), Deprecated: ago(200), Tags: map[string]string{images.DisabledTag: stamp(100)}}, life, "disable: not one of the newest 1, and older than 60 days"},
		{"failed", images.Image{State: "failed", Created: *ago(90)}, life, "keep: younger than 120 days"},
		{"failed long ago", images.Image{State: "failed", Created: *ago(121)}, life, "remove: not one of the newest 1, and older than 120 days"},
		{"pending", images.Image{State: "pending", Created: *ago(121)}, life, "keep: it is pending"},
		{"quarantined", images.Image{State: "disabled", Created: *ago(121), Tags: map[string]string{"bake:quarantine": "run"}}, life, "remove: not one of the newest 1, and older than 120 days"},
		{"rejected", images.Image{State: "available", Created: *ago(90), Tags: map[string]string{"bake:rejected": "run"}}, life, "keep: younger than 120 days"},
		{"never deleted", images.Image{State: "disabled", Created: *ago(900), Tags: map[string]string{images.DisabledTag: stamp(800)}}, images.Stages{Disable: 60 * day, Delete: images.Never}, "keep: no further stage applies to it"},
		{"never deleted, disabled by somebody", images.Image{State: "disabled", Created: *ago(900)}, images.Stages{Disable: 60 * day, Delete: images.Never}, "keep: no further stage applies to it"},
		{"not deprecated first", images.Image{State: "available", Created: *ago(60)}, images.Stages{Disable: 60 * day, Delete: 120 * day}, "disable: not one of the newest 1, and older than 60 days"},
		{"not disabled first", images.Image{State: "available", Created: *ago(300), Deprecated: ago(8)}, images.Stages{Deprecate: 30 * day, Delete: 120 * day}, "remove: not one of the newest 1, and older than 120 days"},
		{"not disabled first, deprecated this week", images.Image{State: "available", Created: *ago(300), Deprecated: ago(1)}, images.Stages{Deprecate: 30 * day, Delete: 120 * day}, "keep: to be removed on 2026-06-07, 7 days after it was deprecated"},
		{"deleted at any age", images.Image{State: "available", Created: *ago(2)}, images.Stages{}, "remove: not one of the newest 1"},
	} {
		c.image.ID, c.image.Name = "ami-1", "web-20260101"
		for _, p := range images.Decide([]images.Image{c.image, newest}, images.PruneOptions{Keep: 1, Stages: c.stages, Guards: images.Guards{Now: func() time.Time { return now }}}) {
			got := p.Action + ": " + p.Reason
			if p.Image.ID == newest.ID && p.Action != images.PlanKeep {
				t.Errorf("%s: the newest: %s", c.what, got)
			}
			if p.Image.ID != newest.ID && got != c.want {
				t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
			}
		}
	}
}

// in returns a clock that is ahead.
func in(d time.Duration) func() time.Time { return func() time.Time { return time.Now().Add(d) } }

// TestRetire: an image goes through the stages, a week apart, and can be restored until
// the last.
func TestRetire(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ctx := t.Context()
	old := w.image(home, "web-20260101", "bake:image", "web")
	w.nextSecond()
	newest := w.image(home, "web-20260102", "bake:image", "web")
	many := []types.LaunchPermission{}
	for n := range 40 { // more than fit into one tag
		many = append(many, types.LaunchPermission{UserId: aws.String(fmt.Sprint(200000000000 + n))})
	}
	c := w.client("default", home)
	_, err := c.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &old, LaunchPermission: &types.LaunchPermissionModifications{Add: many}})
	w.fatal(err)
	w.watch(answering(nobody))
	a := w.open(home)
	run := func(now func() time.Time) (plan string, done []images.Removal) {
		t.Helper()
		g := images.Guards{Now: now, Ignore: []string{images.GuardReceivers}}
		p, err := a.Plan(ctx, images.PruneOptions{Query: images.Query{Filters: []images.Filter{{Name: "tag:bake:image", Values: []string{"web"}}}}, Keep: 1, Stages: life, Max: share(t, "1"), Guards: g})
		w.fatal(err)
		r := w.task(t).remover(a, g)
		r.OnRemoval = func(d images.Removal) { done = append(done, d) }
		w.fatal(r.Prune(ctx, p))
		return actions(p)["web-20260101"] + " " + actions(p)["web-20260102"], done
	}
	state := func() images.Image {
		t.Helper()
		found, err := a.Find(ctx, old)
		w.fatal(err)
		return found[0]
	}
	if got, _ := run(in(29 * day)); got != "keep keep" {
		t.Errorf("too young: %s", got)
	}
	if got, done := run(in(200 * day)); got != "deprecate keep" || len(done) != 1 || done[0].Outcome != images.Deprecated || state().Deprecated == nil {
		t.Errorf("deprecated: %s, %+v, %+v", got, done, state())
	}
	if got, _ := run(in(203 * day)); got != "keep keep" || state().State != "available" {
		t.Errorf("three days later: %s", got)
	}
	got, done := run(in(208 * day))
	if i := state(); got != "disable keep" || len(done) != 1 || done[0].Outcome != images.Disabled || len(done[0].Shared) != 40 || i.State != "disabled" || i.Tags[images.DisabledTag] == "" || i.Tags[images.SharedTag+"-3"] == "" {
		t.Errorf("disabled: %s, %+v, %+v", got, done, i.Tags)
	}
	if got, _ := run(in(210 * day)); got != "keep keep" {
		t.Errorf("two days later: %s", got)
	}
	// When it is enabled, it is available again, and shared as before.
	enabled, err := a.Enable(ctx, old)
	w.fatal(err)
	with, err := a.Sharing(ctx, state())
	w.fatal(err)
	if i := state(); len(enabled) != 1 || i.State != "available" || len(with.Accounts) != 40 || slices.ContainsFunc([]string{images.DisabledTag, images.SharedTag, images.SharedTag + "-3"}, func(k string) bool { return i.Tags[k] != "" }) {
		t.Errorf("enabled: %v, shared with %v, %v", i.State, with.Accounts, i.Tags)
	}
	// Tags of an earlier disabling that EnableImage itself has left are ignored.
	_, err = c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{old}, Tags: []types.Tag{{Key: aws.String(images.SharedTag + "-7"), Value: aws.String(bob)}}})
	w.fatal(err)
	if got, _ := run(in(210 * day)); got != "disable keep" || state().Tags[images.SharedTag+"-7"] != "" || state().Tags[images.SharedTag+"-3"] == "" {
		t.Errorf("disabled again: %s, %v", got, state().Tags)
	}
	// An image that is enabled between plan and removal stays.
	g := images.Guards{Now: in(220 * day), Ignore: []string{images.GuardReceivers}}
	plan, err := a.Plan(ctx, images.PruneOptions{Keep: 1, Stages: life, Max: share(t, "1"), Guards: g})
	w.fatal(err)
	_, err = c.EnableImage(ctx, &ec2.EnableImageInput{ImageId: &old})
	w.fatal(err)
	if err := w.task(t).remover(a, g).Prune(ctx, plan); err == nil || !strings.Contains(err.Error(), "was disabled, and is available now") || state().State != "available" {
		t.Errorf("enabled in between: %v", err)
	}
	_, err = c.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &old})
	w.fatal(err)
	if got, done := run(in(220 * day)); got != "remove keep" || len(done) != 1 || done[0].Outcome != images.Removed {
		t.Errorf("removed: %s, %+v", got, done)
	}
	if left := w.holdings(home); len(left) != 2 || left[0] != newest {
		t.Errorf("left: %v", left)
	}
}

// TestRetireGuarded: fewer uses prevent a deprecation than prevent disabling or removal.
func TestRetireGuarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	ids := w.releases("web-20260101", "web-20260102", "web-20260103", "web-20260104")
	w.template("web", ids["web-20260101"])
	w.parameter("/golden/web", ids["web-20260102"])
	w.watch(answering(nobody))
	a := w.open(home)
	plan := func(s images.Stages) string {
		p, err := a.Plan(t.Context(), images.PruneOptions{Keep: 1, Stages: s, Max: share(t, "100%"), Guards: images.Guards{Now: in(200 * day)}})
		w.fatal(err)
		all := actions(p)
		return all["web-20260101"] + " " + all["web-20260102"] + " " + all["web-20260103"]
	}
	if got := plan(life); got != "deprecate in-use deprecate" {
		t.Errorf("deprecation: %s", got)
	}
	if got := plan(images.Stages{Disable: day, Delete: images.Never}); got != "in-use in-use disable" {
		t.Errorf("disabling: %s", got)
	}
}

// TestDisableFaults: whatever call fails, an image is still shared, or its tags record whom
// it was shared with.
func TestDisableFaults(t *testing.T) {
	t.Parallel()
	o := images.PruneOptions{Query: images.Query{Name: "web-*"}, Keep: 1, Stages: images.Stages{Disable: day, Delete: images.Never}, Max: images.Share{N: 100, Percent: true}}
	o.Guards = images.Guards{Now: later, Ignore: []string{images.GuardReceivers}}
	walk(t, func(ctx context.Context, task *task, a *images.Account) error {
		plan, err := a.Plan(ctx, o)
		if plan == nil {
			return err
		}
		return errors.Join(task.remover(a, o.Guards).Prune(ctx, plan), err)
	}, func(w *world) func(string) {
		w.clear()
		old := w.image(home, "web-20260101", "bake:image", "web")
		held := w.image(home, "web-20260102", "bake:image", "web", "bake:hold", "Ann")
		w.nextSecond()
		newest := w.image(home, "web-20260103", "bake:image", "web")
		for _, id := range []string{old, held, newest} {
			w.fatal(permit(w.client("default", home), id, types.LaunchPermission{UserId: aws.String(alice)}))
		}
		return func(where string) {
			for _, id := range []string{old, held, newest} {
				found, err := w.open(home).Find(context.WithoutCancel(t.Context()), id)
				w.fatal(err)
				i := found[0]
				with, _ := w.who(home, id)
				if i.State == "available" && !slices.Equal(with, []string{alice}) || i.State != "available" && (id != old || i.Tags[images.SharedTag] != alice || i.Tags[images.DisabledTag] == "") {
					t.Errorf("%s: %s is %s, shared with %v, and has the tags %v", where, i.Name, i.State, with, i.Tags)
				}
			}
		}
	}, "refused", "killed after")
}

// TestSecondLook: a use that begins between the first check and the removal of an image
// keeps it, although the region is not scanned again for each image.
func TestSecondLook(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ids := map[string]string{}
	for _, name := range []string{"web-a", "web-b", "web-c", "web-d"} {
		ids[name] = w.image(home, name)
	}
	template := w.template("web", ids["web-a"], ids["web-d"], "") // an older version has web-d
	w.watch(answering(nobody))
	a := w.open(home)
	var found []images.Image
	for _, name := range []string{"web-b", "web-c", "web-d"} {
		one, err := a.Find(t.Context(), ids[name])
		w.fatal(err)
		found = append(found, one...)
	}
	r := w.task(t).remover(a, images.Guards{Now: later})
	c := w.client("default", home)
	removed := 0
	r.OnRemoval = func(done images.Removal) {
		if done.Outcome != images.Removed {
			return
		}
		switch removed++; removed {
		case 1: // web-b is gone
			w.parameter("/golden/web", ids["web-c"])
			_, err := c.ModifyLaunchTemplate(t.Context(), &ec2.ModifyLaunchTemplateInput{LaunchTemplateId: &template, DefaultVersion: aws.String("2")})
			w.fatal(err)
		default:
			t.Errorf("%s was removed", done.Image.Name)
		}
	}
	err := r.Remove(t.Context(), found)
	for _, want := range []string{"parameter/golden/web", "templates: launch template " + template + ", version 2"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("it is not said %q: %v", want, err)
		}
	}
	scans := 0
	for _, c := range w.seen() {
		if c.Action == "DescribeFleets" {
			scans++
		}
	}
	if scans != 2 {
		t.Errorf("the region was looked through %d times, want 2", scans)
	}
}

// TestRetireAfterBuild: after a build, its retention is applied to older images in the
// account and in all regions of the new images; images in use cause no error.
func TestRetireAfterBuild(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	a := w.open(home)
	made := map[string]string{}
	for _, name := range []string{"web-1", "web-2", "other-1"} {
		made[name] = w.image(west, name, "bake:image", strings.TrimRight(name, "-12"))
	}
	w.parameterIn(west, "/golden/web", made["web-2"])
	w.nextSecond()
	newest := w.image(west, "web-3", "bake:image", "web")
	w.watch(answering(nobody))
	built := []step.Resource{{Kind: "ec2:image", Key: "web-3", ID: newest, Where: home, With: map[string]string{"account": a.ID}}}
	r := builder.Retention{Image: "web", Keep: 1, Deprecate: day}
	w.fatal(images.Retire(t.Context(), w.task(t).scope, built, w.cloud, r, in(2*day)))
	w.fatal(images.Retire(t.Context(), w.task(t).scope, nil, w.cloud, builder.Retention{Image: "other", Keep: 1, Deprecate: day}, in(2*day)))
	all, err := w.open(west).List(t.Context(), images.Query{})
	w.fatal(err)
	for _, i := range all {
		if (i.Deprecated != nil) != (i.Name == "web-1") {
			t.Errorf("%s is deprecated: %v", i.Name, i.Deprecated)
		}
	}
}

// TestRetireElsewhere: copies in other accounts are retired like the originals, and an
// account that cannot be accessed does not affect the others.
func TestRetireElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{}).trusting()
	a := w.open(home)
	for _, name := range []string{"web-1", "web-2"} {
		w.image(home, name, "bake:image", "web")
		w.register(other, west, name, []string{w.snapshot(other, west, nil)}, "bake:image", "web")
		w.nextSecond()
	}
	built := []step.Resource{{Kind: "ec2:image", Key: "web-2", ID: "ami-0", Where: home, With: map[string]string{"account": a.ID}}}
	to := builder.Distribution{Accounts: []string{"111122223333", otherID}, Copy: true, Role: roles}
	err := images.Retire(t.Context(), w.task(t).scope, built, w.cloud, builder.Retention{Image: "web", Keep: 1, Delete: day, To: to}, in(3*day))
	if err == nil || !strings.Contains(err.Error(), "account 111122223333: ") {
		t.Errorf("the account that cannot be entered: %v", err)
	}
	for profile, region := range map[string]string{"default": home, other: west} {
		out, err := w.client(profile, region).DescribeImages(t.Context(), &ec2.DescribeImagesInput{Owners: []string{"self"}})
		w.fatal(err)
		if len(out.Images) != 1 || *out.Images[0].Name != "web-2" {
			t.Errorf("%s has %d images", profile, len(out.Images))
		}
	}
	named := map[string]bool{}
	err = a.PlanEach(t.Context(), images.PruneOptions{Keep: 1, Stages: images.Stages{Delete: day}, Max: images.Share{N: 1}, Guards: images.Guards{Role: images.Role{ARN: roles}}, To: to}, "run",
		func(in *images.Account, g images.Guards, plan *images.Plan, several bool) error {
			named[in.ID] = g.Role.ARN != ""
			if !several || in == a && len(plan.Images) != 1 { // in its region; the other has its own elsewhere
				t.Errorf("%s: %v, one of several: %t", in.ID, plan, several)
			}
			return nil
		})
	if err == nil || !strings.Contains(err.Error(), "account 111122223333: ") || len(named) != 2 || !named[a.ID] || named[otherID] {
		t.Errorf("plans of %v, which have a role for others: %v", named, err)
	}
	to.Copy = false // then others have none of their own
	w.watch(nil)
	if all, err := a.Keepers(t.Context(), to, "run"); err != nil || len(all) != 1 || all[0] != a || len(w.seen()) > 0 {
		t.Errorf("shared: %v, %v, %v", all, err, w.seen())
	}
}

// TestRetireReused: a run that reuses an older image keeps it and its copies, although there are
// newer ones.
func TestRetireReused(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	a := w.open(home)
	old := w.image(home, "web-1", "bake:image", "web")
	w.image(west, "web-1", "bake:image", "web")
	w.image(home, "web-2", "bake:image", "web")
	w.nextSecond()
	for _, region := range []string{home, west} {
		w.image(region, "web-3", "bake:image", "web")
	}
	w.watch(answering(nobody))
	reused := []step.Resource{{Kind: "ec2:image", Key: "web-1@" + home, ID: old, Where: home, With: map[string]string{"account": a.ID, "name": "web-1"}}}
	r := builder.Retention{Image: "web", Keep: 1, Delete: day}
	w.fatal(images.Retire(t.Context(), w.task(t).scope, reused, w.cloud, r, in(3*day)))
	for region, want := range map[string]string{home: "web-1 web-3", west: "web-1 web-3"} {
		all, err := w.open(region).List(t.Context(), images.Query{})
		w.fatal(err)
		var names []string
		for _, i := range all {
			if i.Region == region {
				names = append(names, i.Name)
			}
		}
		slices.Sort(names)
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s has %s, want %s", region, got, want)
		}
	}
}
