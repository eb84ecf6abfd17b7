package images_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/internal/turns"
	"bake/step"
)

const (
	ownID, otherID = "123456789012", "987654321098"
	roles          = "arn:aws:iam::{account}:role/bake"
)

// trusting gives the other account a role that the test's account may assume.
func (w *world) trusting() *world {
	_, err := iam.NewFromConfig(w.Config(other, home)).CreateRole(w.t.Context(), &iam.CreateRoleInput{
		RoleName:                 aws.String("bake"),
		AssumeRolePolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + ownID + `:root"},"Action":["sts:AssumeRole"]}}`),
	})
	w.fatal(err)
	return w
}

// distributor opens the distributor of a distribution, and records its calls.
func (w *world) distributor(d builder.Distribution) *images.Distributor {
	return w.open(home).NewDistributor(d, "run")
}

// seenBy describes an image as an account sees it; nil if it does not.
func (w *world) seenBy(profile, region, id string) *types.Image {
	w.t.Helper()
	out, err := w.client(profile, region).DescribeImages(context.WithoutCancel(w.t.Context()), &ec2.DescribeImagesInput{ImageIds: []string{id}, IncludeDisabled: aws.Bool(true)})
	if err != nil || len(out.Images) == 0 {
		return nil
	}
	return &out.Images[0]
}

func tagOf(i *types.Image, key string) string {
	for _, t := range i.Tags {
		if *t.Key == key {
			return *t.Value
		}
	}
	return ""
}

// sharedWith returns the accounts that an image of the test's account and its snapshots
// are shared with.
func (w *world) sharedWith(region, id string) (out []string) {
	w.t.Helper()
	ctx, c := context.WithoutCancel(w.t.Context()), w.client("default", region)
	image, err := c.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: types.ImageAttributeNameLaunchPermission})
	w.fatal(err)
	for _, p := range image.LaunchPermissions {
		out = append(out, "image: "+*p.UserId)
	}
	for _, b := range w.seenBy("default", region, id).BlockDeviceMappings {
		s, err := c.DescribeSnapshotAttribute(ctx, &ec2.DescribeSnapshotAttributeInput{SnapshotId: b.Ebs.SnapshotId, Attribute: types.SnapshotAttributeNameCreateVolumePermission})
		w.fatal(err)
		for _, p := range s.CreateVolumePermissions {
			out = append(out, "snapshot: "+*p.UserId)
		}
	}
	return out
}

// TestDistribute: each account has the image in each region, its own or a shared one, with
// its tags; repeating the distribution changes nothing.
func TestDistribute(t *testing.T) {
	w := newWorld(t, cloud.Options{}).trusting()
	for _, mode := range []string{"share", "copy"} {
		id := w.image(home, mode, "bake:image", mode, "team", "web")
		d := builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID, ownID}, Copy: mode == "copy", Role: roles}
		if mode == "copy" {
			d.Keys = map[string]string{west: "alias/golden"}
		}
		w.fatal(w.distributor(d).Check(t.Context()))
		var first []builder.Placement
		for range 2 {
			s, l, _ := w.copying()
			all, err := w.distributor(d).Distribute(t.Context(), s, map[string]string{home: id})
			w.fatal(errors.Join(err, s.Close(t.Context(), context.Background())))
			if owned, _ := l.Owned(); len(owned) > 0 {
				t.Errorf("%s: the ledger owns %v", mode, owned)
			}
			if first == nil {
				first = all
			}
			if len(all) != 4 || fmt.Sprint(ids(all)) != fmt.Sprint(ids(first)) {
				t.Fatalf("%s: placed %v", mode, all)
			}
			for _, at := range all {
				profile := map[string]string{ownID: "default", otherID: other}[at.Account]
				i := w.seenBy(profile, at.Region, at.ID)
				if i == nil || i.State != types.ImageStateAvailable || tagOf(i, "team") != "web" || tagOf(i, "bake:run") != "" || at.Shared != (*i.OwnerId != at.Account) {
					t.Errorf("%s: %v: %+v", mode, at, i)
				}
				if encrypted := aws.ToBool(i.BlockDeviceMappings[0].Ebs.Encrypted); encrypted != (mode == "copy" && at.Region == west) {
					t.Errorf("%s: %v is encrypted: %t", mode, at, encrypted)
				}
				if at.Account != ownID {
					continue
				}
				shared := w.sharedWith(at.Region, at.ID)
				if mode == "copy" && len(shared) > 0 || mode == "share" && !slices.Equal(shared, []string{"image: " + otherID, "snapshot: " + otherID}) {
					t.Errorf("%s: %v is shared with %v", mode, at, shared)
				}
			}
		}
	}
}

func ids(all []builder.Placement) (out []string) {
	for _, at := range all {
		out = append(out, at.ID)
	}
	return out
}

// TestNotDistributable: obstacles to distributing an image are reported before it is made.
func TestNotDistributable(t *testing.T) {
	w := newWorld(t, cloud.Options{}).trusting()
	for text, d := range map[string]builder.Distribution{
		"account 111122223333: the role arn:aws:iam::111122223333:role/bake cannot be assumed": {Accounts: []string{"111122223333"}, Role: roles},
		"is one of account 987654321098": {Accounts: []string{"111122223333"}, Role: strings.ReplaceAll(roles, "{account}", otherID)},
		"has no region mars-north-1":     {Regions: []string{"mars-north-1"}},
		"only with a role":               {Accounts: []string{otherID}, Copy: true},
	} {
		if err := w.distributor(d).Check(t.Context()); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", text, err)
		}
	}
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "CopyImage" {
			refuse(rw)
			return
		}
		serve(rw)
	})
	if err := w.distributor(builder.Distribution{Regions: []string{west}}).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "CopyImage") {
		t.Errorf("without the permission: %v", err)
	}
}

