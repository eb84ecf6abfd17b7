package images_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/images"
	"bake/cloud"
	"bake/internal/imagetag"
)

// share parses a share.
func share(t *testing.T, text string) images.Share {
	t.Helper()
	s, err := images.ParseShare(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestParseShare(t *testing.T) {
	for _, bad := range []string{"", "0", "-1", "+1", "0%", "101%", "many", "%", "1.5"} {
		if s, err := images.ParseShare(bad); err == nil {
			t.Errorf("%q is %v", bad, s)
		}
	}
	for _, good := range []string{"1", "20%", "100%"} {
		if s := share(t, good); s.String() != good {
			t.Errorf("%q is %v", good, s)
		}
	}
}

// releases makes images with these names, the oldest first, and returns their IDs by name.
// EC2 dates images by the second; images of the same second are distinguished only by
// their IDs.
func (w *world) releases(names ...string) map[string]string {
	ids := map[string]string{}
	for n, name := range names {
		if n > 0 {
			w.nextSecond()
			time.Sleep(100 * time.Millisecond)
		}
		ids[name] = w.image(home, name)
	}
	return ids
}

// actions returns the planned actions on images, by name.
func actions(p *images.Plan) map[string]string {
	all := map[string]string{}
	for _, i := range p.Images {
		all[i.Image.Name] = i.Action
	}
	return all
}

// TestPlan: the plan has the surplus images.
func TestPlan(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	names := []string{"web-20260101", "web-20260102", "web-20260103", "web-20260104", "db-20260101"}
	ids := w.releases(names...)
	w.watch(answering(nobody))
	a := w.open(home)
	plan := func(o images.PruneOptions) string {
		t.Helper()
		if o.Max == (images.Share{}) {
			o.Max = share(t, "100%")
		}
		if o.Guards.Now == nil {
			o.Guards.Now = later
		}
		p, err := a.Plan(t.Context(), o)
		w.fatal(err)
		all, text := actions(p), []string{}
		for _, n := range names {
			text = append(text, all[n])
		}
		return strings.Join(text, " ")
	}
	for _, c := range []struct {
		what string
		o    images.PruneOptions
		want string
	}{
		{"keep 1", images.PruneOptions{Keep: 1}, "remove remove remove keep keep"},
		{"keep 3", images.PruneOptions{Keep: 3}, "remove keep keep keep keep"},
		{"keep more than there are", images.PruneOptions{Keep: 9}, "keep keep keep keep keep"},
		{"too young", images.PruneOptions{Keep: 1, Stages: images.Stages{Delete: 90 * 24 * time.Hour}}, "keep keep keep keep keep"},
		{"old enough", images.PruneOptions{Keep: 1, Stages: images.Stages{Delete: 30 * 24 * time.Hour}}, "remove remove remove keep keep"},
		{"at most 1", images.PruneOptions{Keep: 1, Max: share(t, "1")}, "remove later later keep keep"},
		{"at most half", images.PruneOptions{Keep: 1, Max: share(t, "50%")}, "remove remove later keep keep"},
		{"a small percentage", images.PruneOptions{Keep: 1, Max: share(t, "1%")}, "remove later later keep keep"},
		{"all made a moment ago", images.PruneOptions{Keep: 1, Guards: images.Guards{Now: time.Now}}, "in-use in-use in-use keep keep"},
		{"together", images.PruneOptions{Keep: 1, Together: true}, "remove remove remove remove keep"},
	} {
		if got := plan(c.o); got != c.want {
			t.Errorf("%s: got %s, want %s", c.what, got, c.want)
		}
	}
	c := w.client("default", home)
	tag := func(name, key, value string) {
		_, err := c.CreateTags(t.Context(), &ec2.CreateTagsInput{Resources: []string{ids[name]}, Tags: []types.Tag{{Key: &key, Value: &value}}})
		w.fatal(err)
	}
	// A shared image is queried only when it would be removed, and the next one takes its
	// place.
	w.fatal(permit(c, ids["web-20260101"], types.LaunchPermission{UserId: aws.String("987654321098")}))
	if got := plan(images.PruneOptions{Keep: 1, Max: share(t, "1")}); got != "in-use remove later keep keep" {
		t.Errorf("the oldest is shared: %s", got)
	}
	tag("web-20260102", "bake:hold", "Ann")
	if got := plan(images.PruneOptions{Keep: 1}); got != "in-use in-use remove keep keep" {
		t.Errorf("one is held: %s", got)
	}
	tag("web-20260103", "bake:image", "other")
	if got := plan(images.PruneOptions{Keep: 1}); got != "in-use in-use keep keep keep" {
		t.Errorf("one is of another image: %s", got)
	}
	// Nor does one that has failed its verification, and nothing is removed while it is the
	// newest.
	untag := func(name, key string) {
		_, err := c.DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{ids[name]}, Tags: []types.Tag{{Key: &key}}})
		w.fatal(err)
	}
	tag("web-20260104", "bake:rejected", "run")
	if got := plan(images.PruneOptions{Keep: 1}); got != "keep keep keep keep keep" {
		t.Errorf("the newest has failed its verification: %s", got)
	}
	untag("web-20260104", "bake:rejected")
	untag("web-20260102", "bake:hold")
	tag("web-20260102", "bake:rejected", "run")
	if got := plan(images.PruneOptions{Keep: 2}); got != "keep remove keep keep keep" {
		t.Errorf("another has failed its verification: %s", got)
	}
	untag("web-20260102", "bake:rejected")
	tag("web-20260104", "bake:revoked", "broken")
	if got := plan(images.PruneOptions{Keep: 1}); got != "in-use keep keep remove keep" {
		t.Errorf("the newest was revoked: %s", got)
	}
	untag("web-20260104", "bake:revoked")
	tag("web-20260104", "bake:run", "r1")
	if got := plan(images.PruneOptions{Keep: 1}); got != "in-use keep keep keep keep" {
		t.Errorf("the newest is of a run that has not finished: %s", got)
	}
	untag("web-20260104", "bake:run")
	tag("web-20260102", "bake:hold", "Ann")
	// A deprecated image does not count as one to keep.
	_, err := c.EnableImageDeprecation(t.Context(), &ec2.EnableImageDeprecationInput{ImageId: aws.String(ids["web-20260104"]), DeprecateAt: aws.Time(time.Now().Add(time.Hour))})
	w.fatal(err)
	if got := plan(images.PruneOptions{Keep: 1}); got != "in-use keep keep keep keep" {
		t.Errorf("the newest is deprecated: %s", got)
	}
	// Nothing is removed while too few images are available.
	_, err = c.DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: aws.String(ids["web-20260104"])})
	w.fatal(err)
	_, err = c.DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: aws.String(ids["web-20260101"])})
	w.fatal(err)
	if got := plan(images.PruneOptions{Keep: 2}); got != "keep keep keep keep keep" {
		t.Errorf("only one is available: %s", got)
	}
}

