package images_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/step"
)

// enter makes a channel name images.
func (w *world) enter(d builder.Distribution, channel string, at []builder.Placement) {
	w.t.Helper()
	s, _, _ := w.copying()
	w.fatal(w.distributor(d).MoveChannel(w.t.Context(), s, channel, "test", at))
	w.fatal(s.Close(w.t.Context(), context.Background()))
}

// history makes a channel name images one after the other, for the places in the test's
// account. It is cheaper than enter.
func (w *world) history(channel string, all ...[]builder.Placement) {
	w.t.Helper()
	for n, p := range all[0] {
		var ids []string
		for _, at := range all {
			ids = append(ids, at[n].ID)
		}
		w.parameterIn(p.Region, channel, ids...)
	}
}

// TestRollback: a channel goes back to the newest release that is complete everywhere.
func TestRollback(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon}).trusting()
	d := builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID}, Role: roles}
	const channel = "/bake/web/stable"
	one, two, three := w.placed("one"), w.placed("two"), w.placed("three")
	for _, at := range [][]builder.Placement{one, two, three} {
		w.enter(d, channel, at)
	}
	s, _, _ := w.copying()
	all, name, err := w.distributor(d).Named(t.Context(), channel)
	w.fatal(err)
	if len(all) != 4 || name != "three" {
		t.Errorf("the channel names %s: %v", name, all)
	}
	// The one before has been revoked.
	done, err := w.distributor(d).Revoke(t.Context(), s, two[0].ID, "leak", false, time.Now)
	w.fatal(err)
	if len(done) != 1 || !done[0].Disabled || names4(w, channel, three) != 4 {
		t.Errorf("revoked %+v", done)
	}
	release, err := w.distributor(d).Rollback(t.Context(), s, channel, "", "back")
	w.fatal(err)
	if release != "one" || names4(w, channel, one) != 4 {
		t.Errorf("rolled back to %s", release)
	}
	// Two rollbacks do not return to the start.
	const twice = "/bake/web/twice"
	four, five := w.placed("four"), w.placed("five")
	for _, at := range [][]builder.Placement{one, four, five} {
		w.enter(d, twice, at)
	}
	for _, want := range []string{"four", "one"} {
		if release, err := w.distributor(d).Rollback(t.Context(), s, twice, "", "back"); err != nil || release != want {
			t.Errorf("rolled back to %q, not to %s: %v", release, want, err)
		}
	}
	if _, err := w.distributor(d).Rollback(t.Context(), s, "/bake/none/stable", "", "back"); err == nil || !strings.Contains(err.Error(), "there is no channel") {
		t.Errorf("no channel: %v", err)
	}
}

// TestRevoke: an image, its copies and the images made from it leave all channels and
// cannot be launched, unless a channel has no earlier image.
func TestRevoke(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon}).trusting()
	d := builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID}, Role: roles, Copy: true}
	distributed := func(name string, tags ...string) []builder.Placement {
		id := w.image(home, name, append(tags, "bake:image", "web")...)
		s, _, _ := w.copying()
		at, err := w.distributor(d).Distribute(t.Context(), s, map[string]string{home: id})
		w.fatal(err)
		return at
	}
	good, bad := distributed("good"), distributed("bad")
	child := w.image(home, "child", "bake:parent", bad[0].ID)
	w.enter(d, "/bake/web/stable", good)
	w.enter(d, "/bake/web/stable", bad)
	w.enter(d, "/bake/web/only", bad[:1])
	revoke := func() (disabled, named int, err error) {
		s, _, _ := w.copying()
		all, err := w.distributor(d).Revoke(t.Context(), s, bad[0].ID, "leak", true, time.Now)
		w.fatal(s.Close(t.Context(), context.Background()))
		for _, r := range all {
			if r.Disabled {
				disabled++
			}
			named += len(r.Channels)
			profile := map[string]string{ownID: "default", otherID: other}[r.Image.Owner]
			i := w.seenBy(profile, r.Image.Region, r.Image.ID)
			if !strings.HasSuffix(tagOf(i, "bake:revoked"), " leak") || (i.State == types.ImageStateDisabled) != r.Disabled {
				t.Errorf("%s is %s: %v", r.Image.Name, i.State, i.Tags)
			}
		}
		return disabled, named, err
	}
	disabled, named, err := revoke()
	if disabled != 4 || named != 1 || err == nil || !strings.Contains(err.Error(), "/bake/web/only has no earlier image") {
		t.Errorf("%d disabled, %d named: %v", disabled, named, err)
	}
	if names4(w, "/bake/web/stable", good) != 4 {
		t.Error("the channel does not name the image before")
	}
	w.enter(d, "/bake/web/only", good[:1])
	if disabled, named, err = revoke(); disabled != 5 || named != 0 || err != nil {
		t.Errorf("again: %d disabled, %d named: %v", disabled, named, err)
	}
	if i := w.seenBy("default", home, child); i.State != types.ImageStateDisabled {
		t.Errorf("what was made from it is %s", i.State)
	}
}

