package images_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"

	"bake/builder/amazon/images"
	"bake/cloud"
)

// TestList: which images a query lists, those that are disabled or deprecated among them.
func TestList(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	web := w.image(home, "web-1", "env", "prod", "team", "a")
	w.image(west, "web-2", "env", "test")
	db := w.image(west, "dbs")
	shared := w.register(other, home, "theirs", []string{w.snapshot(other, home, nil)})
	a := w.open(home, west)
	_, err := w.client("default", west).DisableImage(t.Context(), &ec2.DisableImageInput{ImageId: &db})
	w.fatal(err)
	_, err = w.client("default", home).EnableImageDeprecation(t.Context(), &ec2.EnableImageDeprecationInput{ImageId: &web, DeprecateAt: aws.Time(time.Now().Add(time.Hour))})
	w.fatal(err)
	_, err = w.client(other, home).ModifyImageAttribute(t.Context(), &ec2.ModifyImageAttributeInput{
		ImageId: &shared, LaunchPermission: &types.LaunchPermissionModifications{Add: []types.LaunchPermission{{UserId: &a.ID}}},
	})
	w.fatal(err)
	for name, c := range map[string]struct {
		q    images.Query
		want []string
	}{
		"own":        {images.Query{}, []string{"dbs us-west-2", "web-1 us-east-1", "web-2 us-west-2"}},
		"pattern":    {images.Query{Name: "web-*"}, []string{"web-1 us-east-1", "web-2 us-west-2"}},
		"tag":        {images.Query{Filters: []images.Filter{{Name: "tag:env", Values: []string{"prod"}}}}, []string{"web-1 us-east-1"}},
		"tag key":    {images.Query{Filters: []images.Filter{{Name: "tag-key", Values: []string{"team"}}}}, []string{"web-1 us-east-1"}},
		"state":      {images.Query{Filters: []images.Filter{{Name: "state", Values: []string{"disabled"}}}}, []string{"dbs us-west-2"}},
		"shared":     {images.Query{Shared: true}, []string{"theirs us-east-1"}},
		"public":     {images.Query{Public: true, Owners: []string{a.ID}}, nil},
		"young":      {images.Query{OlderThan: time.Hour, Now: time.Now()}, nil},
		"old enough": {images.Query{OlderThan: time.Hour, Now: time.Now().Add(2 * time.Hour)}, []string{"dbs us-west-2", "web-1 us-east-1", "web-2 us-west-2"}},
	} {
		found, err := a.List(t.Context(), c.q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, names(found)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if _, err := a.List(t.Context(), images.Query{Public: true}); !errors.Is(err, images.ErrEverybody) {
		t.Errorf("all public images: %v", err)
	}
	found, err := a.Find(t.Context(), "web-?")
	if missing, ok := errors.AsType[*images.NotFoundError](err); !ok || missing.Ref != "web-?" {
		t.Errorf("a name is no pattern: %v, %v", names(found), err)
	}
	if found, err := a.Find(t.Context(), db); err != nil || len(found) != 1 || found[0].State != "disabled" {
		t.Errorf("a disabled image by its ID: %v, %v", found, err)
	}
}

// TestListPages: a listing is complete or an error, never only some pages, and every
// request restricts the owners.
func TestListPages(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	s := w.snapshot("default", home, nil)
	for i := range 12 {
		w.register("default", home, "web-"+string(rune('a'+i)), []string{s})
	}
	w.image(west, "far")
	a := w.open(home, west)
	a.SetPage(5)
	var pages atomic.Int32
	w.watch(func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		if c.Region == home && c.has("NextToken") && pages.Add(1) > 3 {
			refuse(rw)
			return
		}
		serve(rw)
	})
	found, err := a.List(t.Context(), images.Query{})
	if err != nil || len(found) != 13 {
		t.Errorf("three pages: %v, %v", names(found), err)
	}
	found, err = a.List(t.Context(), images.Query{})
	failed, ok := errors.AsType[*images.RegionError](err)
	if !ok || failed.Region != home {
		t.Errorf("the region that refuses is not in the error: %v", err)
	}
	if diff := cmp.Diff([]string{"far us-west-2"}, names(found)); diff != "" {
		t.Errorf("the other region (-want +got):\n%s", diff)
	}
	for _, c := range w.seen() {
		if c.Action == "DescribeImages" && !c.has("Owner.1", "ExecutableBy.1", "ImageId.1") {
			t.Errorf("a request does not say whose images: %v", c.Params)
		}
	}
}

// TestListDeregistered: deregistered images that EC2 still lists are left out.
func TestListDeregistered(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	a := w.open(home)
	w.watch(answering(map[string]string{"DescribeImages": "<imagesSet><item><imageId>" + goneImage + "</imageId><name>web</name><imageOwnerId>" + a.ID + "</imageOwnerId><imageState>deregistered</imageState></item></imagesSet>"}))
	if found, err := a.List(t.Context(), images.Query{}); err != nil || len(found) > 0 {
		t.Errorf("listed: %v, %v", found, err)
	}
	for _, ref := range []string{"web", goneImage} {
		if found, err := a.Find(t.Context(), ref); len(found) > 0 || err == nil {
			t.Errorf("%s is found: %v", ref, found)
		}
	}
}
