package releases_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/golden/channels"
	"bake/golden/notice"
	"bake/internal/imagetag"
	"bake/run"
	"bake/run/releases"
	"bake/step"
)

const region = "us-east-1"

// world is a cloud with an account, and the notifications about its channels.
type world struct {
	t       *testing.T
	ec2     *ec2.Client
	account *images.Account
	heard   []notice.Notice
	url     string // of the webhook
}

func newWorld(t *testing.T) *world {
	server := cloudtest.Start(t, cloud.Options{Validate: time.Millisecond})
	w := &world{t: t, ec2: server.EC2("default", region)}
	key := server.Credentials()[0]
	var err error
	w.account, err = images.Open(t.Context(), images.Place{Cloud: amazon.Cloud{Name: "test", Endpoint: server.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: region}})
	w.fatal(err)
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var n notice.Notice
		if err = errors.Join(err, json.Unmarshal(text, &n)); err != nil {
			t.Error(err)
		}
		w.heard = append(w.heard, n)
	}))
	t.Cleanup(hook.Close)
	w.url = hook.URL
	return w
}

func (w *world) fatal(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// image makes an image that has passed the given check, unless that is empty.
func (w *world) image(name, passed string) string {
	w.t.Helper()
	ctx := w.t.Context()
	volume, err := w.ec2.CreateVolume(ctx, &ec2.CreateVolumeInput{AvailabilityZone: aws.String(region + "a"), Size: aws.Int32(1)})
	w.fatal(err)
	s, err := w.ec2.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId})
	w.fatal(err)
	w.fatal(ec2.NewSnapshotCompletedWaiter(w.ec2, func(o *ec2.SnapshotCompletedWaiterOptions) { o.MinDelay = time.Millisecond }).
		Wait(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*s.SnapshotId}}, time.Minute))
	out, err := w.ec2.RegisterImage(ctx, &ec2.RegisterImageInput{
		Name: &name, RootDeviceName: aws.String("/dev/xvda"),
		BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/xvda"), Ebs: &types.EbsBlockDevice{SnapshotId: s.SnapshotId}}},
	})
	w.fatal(err)
	if passed != "" {
		w.tag(*out.ImageId, imagetag.Verified, passed)
	}
	return *out.ImageId
}

// later returns in the next second, because images record the second in which they were
// made.
func (w *world) later() { time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) }

func (w *world) tag(image, key, value string) {
	w.t.Helper()
	_, err := w.ec2.CreateTags(w.t.Context(), &ec2.CreateTagsInput{Resources: []string{image}, Tags: []types.Tag{{Key: &key, Value: &value}}})
	w.fatal(err)
}

// move calls do in a separate run, which must leave nothing behind.
func (w *world) move(block *run.ImageBlock, do func(context.Context, *releases.Mover) error) error {
	w.t.Helper()
	l, err := step.CreateLedger(w.t.TempDir(), step.Header{Run: "run"})
	w.fatal(err)
	s := step.NewScope(step.Scope{Run: step.Invocation{ID: "run"}, Build: "images", Ledger: l, Emit: func(step.Event) {}, Grace: time.Minute})
	ctx := w.t.Context()
	err = do(ctx, &releases.Mover{Image: "web", Block: block, Distributor: w.account.NewDistributor(builder.Distribution{}, "run"), Scope: s, Now: time.Now})
	w.fatal(s.Close(ctx, context.Background()))
	if owned, _ := l.Owned(); len(owned) > 0 {
		w.t.Errorf("the ledger owns %v", owned)
	}
	return err
}

// told returns the images in the notifications about a channel since the last call.
func (w *world) told(channel string) (ids []string) {
	for _, n := range w.heard {
		if n.Image != "web" || n.Channel != channel || n.Run != "run" || len(n.Images) != 1 {
			w.t.Errorf("told %+v", n)
			continue
		}
		ids = append(ids, n.Images[0].ID)
	}
	w.heard = nil
	return ids
}

