package images_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/internal/turns"
)

const (
	alice = "111111111111"
	bob   = "222222222222"
	carol = "333333333333"
)

// who returns whom the image and its snapshots are shared with, according to the cloud.
func (w *world) who(region, id string) (image, snapshots []string) {
	w.t.Helper()
	ctx, c := context.WithoutCancel(w.t.Context()), w.client("default", region)
	out, err := c.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: &id, Attribute: types.ImageAttributeNameLaunchPermission})
	w.fatal(err)
	for _, p := range out.LaunchPermissions {
		image = append(image, aws.ToString(p.UserId)+string(p.Group)+aws.ToString(p.OrganizationArn)+aws.ToString(p.OrganizationalUnitArn))
	}
	found, err := c.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}, IncludeDisabled: aws.Bool(true)})
	w.fatal(err)
	for _, b := range found.Images[0].BlockDeviceMappings {
		out, err := c.DescribeSnapshotAttribute(ctx, &ec2.DescribeSnapshotAttributeInput{SnapshotId: b.Ebs.SnapshotId, Attribute: types.SnapshotAttributeNameCreateVolumePermission})
		w.fatal(err)
		for _, p := range out.CreateVolumePermissions {
			snapshots = append(snapshots, aws.ToString(p.UserId)+string(p.Group))
		}
	}
	return image, snapshots
}

// copied makes a copy of an image, as the user would.
func (w *world) copied(from, id, to, name string) string {
	w.t.Helper()
	out, err := w.client("default", to).CopyImage(w.t.Context(), &ec2.CopyImageInput{Name: &name, SourceImageId: &id, SourceRegion: &from})
	w.fatal(err)
	w.until("the copy is available", func() bool {
		found, err := w.client("default", to).DescribeImages(w.t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*out.ImageId}})
		w.fatal(err)
		return found.Images[0].State == types.ImageStateAvailable
	})
	return *out.ImageId
}

// TestShare: an image and its copies are shared and unshared, with snapshots if
// requested; existing sharing causes no further calls.
func TestShare(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	there := w.copied(home, id, west, "web")
	w.image(west, "unrelated")
	a := w.open(home, west)
	organization := "arn:aws:organizations::123456789012:organization/o-a1b2c3d4e5"

	done, err := a.Share(t.Context(), id, images.SharingChange{With: []string{alice, organization}})
	w.fatal(err)
	if len(done) != 1 || !done[0].Changed || !done[0].Before.Empty() || done[0].After.String() != alice+", "+organization {
		t.Errorf("what was done: %+v", done)
	}
	image, snapshots := w.who(home, id)
	if diff := cmp.Diff([]string{alice, organization}, image); diff != "" || len(snapshots) > 0 {
		t.Errorf("the image alone (-want +got):\n%s%v", diff, snapshots)
	}
	w.watch(nil)
	done, err = a.Share(t.Context(), id, images.SharingChange{With: []string{alice}})
	w.fatal(err)
	if done[0].Changed {
		t.Error("what is so already counts as a change")
	}
	for _, c := range w.seen() {
		if c.changes() {
			t.Errorf("what is so already is changed: %s", c.Action)
		}
	}
	done, err = a.Share(t.Context(), id, images.SharingChange{With: []string{bob}, Snapshots: true, Copies: true})
	w.fatal(err)
	if len(done) != 2 {
		t.Errorf("an image and its copy: %+v", done)
	}
	image, snapshots = w.who(west, there)
	if diff := cmp.Diff([][]string{{bob}, {bob}}, [][]string{image, snapshots}); diff != "" {
		t.Errorf("the copy (-want +got):\n%s", diff)
	}
	_, err = a.Unshare(t.Context(), there, images.SharingChange{All: true, Snapshots: true, Copies: true})
	w.fatal(err)
	for region, id := range map[string]string{home: id, west: there} {
		if image, snapshots := w.who(region, id); len(image)+len(snapshots) > 0 {
			t.Errorf("%s is still shared with %v, its snapshots with %v", id, image, snapshots)
		}
	}
}

// TestUnshareGuarded: an account that uses an image, according to the guard, does not
// lose it.
func TestUnshareGuarded(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	a := w.open(home)
	_, err := a.Share(t.Context(), id, images.SharingChange{With: []string{alice}})
	w.fatal(err)
	used := errors.New("used")
	asked := 0
	guard := func(_ context.Context, all []images.Shared, _ images.SharingChange) error {
		asked += len(all)
		return used
	}
	if _, err := a.Unshare(t.Context(), id, images.SharingChange{With: []string{bob}, Guard: guard}); err != nil || asked > 0 {
		t.Errorf("nothing is taken from anybody: %v, asked %d times", err, asked)
	}
	if _, err := a.Unshare(t.Context(), id, images.SharingChange{With: []string{alice}, Guard: guard}); !errors.Is(err, used) {
		t.Errorf("the guard was not heard: %v", err)
	}
	if image, _ := w.who(home, id); len(image) != 1 {
		t.Errorf("it was taken back: %v", image)
	}
}