// TestPruneSparesTheRest: nothing is removed if the images that replace it have
// disappeared meanwhile.
func TestPruneSparesTheRest(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ids := w.releases("web-20260101", "web-20260102")
	w.watch(answering(nobody))
	a := w.open(home)
	g := images.Guards{Now: later}
	plan, err := a.Plan(t.Context(), images.PruneOptions{Keep: 1, Max: share(t, "1"), Guards: g})
	w.fatal(err)
	_, err = w.client("default", home).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: aws.String(ids["web-20260102"])})
	w.fatal(err)
	err = w.task(t).remover(a, g).Prune(t.Context(), plan)
	if err == nil || !strings.Contains(err.Error(), "is not available any more") || !slices.Contains(w.holdings(home), ids["web-20260101"]) {
		t.Errorf("the image to keep is disabled: %v", err)
	}
}

// TestPruneFaults: whatever call fails, the newest image and one in use stay, and the
// old one exists with its snapshot or is gone with it.
func TestPruneFaults(t *testing.T) {
	t.Parallel()
	walk(t, func(ctx context.Context, task *task, a *images.Account) error {
		g := images.Guards{Now: later}
		plan, err := a.Plan(ctx, images.PruneOptions{Query: images.Query{Name: "web-*"}, Keep: 1, Max: images.Share{N: 100, Percent: true}, Guards: g})
		if plan == nil {
			return err
		}
		if perr := task.remover(a, g).Prune(ctx, plan); perr != nil {
			return perr
		}
		return err
	}, func(w *world) func(string) {
		w.clear()
		old, used := w.snapshot("default", home, nil), w.snapshot("default", home, nil)
		removable := w.register("default", home, "web-20260101", []string{old}, "bake:image", "web")
		held := w.register("default", home, "web-20260102", []string{used}, "bake:image", "web", "bake:hold", "Ann")
		w.nextSecond()
		newest := w.image(home, "web-20260103", "bake:image", "web")
		return func(where string) {
			left := w.holdings(home)
			has := func(id string) bool { return slices.Contains(left, id) }
			if !has(held) || !has(used) || !has(newest) {
				t.Errorf("%s: one to keep is gone: held %t, newest %t", where, has(held), has(newest))
			}
			if has(removable) != has(old) {
				t.Errorf("%s: of the image and its snapshot, there is one: image %t, snapshot %t", where, has(removable), has(old))
			}
		}
	}, "refused", "killed after")
}