// TestMover: a channel admits the images that its rules admit, can be rolled back, and
// drops revoked images. Its webhook is notified of these moves and of nothing else.
func TestMover(t *testing.T) {
	w := newWorld(t)
	stable := run.Channel{Rule: channels.Rule{Name: "stable", Requires: []string{"verify.boot"}, From: "candidate", Approval: true}, Parameter: "/bake/web/stable", Webhook: w.url}
	candidate := run.Channel{Rule: channels.Rule{Name: "candidate"}, Parameter: "/bake/web/candidate"}
	block := &run.ImageBlock{Channels: []run.Channel{candidate, stable}}
	enter := func(id string) {
		t.Helper()
		w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
			return m.Distributor.MoveChannel(ctx, m.Scope, candidate.Parameter, "test", []builder.Placement{{Account: w.account.ID, Region: region, ID: id}})
		}))
	}
	promote := func() (moved releases.Moved, err error) {
		t.Helper()
		err = w.move(block, func(ctx context.Context, m *releases.Mover) error {
			var err error
			moved, err = m.Promote(ctx, "candidate", "stable")
			return err
		})
		return moved, err
	}
	ids := []string{w.image("web-1", "verify.boot"), w.image("web-2", "")}

	enter(ids[1])
	_, err := promote()
	if closed, ok := errors.AsType[*releases.ClosedError](err); !ok || closed.Channel != "stable" || len(closed.Reasons) != 2 || !strings.Contains(err.Error(), "verify.boot") {
		t.Errorf("an image that has passed nothing, and that nobody has approved: %v", err)
	}
	if told := w.told("stable"); told != nil {
		t.Errorf("told of %v, which the channel refused", told)
	}
	for _, id := range ids {
		enter(id)
		w.tag(id, imagetag.Verified, "verify.boot,checks")
		w.tag(id, channels.ApprovalTag("stable"), "somebody")
		moved, err := promote()
		if err != nil || moved.Parameter != stable.Parameter || len(moved.Images) != 1 || moved.Images[0].ID != id {
			t.Errorf("%+v, %v", moved, err)
		}
		if len(w.heard) != 1 || !slices.Equal(w.heard[0].Passed, []string{"verify.boot", "checks"}) {
			t.Errorf("told %+v", w.heard)
		}
		if told := w.told("stable"); !slices.Equal(told, []string{id}) {
			t.Errorf("told %v, want %s", told, id)
		}
	}

	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
		moved, err := m.Rollback(ctx, "stable", "")
		if err == nil && (len(moved.Images) != 1 || moved.Images[0].ID != ids[0]) {
			t.Errorf("rolled back to %+v", moved)
		}
		return err
	}))
	if told := w.told("stable"); !slices.Equal(told, ids[:1]) {
		t.Errorf("told %v of the rollback", told)
	}

	block.Channels[1].WebhookUnknown = true
	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error { // forward again
		_, err := m.Rollback(ctx, "stable", ids[1])
		return err
	}))
	if told := w.told("stable"); told != nil {
		t.Errorf("told %v, though its URL is not known", told)
	}
	block.Channels[1].WebhookUnknown = false
	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
		all, err := m.Revoke(ctx, ids[1], "CVE-2026-1234", false)
		if err == nil && (len(all) != 1 || !all[0].Disabled) {
			t.Errorf("revoked: %+v", all)
		}
		return err
	}))
	if told := w.told("stable"); !slices.Equal(told, ids[:1]) {
		t.Errorf("told %v of the image that stable names since the other was taken back", told)
	}
}

