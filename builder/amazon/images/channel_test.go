package images_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/builder"
	"bake/cloud"
	"bake/golden/channels"
	"bake/run"
	"bake/run/releases"
	"bake/step"
)

// channelAt returns the image that a channel names; empty if there is none.
func (w *world) channelAt(profile, region, name string) string {
	w.t.Helper()
	out, err := ssm.NewFromConfig(w.Config(profile, region)).GetParameter(context.WithoutCancel(w.t.Context()), &ssm.GetParameterInput{Name: &name})
	var none *ssmtypes.ParameterNotFound
	if errors.As(err, &none) {
		return ""
	}
	w.fatal(err)
	return *out.Parameter.Value
}

// placed makes an image in both regions and shares it with the other account.
func (w *world) placed(name string) (all []builder.Placement) {
	w.t.Helper()
	for _, region := range []string{home, west} {
		id := w.image(region, name)
		_, err := w.client("default", region).ModifyImageAttribute(w.t.Context(), &ec2.ModifyImageAttributeInput{ImageId: &id, Attribute: aws.String("launchPermission"), OperationType: "add", UserIds: []string{otherID}})
		w.fatal(err)
		all = append(all, builder.Placement{Account: ownID, Region: region, ID: id}, builder.Placement{Account: otherID, Region: region, ID: id, Shared: true})
	}
	return all
}

var profiles = map[string]string{ownID: "default", otherID: other}

func names4(w *world, channel string, at []builder.Placement) (n int) {
	for _, p := range at {
		if w.channelAt(profiles[p.Account], p.Region, channel) == p.ID {
			n++
		}
	}
	return n
}

// TestEnter: a channel is moved everywhere or nowhere, and only to complete images.
func TestEnter(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon}).trusting()
	ctx, d := t.Context(), builder.Distribution{Accounts: []string{otherID}, Role: roles}
	enter := func(name string, at []builder.Placement) error {
		s, l, _ := w.copying()
		err := w.distributor(d).MoveChannel(ctx, s, name, "test", at)
		w.fatal(s.Close(ctx, context.Background()))
		if owned, _ := l.Owned(); len(owned) > 0 {
			t.Errorf("the ledger owns %v", owned)
		}
		return err
	}
	const channel = "/bake/web/stable"
	one, two := w.placed("one"), w.placed("two")
	for range 2 { // repeating it changes nothing
		w.fatal(enter(channel, one))
	}
	state, err := w.distributor(d).Channel(ctx, channel, one)
	w.fatal(err)
	if names4(w, channel, one) != 4 || !state.Names || state.Since.IsZero() {
		t.Errorf("the channel names one: %+v", state)
	}
	history, err := w.open(home).History(ctx, home, channel)
	w.fatal(err)
	if len(history) != 1 || history[0].Why != "bake: test; run run" || !strings.HasPrefix(history[0].By, "arn:") {
		t.Errorf("history %+v", history)
	}
	if w.channelAt("default", home, channel+".lock") != "" {
		t.Error("the lock is still there")
	}
	refused := func(what, want, name string, at []builder.Placement) {
		t.Helper()
		if err := enter(name, at); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		if names4(w, channel, one) != 4 {
			t.Errorf("%s: the channel has moved", what)
		}
	}
	_, err = w.client("default", west).CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{two[2].ID}, Tags: []types.Tag{{Key: aws.String("bake:revoked"), Value: aws.String("leak")}}})
	w.fatal(err)
	refused("revoked in one region", "bake:revoked: leak", channel, two)
	three := w.placed("three")
	_, err = w.client("default", west).ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &three[2].ID, Attribute: aws.String("launchPermission"), OperationType: "remove", UserIds: []string{otherID}})
	w.fatal(err)
	refused("not shared in one region", "none is shared with it", channel, three)
	put := func(name, value string) {
		_, err := ssm.NewFromConfig(w.Config("default", home)).PutParameter(ctx, &ssm.PutParameterInput{Name: &name, Value: &value, Type: ssmtypes.ParameterTypeString})
		w.fatal(err)
	}
	four := w.placed("four")
	put(channel+".lock", "bake run x until 2099-01-02T03:04:05Z")
	refused("locked", "is locked by bake run x", channel, four)
	_, err = ssm.NewFromConfig(w.Config("default", home)).DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String(channel + ".lock")})
	w.fatal(err)
	put("/bake/text", "ami-1")
	refused("a text", "has the data type", "/bake/text", four)
	put(channel+".lock", "bake run x until 2020-01-02T03:04:05Z") // expired
	w.fatal(enter(channel, four))
	if names4(w, channel, four) != 4 {
		t.Error("the channel does not name four")
	}
}