// TestUnshareFromOthers: the use by one account does not prevent unsharing the image with
// others.
func TestUnshareFromOthers(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	a := w.open(home)
	_, err := a.Share(t.Context(), id, images.SharingChange{With: []string{alice, bob}, Public: true})
	w.fatal(err)
	// Another account has only the snapshots, from which it may have made images.
	found, err := a.Find(t.Context(), id)
	w.fatal(err)
	_, err = w.client("default", home).ModifySnapshotAttribute(t.Context(), &ec2.ModifySnapshotAttributeInput{
		SnapshotId: &found[0].Snapshots()[0], OperationType: types.OperationTypeAdd, UserIds: []string{carol},
	})
	w.fatal(err)
	w.watch(answering(map[string]string{
		"CreateImageUsageReport":          "<reportId>report-1</reportId>",
		"DeleteImageUsageReport":          "<return>true</return>",
		"DescribeImageUsageReports":       "<imageUsageReportSet><item><reportId>report-1</reportId><state>available</state></item></imageUsageReportSet>",
		"DescribeImageUsageReportEntries": "<imageUsageReportEntrySet><item><resourceType>ec2:Instance</resourceType><accountId>" + alice + "</accountId><usageCount>1</usageCount></item></imageUsageReportEntrySet>",
	}))
	for _, c := range []struct {
		change images.SharingChange
		used   bool
	}{
		{images.SharingChange{With: []string{carol}, Snapshots: true}, true},
		{images.SharingChange{With: []string{carol}}, false},
		{images.SharingChange{With: []string{bob}, Snapshots: true}, false},
		{images.SharingChange{With: []string{alice}}, true},
		{images.SharingChange{Public: true}, false}, // alice has it by name
		{images.SharingChange{All: true}, true},
	} {
		c.change.Guard = a.Receivers(images.Guards{Reports: true})
		_, err := a.Unshare(t.Context(), id, c.change)
		if used, ok := errors.AsType[*images.InUseError](err); ok != c.used || !ok && err != nil {
			t.Errorf("%+v: %v %v", c.change, used, err)
		}
	}
	if image, _ := w.who(home, id); len(image) != 1 || image[0] != alice {
		t.Errorf("it is shared with %v", image)
	}
}

// TestShareRefused: sharing that AWS would refuse is reported before anything is
// shared.
func TestShareRefused(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	there := w.copied(home, id, west, "web")
	managed := w.register("default", home, "managed", []string{w.snapshot("default", home, nil), w.snapshot("default", home, aws.String(""))})
	mine := w.register("default", home, "mine", []string{w.snapshot("default", home, aws.String("alias/golden"))})
	off := w.image(home, "off")
	_, err := w.client("default", home).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: &off})
	w.fatal(err)
	theirs := w.register(other, home, "theirs", []string{w.snapshot(other, home, nil)})
	a := w.open(home, west)
	_, err = w.client(other, home).ModifyImageAttribute(t.Context(), &ec2.ModifyImageAttributeInput{
		ImageId: &theirs, LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: &a.ID}}},
	})
	w.fatal(err)
	// One of two copies cannot be shared: neither is.
	_, err = w.client("default", west).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: &there})
	w.fatal(err)
	for name, c := range map[string]struct {
		ref  string
		c    images.SharingChange
		want string
	}{
		"default key":       {managed, images.SharingChange{With: []string{alice}}, "default key for EBS"},
		"public, encrypted": {mine, images.SharingChange{Public: true}, "does not allow encrypted images to be public"},
		"disabled":          {off, images.SharingChange{With: []string{alice}}, "it is disabled"},
		"disabled copy":     {id, images.SharingChange{With: []string{alice}, Copies: true}, there + " (web) in us-west-2 cannot be shared"},
		"not the owner":     {theirs, images.SharingChange{With: []string{alice}}, "belongs to account"},
		"with itself":       {id, images.SharingChange{With: []string{a.ID}}, "-with=" + a.ID},
		"not an account":    {id, images.SharingChange{With: []string{"12345"}}, "-with=12345"},
		"snapshots":         {id, images.SharingChange{With: []string{"arn:aws:organizations::123456789012:ou/o-a1b2c3d4e5/ou-ab12-11111111"}, Snapshots: true}, "only with accounts"},
		"nobody":            {id, images.SharingChange{}, "say with whom"},
		"no such image":     {"nothing", images.SharingChange{With: []string{alice}}, `no image named "nothing"`},
	} {
		w.watch(nil)
		if _, err := a.Share(t.Context(), c.ref, c.c); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		for _, call := range w.seen() {
			if call.changes() && call.Action != "GetCallerIdentity" {
				t.Errorf("%s: %s was called", name, call.Action)
			}
		}
	}
	if done, err := a.Share(t.Context(), mine, images.SharingChange{With: []string{alice}}); err != nil || len(done) != 1 || len(done[0].Keys) != 1 {
		t.Errorf("a key of one's own: %+v, %v", done, err)
	}
}