// TestOffer: an image passes through the channels that follow another one as far as their
// rules admit it, and the result says what it waits for. An image that was overtaken or
// revoked stays where it is.
func TestOffer(t *testing.T) {
	w := newWorld(t)
	candidate := run.Channel{Rule: channels.Rule{Name: "candidate"}, Parameter: "/bake/web/candidate"}
	beta := run.Channel{Rule: channels.Rule{Name: "beta", From: "candidate", Soak: time.Hour}, Parameter: "/bake/web/beta"}
	stable := run.Channel{Rule: channels.Rule{Name: "stable", From: "beta", Requires: []string{"verify.boot"}, Approval: true}, Parameter: "/bake/web/stable", Webhook: w.url}
	block := &run.ImageBlock{Channels: []run.Channel{candidate, beta, stable}}
	enter := func(id string) {
		t.Helper()
		w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
			return m.Distributor.MoveChannel(ctx, m.Scope, candidate.Parameter, "test", []builder.Placement{{Account: w.account.ID, Region: region, ID: id}})
		}))
	}
	offer := func(id string, after time.Duration) (said [2]step.Channel) {
		t.Helper()
		w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
			m.Now = func() time.Time { return time.Now().Add(after) }
			all, err := m.PromotePending(ctx, id, nil, time.Time{})
			if err == nil && len(all) != 2 {
				t.Fatalf("said %+v", all)
			}
			copy(said[:], all)
			return err
		}))
		return said
	}
	is := func(c step.Channel, names, soaks, approval bool, reason string) {
		t.Helper()
		if c.Names != names || c.Until.IsZero() == soaks || c.Approval != approval || (reason == "") != (len(c.Reasons) == 0) || !strings.Contains(strings.Join(c.Reasons, "; "), reason) {
			t.Errorf("%s: %+v", c.Name, c)
		}
	}
	ids := []string{w.image("web-1", "verify.boot"), w.image("web-2", "verify.boot"), w.image("web-3", "")}

	said := offer(ids[0], 0)
	is(said[0], false, false, false, "channel candidate does not name it")
	enter(ids[0])
	said = offer(ids[0], 0)
	is(said[0], false, true, false, "it must have been in channel candidate for 1h")
	is(said[1], false, false, false, "channel beta does not name it")
	if left := time.Until(said[0].Until); left < 50*time.Minute || left > time.Hour {
		t.Errorf("it soaks for %s", left)
	}
	said = offer(ids[0], 2*time.Hour)
	is(said[0], true, false, false, "")
	is(said[1], false, false, true, "nobody has approved it")
	w.tag(ids[0], channels.ApprovalTag("stable"), "somebody")
	for range 2 { // the second time changes nothing
		said = offer(ids[0], 2*time.Hour)
		is(said[0], true, false, false, "")
		is(said[1], true, false, false, "")
	}
	if told := w.told("stable"); !slices.Equal(told, ids[:1]) {
		t.Errorf("told %v", told)
	}

	enter(ids[1])
	is(offer(ids[0], 0)[0], false, false, false, "channel candidate does not name it")
	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error { // nothing has changed
		at, _, err := m.Distributor.Named(ctx, beta.Parameter)
		if err == nil && (len(at) != 1 || at[0].ID != ids[0]) {
			t.Errorf("beta names %v", at)
		}
		all, herr := m.Distributor.Histories(ctx, beta.Parameter)
		if herr == nil && (len(all) != 1 || len(all[0].Entries) != 1 || all[0].Entries[0].Why != "bake: promoted from candidate; run "+m.Scope.Run.ID) {
			t.Errorf("history of beta: %+v", all)
		}
		return errors.Join(err, herr)
	}))
	is(offer(ids[1], 2*time.Hour)[0], true, false, false, "")
	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
		_, err := m.Rollback(ctx, "beta", "")
		return err
	}))
	is(offer(ids[1], 2*time.Hour)[0], false, false, false, "it was taken back")

	enter(ids[2])
	said = offer(ids[2], 2*time.Hour)
	is(said[0], true, false, false, "")
	is(said[1], false, false, false, "verify.boot has not passed; nobody has approved it") // which would not be enough
}