// clear removes all images and snapshots of the account, so that the number of calls stays
// the same.
func (w *world) clear() {
	c := w.client("default", home)
	for _, id := range w.holdings(home) { // images first
		var err error
		if strings.HasPrefix(id, "ami-") {
			_, err = c.DeregisterImage(context.Background(), &ec2.DeregisterImageInput{ImageId: &id})
		} else {
			_, err = c.DeleteSnapshot(context.Background(), &ec2.DeleteSnapshotInput{SnapshotId: &id})
		}
		w.fatal(err)
	}
}

// orphan makes a snapshot whose description names an image.
func (w *world) orphan(image string) string {
	w.t.Helper()
	c := w.client("default", home)
	volume, err := c.CreateVolume(w.t.Context(), &ec2.CreateVolumeInput{AvailabilityZone: aws.String(home + "a"), Size: aws.Int32(1), VolumeType: types.VolumeTypeGp3})
	w.fatal(err)
	s, err := c.CreateSnapshot(w.t.Context(), &ec2.CreateSnapshotInput{VolumeId: volume.VolumeId, Description: aws.String("Created by CreateImage(i-0123456789abcdef0) for " + image)})
	w.fatal(err)
	w.until("the snapshot is complete", func() bool {
		out, err := c.DescribeSnapshots(w.t.Context(), &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*s.SnapshotId}})
		w.fatal(err)
		return out.Snapshots[0].State == types.SnapshotStateCompleted
	})
	_, err = c.DeleteVolume(w.t.Context(), &ec2.DeleteVolumeInput{VolumeId: volume.VolumeId})
	w.fatal(err)
	return *s.SnapshotId
}

const goneImage = "ami-00000000000000001"