// TestFaultsOfRollback: whatever fails, the channel names one release everywhere, and a
// killed rollback can be repeated.
func TestFaultsOfRollback(t *testing.T) {
	t.Parallel()
	eachCall(t, func(w *world) func(int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
		zero, one, two := own(w.placed("zero")), own(w.placed("one")), own(w.placed("two"))
		d := builder.Distribution{Regions: []string{home, west}}
		return func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
			channel := fmt.Sprintf("/bake/web-%d/stable", n)
			w.history(channel, zero, one, two)
			o := w.distributor(d)
			do := func(ctx context.Context, s *step.Scope) error {
				_, err := o.Rollback(ctx, s, channel, "", "back")
				return err
			}
			return do, func(what string, err error, _ bool) {
				if errors.Is(err, errKilled) {
					time.Sleep(10 * soon) // what was accepted is validated
				}
				before, now := names4(w, channel, two), names4(w, channel, one)
				if before+now != 2 || err == nil && now != 2 || err != nil && !errors.Is(err, errKilled) && before != 2 {
					w.t.Errorf("%s: %d and %d: %v", what, before, now, err)
				}
				if !errors.Is(err, errKilled) || now == 2 {
					return
				}
				again, _, _ := w.copying()
				release, err := w.distributor(d).Rollback(w.t.Context(), again, channel, "", "back")
				if err != nil || release != "one" || names4(w, channel, one) != 2 {
					w.t.Errorf("%s: repeated: %s, in %d places: %v", what, release, names4(w, channel, one), err)
				}
			}
		}
	})
}

// own are the places in the test's account.
func own(all []builder.Placement) []builder.Placement {
	return slices.DeleteFunc(slices.Clone(all), func(p builder.Placement) bool { return p.Account != ownID })
}

// TestTakenBack: a channel that went back to an earlier image reports this for the image that
// it left.
func TestTakenBack(t *testing.T) {
	w := newWorld(t, cloud.Options{Validate: soon}).trusting()
	d := builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID}, Role: roles}
	const channel = "/bake/web/stable"
	one, two, three := w.placed("one"), w.placed("two"), w.placed("three")
	for _, step := range []struct {
		at   []builder.Placement
		want map[string]bool // whether the image was taken back
	}{
		{one, map[string]bool{"one": false, "two": false, "three": false}},
		{two, map[string]bool{"one": false, "two": false, "three": false}},
		{one, map[string]bool{"one": false, "two": true, "three": false}},
		{three, map[string]bool{"one": false, "two": true, "three": false}},
		{two, map[string]bool{"one": false, "two": false, "three": true}},
	} {
		w.enter(d, channel, step.at)
		for name, at := range map[string][]builder.Placement{"one": one, "two": two, "three": three} {
			state, err := w.distributor(d).Channel(t.Context(), channel, at)
			w.fatal(err)
			if state.TakenBack != step.want[name] {
				t.Errorf("after %s, %s: %+v", step.at[0].ID, name, state)
			}
		}
	}
}

// oneRelease makes images copies of each other, by their tags.
func (w *world) oneRelease(all []builder.Placement, release string) {
	w.t.Helper()
	for _, p := range all {
		_, err := w.client("default", p.Region).CreateTags(w.t.Context(), &ec2.CreateTagsInput{Resources: []string{p.ID}, Tags: []types.Tag{
			{Key: aws.String(images.ImageTag), Value: aws.String("web")}, {Key: aws.String(images.ReleaseTag), Value: &release},
		}})
		w.fatal(err)
	}
}

// denying makes a region refuse everything, as a service control policy does.
func (w *world) denying(region string) {
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		switch {
		case c.Region != region || c.Service == "sts":
			serve(rw)
		case c.Service == "ssm":
			rw.Header().Set("Content-Type", "application/x-amz-json-1.1")
			rw.WriteHeader(http.StatusBadRequest)
			_, _ = io.WriteString(rw, `{"__type":"AccessDeniedException","message":"explicit deny in a service control policy"}`)
		default:
			refuse(rw)
		}
	})
}