// TestOfferApproved: a channel that comes after none names an image that waited for an approval, in
// its places, and what comes after that channel follows. One that another image has entered
// meanwhile does not.
func TestOfferApproved(t *testing.T) {
	w := newWorld(t)
	latest := run.Channel{Rule: channels.Rule{Name: "latest"}, Parameter: "/bake/web/latest"}
	stable := run.Channel{Rule: channels.Rule{Name: "stable", Approval: true}, Parameter: "/bake/web/stable", Webhook: w.url}
	mirror := run.Channel{Rule: channels.Rule{Name: "mirror", From: "stable"}, Parameter: "/bake/web/mirror"}
	block := &run.ImageBlock{Channels: []run.Channel{latest, stable, mirror}}
	began := time.Now().Add(-time.Minute)
	offer := func(id string, since time.Time) (said []step.Channel) {
		t.Helper()
		w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) (err error) {
			said, err = m.PromotePending(ctx, id, []builder.Placement{{Account: w.account.ID, Region: region, ID: id}}, since)
			return err
		}))
		if len(said) != 2 || said[0].Name != "stable" || said[1].Name != "mirror" {
			t.Fatalf("said %+v", said)
		}
		return said
	}
	old := w.image("web-1", "")
	w.later()
	fresh := w.image("web-2", "")
	for _, id := range []string{old, fresh} {
		if said := offer(id, began); !said[0].Approval || said[0].Names || said[1].Names {
			t.Errorf("without an approval: %+v", said)
		}
	}
	w.tag(fresh, channels.ApprovalTag("stable"), "somebody")
	if said := offer(fresh, began); !said[0].Names || !said[1].Names {
		t.Errorf("approved: %+v", said)
	}
	if told := w.told("stable"); !slices.Equal(told, []string{fresh}) {
		t.Errorf("told %v", told)
	}
	w.tag(old, channels.ApprovalTag("stable"), "somebody")
	if said := offer(old, began); said[0].Names || said[0].Approval || !strings.Contains(strings.Join(said[0].Reasons, "; "), "a newer image, "+fresh+", has entered it meanwhile") {
		t.Errorf("overtaken: %+v", said)
	}
	if said := offer(old, time.Now().Add(time.Minute)); !said[0].Names { // baked again since, from what it was made of
		t.Errorf("the newer one: %+v", said)
	}
}

// TestOlderImageKeepsNoNewerOneOut: an older image that is approved, or rolled back to,
// while a newer image waits does not overtake the newer one. An image that is gone stops
// waiting.
func TestOlderImageKeepsNoNewerOneOut(t *testing.T) {
	w := newWorld(t)
	stable := run.Channel{Rule: channels.Rule{Name: "stable", Approval: true}, Parameter: "/bake/web/stable"}
	block := &run.ImageBlock{Channels: []run.Channel{stable}}
	offer := func(id string, since time.Time) (says step.Channel, err error) {
		t.Helper()
		err = w.move(block, func(ctx context.Context, m *releases.Mover) error {
			said, err := m.PromotePending(ctx, id, []builder.Placement{{Account: w.account.ID, Region: region, ID: id}}, since)
			if err == nil {
				says = said[0]
			}
			return err
		})
		return says, err
	}
	enters := func(id string, since time.Time) {
		t.Helper()
		w.tag(id, channels.ApprovalTag("stable"), "somebody")
		if says, err := offer(id, since); err != nil || !says.Names {
			t.Fatalf("%s: %+v, %v", id, says, err)
		}
	}
	began := time.Now().Add(-time.Minute)
	var ids []string
	for i := range 4 {
		ids = append(ids, w.image(fmt.Sprint("web-", i), ""))
		w.later()
	}
	enters(ids[0], began) // each of the others waits meanwhile
	enters(ids[1], began)
	w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
		_, err := m.Rollback(ctx, "stable", "")
		return err
	}))
	if says, err := offer(ids[2], began); err != nil || !says.Approval {
		t.Errorf("not approved yet: %+v, %v", says, err)
	}
	enters(ids[2], began)
	if says, err := offer(ids[1], began); err != nil || says.Names || says.Approval {
		t.Errorf("taken back: %+v, %v", says, err)
	}
	_, err := w.ec2.DeregisterImage(t.Context(), &ec2.DeregisterImageInput{ImageId: &ids[3]})
	w.fatal(err)
	if says, err := offer(ids[3], began); !errors.Is(err, releases.ErrGone) || !strings.Contains(err.Error(), ids[3]) {
		t.Errorf("gone: %+v, %v", says, err)
	}
}