// TestOrphans: snapshots without their image are found, with the reasons for keeping
// some.
func TestOrphans(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ctx, c := t.Context(), w.client("default", home)
	alive := w.image(home, "web")
	disabled := w.image(home, "disabled")
	_, err := c.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &disabled})
	w.fatal(err)
	w.snapshot("default", home, nil) // a backup: nothing says that it is of an image
	w.orphan(alive)
	w.orphan(disabled)
	mapped := w.orphan(goneImage)
	w.register("default", home, "mapping", []string{mapped})
	made := map[string]string{}
	for _, name := range []string{"free", "shared", "backup", "run", "template", "locked", "expired", "fast", "bin", "launch"} {
		of := map[string]string{"bin": "ami-00000000000000002", "launch": "ami-00000000000000003"}[name]
		if of == "" {
			of = goneImage
		}
		made[name] = w.orphan(of)
	}
	tag := func(id, key, value string) {
		_, err := c.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{id}, Tags: []types.Tag{{Key: &key, Value: &value}}})
		w.fatal(err)
	}
	tag(made["backup"], "velero.io/backup", "nightly")
	tag(made["run"], "bake:run", "4711")
	_, err = c.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: aws.String(made["shared"]), OperationType: types.OperationTypeAdd, UserIds: []string{"987654321098"}})
	w.fatal(err)
	_, err = c.CreateLaunchTemplate(ctx, &ec2.CreateLaunchTemplateInput{LaunchTemplateName: aws.String("data"), LaunchTemplateData: &types.RequestLaunchTemplateData{
		BlockDeviceMappings: []types.LaunchTemplateBlockDeviceMappingRequest{{DeviceName: aws.String("/dev/sdf"), Ebs: &types.LaunchTemplateEbsBlockDeviceRequest{SnapshotId: aws.String(made["template"])}}},
	}})
	w.fatal(err)
	more := map[string]string{
		"DescribeLockedSnapshots":      fmt.Sprintf("<snapshotSet><item><snapshotId>%s</snapshotId><lockState>governance</lockState></item><item><snapshotId>%s</snapshotId><lockState>expired</lockState></item></snapshotSet>", made["locked"], made["expired"]),
		"DescribeFastSnapshotRestores": fmt.Sprintf("<fastSnapshotRestoreSet><item><snapshotId>%s</snapshotId><state>enabled</state><availabilityZone>us-east-1a</availabilityZone></item></fastSnapshotRestoreSet>", made["fast"]),
		"ListImagesInRecycleBin":       "<imageSet><item><imageId>ami-00000000000000002</imageId></item></imageSet>",
		"DescribeFastLaunchImages":     "<fastLaunchImageSet><item><imageId>ami-00000000000000003</imageId></item></fastLaunchImageSet>",
	}
	w.watch(answering(more, nobody))
	a := w.open(home)
	o := images.OrphanOptions{Now: later, MinAge: 24 * time.Hour}
	found, err := a.Orphans(ctx, o)
	w.fatal(err)
	got := map[string]string{}
	for _, s := range found {
		got[s.ID] = s.Kept
		if s.Bytes != 1<<30 || s.Price() != 0.05 {
			t.Errorf("%s has %d bytes, which cost %f", s.ID, s.Bytes, s.Price())
		}
	}
	for name, want := range map[string]string{
		"free": "", "expired": "", "shared": "it is shared", "backup": "velero.io/backup", "run": "bake sweep", "template": "launch template lt-", "locked": "it is locked (governance)",
		"fast": "fast restore is enabled in us-east-1a", "bin": "recycle bin", "launch": "fast launch",
	} {
		kept, listed := got[made[name]]
		if !listed || !strings.Contains(kept, want) || (want == "") != (kept == "") {
			t.Errorf("%s: listed %t, kept since %q, want %q", name, listed, kept, want)
		}
	}
	if len(found) != len(made) {
		t.Errorf("%d snapshots are listed, want %d", len(found), len(made))
	}
	if young, err := a.Orphans(ctx, images.OrphanOptions{Now: time.Now, MinAge: time.Hour}); err != nil || len(young) > 0 {
		t.Errorf("young ones: %v, %v", young, err)
	}
	for _, action := range []string{"ListImagesInRecycleBin", "DescribeLockedSnapshots", "DescribeFastSnapshotRestores", "DescribeFastLaunchImages", "DescribeLaunchTemplateVersions", "DescribeAutoScalingGroups", "DescribeFleets", "DescribeSnapshotAttribute", "DescribeImages"} {
		others := answering(more, nobody)
		w.watch(func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Action == action {
				refuse(rw)
				return
			}
			others(n, c, rw, serve)
		})
		found, err := a.Orphans(ctx, o)
		for _, s := range found {
			if s.Kept == "" {
				t.Errorf("%s is refused: %s would be deleted", action, s.ID)
			}
		}
		if (action == "DescribeImages") != (err != nil) {
			t.Errorf("%s is refused: %v", action, err)
		}
	}
	w.watch(answering(more, nobody))
	deleted, err := a.DeleteOrphans(ctx, found, o)
	w.fatal(err)
	want := []string{made["free"], made["expired"]}
	slices.Sort(want)
	if !slices.Equal(deleted, want) {
		t.Errorf("deleted %v, want %v", deleted, want)
	}
}