// TestFaultsOfEnter: whatever fails, the channel names the same release everywhere,
// unless the process was killed, and always complete images.
func TestFaultsOfEnter(t *testing.T) {
	t.Parallel()
	eachCall(t, func(w *world) func(int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
		w.trusting()
		at := [][]builder.Placement{w.placed("one")[1:3], nil} // another account, and another region
		w.nextSecond()                                         // which one is newer
		at[1] = w.placed("two")[1:3]
		_, err := w.client("default", west).CreateTags(w.t.Context(), &ec2.CreateTagsInput{Resources: []string{at[1][1].ID}, Tags: []types.Tag{{Key: aws.String(channels.ApprovalTag("stable")), Value: aws.String("somebody")}}})
		w.fatal(err)
		d := builder.Distribution{Accounts: []string{otherID}, Role: roles}
		return func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
			channel := fmt.Sprintf("/bake/web-%d/stable", n)
			if n%2 == 0 { // the channel exists already
				s, _, _ := w.copying()
				w.fatal(w.distributor(d).MoveChannel(w.t.Context(), s, channel, "before", at[0]))
				w.fatal(s.Close(w.t.Context(), context.Background()))
			}
			o := w.distributor(d)
			do := func(ctx context.Context, s *step.Scope) error {
				return o.MoveChannel(ctx, s, channel, "test", at[1])
			}
			return do, func(what string, err error, struck bool) {
				var now, before int
				for i, p := range at[1] { // each is read once: a value may still be validated
					old := ""
					if n%2 == 0 {
						old = at[0][i].ID
					}
					switch w.channelAt(profiles[p.Account], p.Region, channel) {
					case p.ID:
						now++
					case old:
						before++
					}
				}
				killed := errors.Is(err, errKilled)
				if now+before != 2 || err == nil && now != 2 || err != nil && !killed && before != 2 {
					w.t.Errorf("%s: the channel names the old image in %d places, the new one in %d: %v", what, before, now, err)
				}
				if w.channelAt(other, home, channel+".lock")+w.channelAt("default", west, channel+".lock") != "" {
					w.t.Errorf("%s: a lock is left", what)
				}
				w.offered(d, channel, at[1], what)
			}
		}
	})
}

// offered offers a waiting image to a channel again after a fault, which must succeed. While the
// value written by a killed process is still being validated, an offer fails and is repeated, as in
// fleets.
func (w *world) offered(d builder.Distribution, channel string, at []builder.Placement, what string) {
	w.t.Helper()
	w.watch(nil)
	ctx := context.WithoutCancel(w.t.Context())
	s, _, _ := w.copying()
	block := &run.ImageBlock{Channels: []run.Channel{{Rule: channels.Rule{Name: "stable", Approval: true}, Parameter: channel}}}
	m := &releases.Mover{Image: "web", Block: block, Distributor: w.distributor(d), Scope: s, Now: time.Now}
	since := time.Now().Add(-time.Hour)
	said, err := m.PromotePending(ctx, at[1].ID, at, since)
	for try := 0; err != nil && try < 100; try++ {
		time.Sleep(100 * time.Millisecond)
		said, err = m.PromotePending(ctx, at[1].ID, at, since)
	}
	w.fatal(errors.Join(err, s.Close(ctx, ctx)))
	if !said[0].Names || names4(w, channel, at) != 2 {
		w.t.Errorf("%s: the image is offered again, and stays out: %+v", what, said)
	}
}