// TestSameSecond: of two images made in the same second, the one whose run began later is the
// newer one, regardless of their ids and of the worker.
func TestSameSecond(t *testing.T) {
	w := newWorld(t)
	stable := run.Channel{Rule: channels.Rule{Name: "stable", Approval: true}, Parameter: "/bake/web/stable"}
	block := &run.ImageBlock{Channels: []run.Channel{stable}}
	began := time.Now().Add(-time.Minute)
	made := func(id string) string {
		out, err := w.ec2.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{id}})
		w.fatal(err)
		return *out.Images[0].CreationDate
	}
	earlier := run.NewID()
	time.Sleep(2 * time.Millisecond) // ids of runs contain milliseconds
	later := run.NewID()
	n := 0
	pair := func() [2]string {
		for range 20 {
			w.later()
			n++
			a, b := w.image(fmt.Sprint("web-a-", n), ""), w.image(fmt.Sprint("web-b-", n), "")
			if made(a) == made(b) {
				return [2]string{min(a, b), max(a, b)}
			}
		}
		t.Fatal("no two images are made in the same second")
		return [2]string{}
	}
	for name, first := range map[string]int{"lesser id": 0, "greater id": 1, "runs tell nothing": 0} { // of the older one
		of := pair()
		old, fresh := of[first], of[1-first]
		why := "a newer image, " + fresh + ", has entered it meanwhile"
		if name == "runs tell nothing" {
			why = "an image of the same second, " + fresh + ", has entered it meanwhile, and counts as the newer one by its ID"
		} else {
			w.tag(old, imagetag.Reports, earlier)
			w.tag(fresh, imagetag.Reports, later)
		}
		for _, one := range []struct {
			id    string
			names bool
		}{{old, true}, {fresh, true}, {old, false}} {
			w.tag(one.id, channels.ApprovalTag("stable"), "somebody")
			w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error {
				said, err := m.PromotePending(ctx, one.id, []builder.Placement{{Account: w.account.ID, Region: region, ID: one.id}}, began)
				if err == nil && (said[0].Names != one.names || !one.names && !slices.Equal(said[0].Reasons, []string{why})) {
					t.Errorf("%s: the older one is %s: %s: %+v", name, old, one.id, said)
				}
				return err
			}))
		}
		w.fatal(w.move(block, func(ctx context.Context, m *releases.Mover) error { // makes room for the next
			return m.Distributor.MoveChannel(ctx, m.Scope, stable.Parameter, "test", []builder.Placement{{Account: w.account.ID, Region: region, ID: old}})
		}))
	}
}

// TestChannels: a channel is one of the block's or, without a block, any name.
func TestChannels(t *testing.T) {
	m := &releases.Mover{Image: "web", Block: &run.ImageBlock{Channels: []run.Channel{{Rule: channels.Rule{Name: "beta"}}, {Rule: channels.Rule{Name: "stable"}}}}}
	if _, err := m.Channel("stabel"); err == nil || err.Error() != `the image "web" has no channel "stabel"; it has: beta, stable` {
		t.Error(err)
	}
	m.Block = nil
	if c, err := m.Channel("any"); err != nil || c.Parameter != "/bake/web/any" {
		t.Errorf("%+v, %v", c, err)
	}
}
