package images_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/images"
	"bake/cloud"
)

// TestInstances: instances are listed with their images, even deregistered ones, page by
// page; a region that cannot be listed completely does not affect the others.
func TestInstances(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ctx, c := t.Context(), w.client("default", home)
	kept, gone, closed := w.bootable("kept"), w.bootable("gone"), w.bootable("closed")
	notes := map[string]string{ // by the instance
		w.launch(kept): "", w.launch(gone): "runs on an image that no longer exists", w.launch(closed): "the image is disabled",
	}
	_, err := c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &gone})
	w.fatal(err)
	_, err = c.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &closed})
	w.fatal(err)
	a := w.open(home, west)
	a.SetPage(2)
	check := func(all []images.Instance) {
		t.Helper()
		if len(all) != len(notes) {
			t.Errorf("%d instances, want %d: the terminated ones are not listed", len(all), len(notes))
		}
		for _, i := range all {
			want, ok := notes[i.ID]
			if got := i.Note(time.Now()); !ok || got != want || i.Region != home || i.State != "running" || i.Launched.IsZero() || i.Image == "" || i.Type != "t3.micro" {
				t.Errorf("%+v: %q, want %q", i, got, want)
			}
		}
	}
	all, err := a.Instances(ctx)
	w.fatal(err)
	check(all)
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Region == west {
			refuse(rw)
			return
		}
		serve(rw)
	})
	all, err = a.Instances(ctx)
	if err == nil || !strings.HasPrefix(err.Error(), west+": DescribeInstanceImageMetadata: UnauthorizedOperation") {
		t.Errorf("a region refuses: %v", err)
	}
	check(all)
	no, past := false, time.Now().Add(-time.Hour)
	for want, i := range map[string]images.Instance{
		"the image is deprecated":                            {ImageState: "available", ImageDeprecated: &past},
		"the image is not one of the account's Allowed AMIs": {ImageState: "available", ImageAllowed: &no},
	} {
		if got := i.Note(time.Now()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestUnused: unused images are listed; if a guard cannot decide, the image is not, and the
// guard is reported.
func TestUnused(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	used, free := w.image(home, "used"), w.image(home, "free")
	w.image(home, "held", images.HoldTag, "audit")
	there := w.image(west, "there")
	w.template("web", used)
	w.fatal(permit(w.client("default", home), w.image(home, "shared"), types.LaunchPermission{Group: types.PermissionGroupAll}))
	a := w.open(home, west)
	all, err := a.List(t.Context(), images.Query{})
	w.fatal(err)
	ids := func(all []images.Image) (text string) {
		for _, i := range all {
			text += i.ID + " "
		}
		return text
	}
	found, _ := a.Unused(t.Context(), all, images.Guards{Now: later})
	if got, want := ids(found), free+" "+there+" "; got != want {
		t.Errorf("unused: %s, want %s", got, want)
	}
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Region == home && (c.Action == "DescribeFleets" || c.Action == "DescribeImageReferences") {
			refuse(rw)
			return
		}
		serve(rw)
	})
	found, uses := a.Unused(t.Context(), all, images.Guards{Now: later})
	if got, want := ids(found), there+" "; got != want {
		t.Errorf("unused: %s, want %s", got, want)
	}
	if got := said(uses[free]); strings.Count(got, "unknown: could not tell in us-east-1: ") != 2 || !strings.Contains(got, "DescribeFleets: UnauthorizedOperation") {
		t.Errorf("of what nothing is known: %s", got)
	}
}

// TestCheckUse: resources that name a missing or disabled image are found, with their
// kind.
func TestCheckUse(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	ctx, c := t.Context(), w.client("default", home)
	kept, gone, closed := w.image(home, "kept"), w.image(home, "gone"), w.image(home, "closed")
	sound := w.template("sound", kept)
	older := w.template("older", gone, kept)
	broken := w.template("broken", closed)
	w.template("none", "")
	w.parameter("/golden/web", gone)
	w.parameter("/golden/past", gone, kept)
	a := w.open(home, west)
	if found, err := a.CheckUse(ctx); err != nil || len(found) > 0 {
		t.Errorf("all images are there: %v, %v", found, err)
	}
	_, err := c.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &gone})
	w.fatal(err)
	_, err = c.DisableImage(ctx, &ec2.DisableImageInput{ImageId: &closed})
	w.fatal(err)
	found, err := a.CheckUse(ctx)
	w.fatal(err)
	var got []string
	for _, b := range found {
		got = append(got, b.String())
	}
	text := strings.Join(got, "\n")
	want := []string{
		"us-east-1: launch template " + broken + " (broken), default version 1: image " + closed + " is disabled",
		"us-east-1: launch template " + older + " (older), default version 1: image " + gone + " does not exist, or is not shared with this account",
		"us-east-1: parameter /golden/web: image " + gone + " does not exist, or is not shared with this account",
	}
	for _, line := range want {
		if !strings.Contains(text, line) {
			t.Errorf("not found: %s", line)
		}
	}
	if len(found) != len(want) || strings.Contains(text, sound) {
		t.Errorf("found:\n%s", text)
	}
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Action == "DescribeLaunchTemplateVersions" {
			refuse(rw)
			return
		}
		serve(rw)
	})
	if found, err := a.CheckUse(context.WithoutCancel(ctx)); err == nil || len(found) > 0 {
		t.Errorf("a question without an answer: %v, %v", found, err)
	}
}

// TestShareBlocked: if the account blocks public images, none is made public in any
// region, and the error says how to change that; sharing with accounts still works.
func TestShareBlocked(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	id := w.image(home, "web")
	there := w.copied(home, id, west, "web")
	_, err := w.client("default", west).EnableImageBlockPublicAccess(t.Context(), &ec2.EnableImageBlockPublicAccessInput{
		ImageBlockPublicAccessState: types.ImageBlockPublicAccessEnabledStateBlockNewSharing,
	})
	w.fatal(err)
	a := w.open(home, west)
	_, err = a.Share(t.Context(), id, images.SharingChange{Public: true, Copies: true})
	if err == nil || !strings.Contains(err.Error(), "images in us-west-2 cannot be made public: the account blocks public access") ||
		!strings.Contains(err.Error(), "aws ec2 disable-image-block-public-access --region us-west-2") || strings.Contains(err.Error(), home) {
		t.Errorf("a public image where they are blocked: %v", err)
	}
	for region, id := range map[string]string{home: id, west: there} {
		if image, _ := w.who(region, id); len(image) > 0 {
			t.Errorf("%s is shared with %v", id, image)
		}
	}
	_, err = a.Share(t.Context(), id, images.SharingChange{With: []string{alice}, Copies: true})
	w.fatal(err)
	_, err = w.client("default", west).DisableImageBlockPublicAccess(t.Context(), &ec2.DisableImageBlockPublicAccessInput{})
	w.fatal(err)
	_, err = a.Share(t.Context(), id, images.SharingChange{Public: true, Copies: true})
	w.fatal(err)
	if image, _ := w.who(west, there); !strings.Contains(strings.Join(image, " "), images.Everybody) {
		t.Errorf("nothing is blocked any more, and %s is shared with %v", there, image)
	}
}