// mishap is a way in which a call fails.
type mishap struct {
	name                        string
	perform, lose, cancel, kill bool
}

func mishaps() []mishap {
	return []mishap{{name: "refused"}, {name: "answer lost", perform: true, lose: true}, {name: "killed after", perform: true, cancel: true, kill: true}}
}

// eachCall runs do repeatedly, and makes one call after the other fail, in each way, or in that of
// the day. ready prepares a world and returns do; inspect checks the world after a sweep. struck is
// false for the last run, in which nothing fails.
func eachCall(t *testing.T, ready func(w *world) func(n int) (do func(context.Context, *step.Scope) error, inspect func(what string, err error, struck bool))) {
	for _, f := range turns.One(t, mishaps()) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cloud.Options{Validate: soon})
			next := ready(w)
			for n := 1; f.strike(w, n, next); n++ {
			}
		})
	}
}

var errKilled = errors.New("killed")

func (f mishap) strike(w *world, n int, next func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool))) (struck bool) {
	w.t.Helper()
	do, inspect := next(n)
	ctx, cancel := context.WithCancelCause(w.t.Context())
	defer cancel(nil)
	s, l, path := w.copying()
	var mu sync.Mutex
	var ledger []byte
	var action string
	dead := false
	w.watch(func(i int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		if i != n {
			gone := dead
			mu.Unlock()
			if gone {
				refuse(rw) // nobody is there to make it
				return
			}
			serve(rw)
			return
		}
		action, dead = c.Action, f.kill
		ledger, _ = os.ReadFile(path)
		mu.Unlock()
		if !f.perform && !f.lose {
			refuse(rw)
			return
		}
		if f.perform {
			serve(httptest.NewRecorder())
		}
		if f.cancel {
			cancel(errInterrupted)
		}
		panic(http.ErrAbortHandler)
	})
	err := do(ctx, s)
	struck = len(w.seen()) >= n
	what := fmt.Sprintf("call %d (%s)", n, action)
	if f.kill && struck {
		err = errKilled // its response is lost
		w.watch(nil)
		w.sweepAll(ledger)
	} else {
		if s.Close(ctx, context.Background()) != nil {
			w.watch(nil)
			w.fatal(s.Close(ctx, context.Background())) // one call fails: trying again must do
		}
		if owned, _ := l.Owned(); len(owned) > 0 {
			w.t.Errorf("%s: the ledger still owns %v", what, owned)
		}
	}
	w.watch(nil)
	if !struck && err != nil {
		w.t.Errorf("without a fault: %v", err)
	}
	inspect(what, err, struck)
	return struck && !w.t.Failed()
}

// TestFaultsOfDistribute: whatever fails, each remaining image is complete, with its
// tags, and no additional permissions are left.
func TestFaultsOfDistribute(t *testing.T) {
	t.Parallel()
	for _, copied := range turns.One(t, []bool{true, false}) {
		t.Run(map[bool]string{true: "copy", false: "share"}[copied], func(t *testing.T) {
			eachCall(t, func(w *world) func(int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
				w.trusting()
				return func(n int) (func(context.Context, *step.Scope) error, func(string, error, bool)) {
					name := fmt.Sprintf("web-%d", n)
					id := w.image(home, name, "bake:image", "web")
					o := w.distributor(builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID}, Copy: copied, Role: roles})
					var placed []builder.Placement
					do := func(ctx context.Context, s *step.Scope) (err error) {
						placed, err = o.Distribute(ctx, s, map[string]string{home: id})
						return err
					}
					return do, func(what string, err error, struck bool) {
						if err == nil && len(placed) != 4 {
							w.t.Errorf("%s: placed %v", what, placed)
						}
						w.wholeEverywhere(what, name)
						if shared := w.sharedWith(home, id); copied && len(shared) > 0 {
							w.t.Errorf("%s: shared with %v", what, shared)
						}
						for _, at := range placed {
							if errors.Is(err, errKilled) {
								break
							}
							profile := map[string]string{ownID: "default", otherID: other}[at.Account]
							if i := w.seenBy(profile, at.Region, at.ID); i == nil || i.State != types.ImageStateAvailable || tagOf(i, "bake:image") != "web" {
								w.t.Errorf("%s: placed %v: %+v", what, at, i)
							}
						}
					}
				}
			})
		})
	}
}

// wholeEverywhere reports incomplete images of that name, in both accounts and regions.
func (w *world) wholeEverywhere(what, name string) {
	w.t.Helper()
	for _, profile := range []string{"default", other} {
		for _, region := range []string{home, west} {
			out, err := w.client(profile, region).DescribeImages(context.WithoutCancel(w.t.Context()), &ec2.DescribeImagesInput{
				Owners: []string{"self"}, Filters: []types.Filter{{Name: aws.String("name"), Values: []string{name}}},
			})
			w.fatal(err)
			for _, i := range out.Images {
				if i.State != types.ImageStateAvailable || tagOf(&i, "bake:run") != "" || tagOf(&i, "bake:image") != "web" {
					w.t.Errorf("%s: image %s in %s of %s is %s with tags %v", what, *i.ImageId, region, profile, i.State, i.Tags)
				}
			}
		}
	}
}