// TestDeletable: deletable snapshots are grouped by region.
func TestDeletable(t *testing.T) {
	all := []images.Orphan{{ID: "a", Region: west}, {ID: "b", Region: home}, {ID: "c", Region: west, Kept: "it is locked"}, {ID: "d", Region: west}, {ID: "e", Region: "eu-west-1", Kept: "it is shared"}}
	var got []string
	for _, region := range images.Deletable(all) {
		for _, s := range region {
			got = append(got, s.Region+"/"+s.ID)
		}
		got = append(got, "")
	}
	if want := []string{west + "/a", west + "/d", "", home + "/b", ""}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestRole: a role is named by its ARN.
func TestRole(t *testing.T) {
	for arn, fine := range map[string]bool{"": true, roles: true, "arn:aws-cn:iam::{account}:role/path/bake": true, "bake": false, "arn:aws:iam::1:user/bake": false, "role/bake": false} {
		if err := (images.Role{ARN: arn}).Check(); (err == nil) != fine {
			t.Errorf("%s: %v", arn, err)
		}
	}
}

// TestOrphansFaults: whatever call fails, no other snapshot is deleted, and a retry
// deletes the rest.
func TestOrphansFaults(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	o := images.OrphanOptions{Now: later}
	del := func(ctx context.Context, a *images.Account) error {
		found, err := a.Orphans(ctx, o)
		if err != nil {
			return err
		}
		_, err = a.DeleteOrphans(ctx, found, o)
		return err
	}
	walk(t, func(ctx context.Context, _ *task, a *images.Account) error { return del(ctx, a) }, func(w *world) func(string) {
		w.clear()
		lost, kept := w.orphan(goneImage), w.orphan(goneImage)
		w.fatal(func() error {
			_, err := w.client("default", home).ModifySnapshotAttribute(t.Context(), &ec2.ModifySnapshotAttributeInput{SnapshotId: &kept, OperationType: types.OperationTypeAdd, UserIds: []string{"987654321098"}})
			return err
		}())
		return func(where string) {
			mu.Lock()
			defer mu.Unlock()
			if !slices.Contains(w.holdings(home), kept) {
				t.Errorf("%s: a shared snapshot is gone", where)
			}
			if err := del(t.Context(), w.open(home)); err != nil {
				t.Errorf("%s: again: %v", where, err)
			}
			if left := w.holdings(home); slices.Contains(left, lost) || !slices.Contains(left, kept) {
				t.Errorf("%s: left after trying again: %v", where, left)
			}
		}
	}, "refused", "killed after")
}

// TestSameSecondIsRetained: of images from the same second, the one whose run began last is kept,
// whatever their names and ids.
func TestSameSecondIsRetained(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 8, 4, 0, 0, 0, 0, time.UTC)
	of := func(id, name, run string) images.Image {
		return images.Image{ID: id, Name: name, Region: home, State: "available", Created: now.AddDate(0, -1, 0), Tags: map[string]string{images.ImageTag: "web", imagetag.Reports: run}}
	}
	earlier, later := "ffffffff-0001-8000-8000-019a3b2c0001", "00000000-0002-8000-8000-019a3b2c0002"
	for _, all := range [][]images.Image{
		{of("ami-2", "web-b", earlier), of("ami-1", "web-a", later)},
		{of("ami-1", "web-a", later), of("ami-2", "web-b", earlier)},
		{of("ami-1", "web-b", later), of("ami-2", "web-a", earlier)},
	} {
		for _, p := range images.Decide(all, images.PruneOptions{Keep: 1, Guards: images.Guards{Now: func() time.Time { return now }}}) {
			if keep := p.Image.Tags[imagetag.Reports] == later; (p.Action == images.PlanKeep) != keep {
				t.Errorf("%s (%s) of the run %s: %s, %s", p.Image.ID, p.Image.Name, p.Image.Tags[imagetag.Reports], p.Action, p.Reason)
			}
		}
	}
}