// TestRegionDenied: a region that refuses everything is reported once, and does not affect
// the others.
func TestRegionDenied(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon})
	d := builder.Distribution{Regions: []string{home, west}}
	const channel = "/bake/web/stable"
	good, bad := own(w.placed("good")), own(w.placed("bad"))
	w.oneRelease(bad, "7")
	w.history(channel, good, bad)
	named := func(what string, err error) {
		t.Helper()
		if err == nil || strings.Count(err.Error(), west+": ") != 1 {
			t.Errorf("%s: %v", what, err)
		}
	}
	w.denying(west)
	a := w.open(home)
	approved, who, err := a.Approve(t.Context(), bad[0].ID, "bake:approved:stable", time.Now())
	named("approve", err)
	if len(approved) != 1 || approved[0].Region != home || !strings.HasPrefix(tagOf(w.seenBy("default", home, bad[0].ID), "bake:approved:stable"), who) {
		t.Errorf("approved %+v", approved)
	}
	s, _, _ := w.copying()
	revoked, err := w.distributor(d).Revoke(t.Context(), s, bad[0].ID, "leak", true, time.Now)
	named("revoke", err)
	if len(revoked) != 1 || !revoked[0].Disabled || w.channelAt("default", home, channel) != good[0].ID || w.channelAt("default", west, channel) != bad[1].ID {
		t.Errorf("revoked %+v", revoked)
	}
	w.watch(nil)
	revoked, err = w.distributor(d).Revoke(t.Context(), s, bad[0].ID, "leak", true, time.Now)
	if err != nil || len(revoked) != 2 || w.channelAt("default", west, channel) != good[1].ID {
		t.Errorf("again: %+v, %v", revoked, err)
	}
	for n, p := range bad {
		if i := w.seenBy("default", p.Region, p.ID); i.State != types.ImageStateDisabled || tagOf(i, "ec2:SharedTag/bake:revoked") == "" {
			t.Errorf("image %d: %s, %v", n, i.State, i.Tags)
		}
	}
	w.denying(west)
	built := []step.Resource{{Kind: "ec2:image", Key: "new", ID: "ami-0", Where: home, With: map[string]string{"account": a.ID}}}
	for _, name := range []string{"old", "new"} {
		w.image(home, name, "bake:image", "other")
		w.nextSecond()
	}
	named("retention", images.Retire(t.Context(), w.task(t).scope, built, w.cloud, builder.Retention{Image: "other", Keep: 1, Deprecate: day}, in(3*day)))
	old, err := w.open(home).Find(t.Context(), "old")
	w.fatal(err)
	if old[0].Deprecated == nil {
		t.Error("the old image is not deprecated")
	}
}

// TestRollbackTo: a channel goes back to the requested release, given by any of its names.
func TestRollbackTo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon})
	d := builder.Distribution{Regions: []string{home, west}}
	const channel = "/bake/web/stable"
	one, two, three, never := own(w.placed("one")), own(w.placed("two")), own(w.placed("three")), own(w.placed("never"))
	w.history(channel, one, two, three)
	_, err := w.client("default", home).CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{two[0].ID}, Tags: []types.Tag{{Key: aws.String("bake:release"), Value: aws.String("r2")}}})
	w.fatal(err)
	s, _, _ := w.copying()
	for _, c := range []struct {
		to   string
		want []builder.Placement
	}{{one[1].ID, one}, {"three", three}, {"r2", two}} {
		if _, err := w.distributor(d).Rollback(t.Context(), s, channel, c.to, "back"); err != nil || names4(w, channel, c.want) != 2 {
			t.Errorf("to %s: %v", c.to, err)
		}
	}
	for _, to := range []string{never[0].ID, "never"} {
		if _, err := w.distributor(d).Rollback(t.Context(), s, channel, to, "back"); err == nil || !strings.Contains(err.Error(), "has never pointed to "+to) {
			t.Errorf("to what it has not named: %v", err)
		}
	}
}