// TestTwoBreakLock: if two processes take over an expired lock, one gets it.
func TestTwoBreakLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon})
	at := own(w.placed("one"))[:1]
	for name, again := range map[string]bool{"first": false, "given up meanwhile": true} {
		channel := "/bake/" + strings.ReplaceAll(name, " ", "-") + "/stable"
		client := ssm.NewFromConfig(w.Config("default", home))
		lock := func(until string) {
			_, err := client.PutParameter(context.Background(), &ssm.PutParameterInput{Name: aws.String(channel + ".lock"), Value: aws.String("bake run " + until), Type: ssmtypes.ParameterTypeString, Overwrite: aws.Bool(true)})
			w.fatal(err)
		}
		lock("x until 2020-01-02T03:04:05Z")
		var once sync.Once
		w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			serve(rw)
			if c.Action == "GetParameter" {
				once.Do(func() { // another process is faster
					if again {
						_, err := client.DeleteParameter(context.Background(), &ssm.DeleteParameterInput{Name: aws.String(channel + ".lock")})
						w.fatal(err)
					}
					lock("y until 2099-01-02T03:04:05Z")
				})
			}
		})
		s, _, _ := w.copying()
		err := w.distributor(builder.Distribution{}).MoveChannel(t.Context(), s, channel, "test", at)
		w.watch(nil)
		w.fatal(s.Close(t.Context(), context.Background()))
		if err == nil || !strings.Contains(err.Error(), "is locked by bake run y") || w.channelAt("default", home, channel) != "" {
			t.Errorf("%s: %v", name, err)
		}
		if has := w.channelAt("default", home, channel+".lock"); has != "bake run y until 2099-01-02T03:04:05Z" {
			t.Errorf("%s: the lock is %q", name, has)
		}
	}
}

// TestMovedMeanwhile: a channel that was moved between reading and locking it is not changed.
func TestMovedMeanwhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon})
	at, next, other := own(w.placed("one"))[:1], own(w.placed("two"))[:1], own(w.placed("three"))[0].ID
	channel := "/bake/web/stable"
	w.parameter(channel, at[0].ID)
	var puts atomic.Int32
	w.watch(func(_ int, got call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if got.Action == "PutParameter" && puts.Add(1) == 1 { // of the lock
			_, err := ssm.NewFromConfig(w.Config("default", home)).PutParameter(context.Background(), &ssm.PutParameterInput{
				Name: &channel, Value: &other, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image"), Overwrite: aws.Bool(true),
			})
			w.fatal(err)
			w.until("the move is valid", func() bool { return w.channelAt("default", home, channel) == other })
		}
		serve(rw)
	})
	s, _, _ := w.copying()
	err := w.distributor(builder.Distribution{}).MoveChannel(t.Context(), s, channel, "test", next)
	w.watch(nil)
	w.fatal(s.Close(t.Context(), context.Background()))
	if err == nil || !strings.Contains(err.Error(), "the channel stays as it was: ") || !strings.Contains(err.Error(), "the channel "+channel+" was moved to "+other+" by arn:") {
		t.Errorf("got %v", err)
	}
	if has := w.channelAt("default", home, channel); has != other || puts.Load() != 1 {
		t.Errorf("the channel names %s after %d writes", has, puts.Load())
	}
	if lock := w.channelAt("default", home, channel+".lock"); lock != "" {
		t.Errorf("the lock stays: %s", lock)
	}
}

// TestMovedByAnother: the second writer of a channel gets an error, whenever the first one wrote.
// It is no conflict if both write the same image, for example because the write of a killed
// promotion arrives late.
func TestMovedByAnother(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{Validate: soon})
	at, next := own(w.placed("one"))[:1], own(w.placed("two"))[:1]
	const write = 2 // the second call of PutParameter; the first is that of the lock
	for name, c := range map[string]struct {
		before int32
		image  string
		want   string // of the error
	}{
		"the same":                 {write, next[0].ID, ""},
		"the same before the lock": {write - 1, next[0].ID, ""},
		"another":                  {write, at[0].ID, "has written the channel"},
	} {
		channel := "/bake/" + strings.ReplaceAll(name, " ", "-") + "/stable"
		w.parameter(channel, at[0].ID)
		var puts atomic.Int32
		w.watch(func(_ int, got call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if got.Action == "PutParameter" && puts.Add(1) == c.before {
				_, err := ssm.NewFromConfig(w.Config("default", home)).PutParameter(context.Background(), &ssm.PutParameterInput{
					Name: &channel, Value: &c.image, Type: ssmtypes.ParameterTypeString, DataType: aws.String("aws:ec2:image"), Overwrite: aws.Bool(true),
				})
				w.fatal(err)
				if c.before < write {
					w.until("the move is valid", func() bool { return w.channelAt("default", home, channel) == c.image })
				}
			}
			serve(rw)
		})
		s, _, _ := w.copying()
		err := w.distributor(builder.Distribution{}).MoveChannel(t.Context(), s, channel, "test", next)
		w.watch(nil)
		w.fatal(s.Close(t.Context(), context.Background()))
		if c.want == "" && (err != nil || w.channelAt("default", home, channel) != next[0].ID) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "drops a value")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