// TestShareFaults: whatever happens to a call, an image is shared together with its
// snapshots or not at all, others are not affected, and a retry completes it.
func TestShareFaults(t *testing.T) {
	for _, f := range turns.One(t, []mishap{{name: "refused"}, {name: "answer lost", perform: true, lose: true}, {name: "cancelled after", perform: true, cancel: true}}) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, cloud.Options{})
			id := w.register("default", home, "web", []string{w.snapshot("default", home, nil), w.snapshot("default", home, nil)})
			w.copied(home, id, west, "web")
			change := images.SharingChange{With: []string{alice}, Snapshots: true, Copies: true}
			for n := 1; ; n++ {
				a := w.open(home, west)
				ctx, cancel := context.WithCancelCause(t.Context())
				var action string
				w.watch(func(i int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
					if i != n {
						serve(rw)
						return
					}
					action = c.Action
					if !f.perform {
						refuse(rw)
						return
					}
					answer := httptest.NewRecorder()
					serve(answer)
					if f.cancel {
						cancel(errInterrupted)
					}
					panic(http.ErrAbortHandler)
				})
				done, err := a.Share(ctx, id, change)
				struck := len(w.seen()) >= n
				w.watch(nil)
				cancel(nil)
				if !struck {
					if err != nil || len(done) != 2 {
						t.Errorf("without a fault: %v", err)
					}
					return
				}
				if f.cancel && !errors.Is(err, errInterrupted) {
					t.Errorf("call %d (%s): the error is not the cause: %v", n, action, err)
				}
				for _, i := range w.all() {
					image, snapshots := w.who(i.Region, i.ID)
					if len(image)*2 != len(snapshots) {
						t.Errorf("call %d (%s): %s is shared with %v, its snapshots with %v (%v)", n, action, i.Region, image, snapshots, err)
					}
				}
				if _, err := w.open(home, west).Unshare(t.Context(), id, images.SharingChange{All: true, Snapshots: true, Copies: true}); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestSharingNotCutOff: if a change of the sharing is interrupted, the pending call is completed
// first, even if it takes as long as several attempts: the result is then known, and the change is
// reverted after it.
func TestSharingNotCutOff(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	id := w.register("default", home, "web", []string{w.snapshot("default", home, nil), w.snapshot("default", home, nil)})
	a := w.open(home)
	give := images.SharingChange{With: []string{alice}, Snapshots: true}
	take := images.SharingChange{All: true, Snapshots: true}
	for name, do := range map[string]func(context.Context) ([]images.Shared, error){
		"share":   func(ctx context.Context) ([]images.Shared, error) { return a.Share(ctx, id, give) },
		"unshare": func(ctx context.Context) ([]images.Shared, error) { return a.Unshare(ctx, id, take) },
	} {
		for n := int32(1); ; n++ {
			var err error
			if name == "share" {
				_, err = a.Unshare(t.Context(), id, take)
			} else {
				_, err = a.Share(t.Context(), id, give)
			}
			w.fatal(err)
			ctx, cancel := context.WithCancelCause(t.Context())
			went := make(chan struct{}) // on without the answer
			var once sync.Once
			var changes atomic.Int32
			w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
				switch change := strings.HasPrefix(c.Action, "Modify"); {
				case change && changes.Add(1) == n:
					cancel(errInterrupted)
					long := 300 * time.Millisecond
					if n == 1 {
						long = 6 * time.Second
					}
					select {
					case <-went:
						t.Errorf("%s, change %d: %s was cut off", name, n, c.Action)
					case <-time.After(long):
					}
				case change && changes.Load() > n:
					once.Do(func() { close(went) })
				}
				serve(rw)
			})
			_, err = do(ctx)
			once.Do(func() { close(went) })
			struck := changes.Load() >= n
			w.watch(nil)
			cancel(nil)
			if !struck {
				w.fatal(err)
				break
			}
			if !errors.Is(err, errInterrupted) {
				t.Errorf("%s, change %d: the error is not the cause: %v", name, n, err)
			}
			image, snapshots := w.who(home, id)
			if name == "share" && len(image)+len(snapshots) > 0 || name == "unshare" && (len(image) > 0 || len(snapshots) != 3-int(n)) {
				t.Errorf("%s, change %d: the image is shared with %v, its snapshots with %v", name, n, image, snapshots)
			}
		}
	}
}

// all returns the account's images in both regions.
func (w *world) all() []images.Image {
	w.t.Helper()
	a, err := images.Open(w.t.Context(), images.Place{Regions: []string{home, west}, Cloud: w.as("default")})
	w.fatal(err)
	all, err := a.List(context.WithoutCancel(w.t.Context()), images.Query{})
	w.fatal(err)
	return all
}