// TestFaultsOfRevoke: whatever fails, no channel names a disabled image, and moved channels
// name the good one. Repeating the command completes it.
func TestFaultsOfRevoke(t *testing.T) {
	t.Parallel()
	eachCall(t, func(w *world) func(int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
		w.few = true
		good := own(w.placed("good"))
		d := builder.Distribution{Regions: []string{home, west}}
		return func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
			channel := fmt.Sprintf("/bake/web-%d/stable", n)
			bad := own(w.placed(fmt.Sprintf("bad-%d", n)))
			w.oneRelease(bad, fmt.Sprint(n))
			w.history(channel, good, bad)
			revoke := func(ctx context.Context, s *step.Scope, o *images.Distributor) ([]images.Revocation, error) {
				return o.Revoke(ctx, s, bad[0].ID, "leak", false, time.Now)
			}
			o := w.distributor(d)
			do := func(ctx context.Context, s *step.Scope) error {
				_, err := revoke(ctx, s, o)
				return err
			}
			return do, func(what string, err error, _ bool) {
				if errors.Is(err, errKilled) {
					time.Sleep(10 * soon) // what was accepted is validated
				}
				disabled := 0
				for k, p := range bad {
					i, names := w.seenBy("default", p.Region, p.ID), w.channelAt("default", p.Region, channel)
					if i.State == types.ImageStateDisabled {
						disabled++
					}
					if names != p.ID && names != good[k].ID || i.State == types.ImageStateDisabled && (names == p.ID || err == nil && tagOf(i, "bake:revoked") == "") {
						w.t.Errorf("%s: %s is %s, and the channel names %s: %v", what, p.ID, i.State, names, err)
					}
				}
				if err == nil && disabled != 2 {
					w.t.Errorf("%s: %d are disabled", what, disabled)
				}
				s, _, _ := w.copying()
				again, err := revoke(w.t.Context(), s, w.distributor(d))
				w.fatal(s.Close(w.t.Context(), context.Background()))
				if err != nil || len(again) != 2 || !again[0].Disabled || !again[1].Disabled || names4(w, channel, good) != 2 {
					w.t.Errorf("%s: again: %+v: %v", what, again, err)
				}
				for _, p := range bad { // so that the number of calls stays the same
					_, err := ssm.NewFromConfig(w.Config("default", p.Region)).DeleteParameter(w.t.Context(), &ssm.DeleteParameterInput{Name: &channel})
					w.fatal(err)
				}
			}
		}
	})
}

// TestNamedBy: the current and former images of a channel are found in each region, and no
// others.
func TestNamedBy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	one, two, other := w.image(home, "one"), w.image(home, "two"), w.image(home, "other")
	far := w.image(west, "one")
	w.parameterIn(home, "/bake/web/stable", one, two)
	w.parameterIn(west, "/bake/web/stable", far)
	a := w.open(home, west)
	all, err := a.List(t.Context(), images.Query{})
	w.fatal(err)
	named, now, err := a.NamedBy(t.Context(), "/bake/web/stable", all)
	w.fatal(err)
	var ids []string
	for _, i := range named {
		ids = append(ids, i.ID)
	}
	slices.Sort(ids)
	slices.Sort(now)
	if want := slices.Sorted(slices.Values([]string{one, two, far})); !slices.Equal(ids, want) || slices.Contains(ids, other) {
		t.Errorf("%v, want %v", ids, want)
	}
	if want := slices.Sorted(slices.Values([]string{two, far})); !slices.Equal(now, want) {
		t.Errorf("it names %v, want %v", now, want)
	}
	// If a region does not answer, the results of the others are returned.
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Service == "ssm" && c.Region == west {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		serve(rw)
	})
	named, now, err = a.NamedBy(t.Context(), "/bake/web/stable", all)
	if len(named) != 2 || slices.ContainsFunc(named, func(i images.Image) bool { return i.Region != home }) || !slices.Equal(now, []string{two}) || err == nil {
		t.Errorf("without one region: %v, %v, %v", named, now, err)
	}
	w.watch(nil)
	if _, _, err := a.NamedBy(t.Context(), "/bake/web/none", all); !errors.Is(err, images.ErrNoChannel) || !strings.Contains(err.Error(), "there is no channel /bake/web/none in") {
		t.Error(err)
	}
}

// TestFaultsOfPromote: whatever fails during a promotion, from reading the source channel to
// the last write, the target channel names the same complete image everywhere: the new one,
// or the previous one, if any.
func TestFaultsOfPromote(t *testing.T) {
	t.Parallel()
	eachCall(t, func(w *world) func(int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
		old, fresh := own(w.placed("old")), own(w.placed("fresh"))
		d := builder.Distribution{Regions: []string{home, west}}
		w.history("/bake/web/candidate", fresh)
		return func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
			channel := fmt.Sprintf("/bake/web-%d/stable", n)
			w.history(channel, old)
			o := w.distributor(d)
			do := func(ctx context.Context, s *step.Scope) error { // as bake images promote does
				at, _, err := o.Named(ctx, "/bake/web/candidate")
				if err != nil {
					return err
				}
				for _, one := range at {
					if _, err := o.Tags(ctx, one); err != nil {
						return err
					}
				}
				if _, err := o.Channel(ctx, "/bake/web/candidate", at); err != nil {
					return err
				}
				return o.MoveChannel(ctx, s, channel, "test", at)
			}
			return do, func(what string, err error, _ bool) {
				if errors.Is(err, errKilled) {
					time.Sleep(10 * soon) // what was accepted is validated
				}
				before, now := names4(w, channel, old), names4(w, channel, fresh)
				if before+now != 2 || err == nil && now != 2 || err != nil && !errors.Is(err, errKilled) && before != 2 {
					w.t.Errorf("%s: the channel names the old image in %d places, the new one in %d: %v", what, before, now, err)
				}
			}
		}
	})
}
