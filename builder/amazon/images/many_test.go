package images_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"bake/builder/amazon/images"
	"bake/cloud"
)

// TestManyImages: queries for a whole region take no more calls with more images. For a
// thousand in each region: TMPDIR=/dev/shm BAKE_MANY_IMAGES=1000, as the cloud waits for
// the disk to have each image.
func TestManyImages(t *testing.T) {
	n := 40
	if text := os.Getenv("BAKE_MANY_IMAGES"); text != "" {
		_, err := fmt.Sscan(text, &n)
		if err != nil {
			t.Fatal(err)
		}
	}
	w := newWorld(t, cloud.Options{})
	regions := []string{home, west, "eu-west-1"}
	for _, region := range regions {
		snapshot := w.snapshot("default", region, nil)
		for i := range n {
			w.register("default", region, fmt.Sprintf("web-%d-2026%04d", i%10, i), []string{snapshot}, "bake:image", fmt.Sprint("web-", i%10))
		}
	}
	w.orphan(goneImage)
	w.watch(answering(nobody))
	a := w.open(regions...)
	start := time.Now()
	all, err := a.List(t.Context(), images.Query{})
	w.fatal(err)
	t.Logf("list: %d images in 3 regions, %d calls in %s", len(all), len(w.seen()), time.Since(start))
	if len(all) != 3*n {
		t.Errorf("%d images are listed, want %d", len(all), 3*n)
	}
	w.watch(answering(nobody))
	start = time.Now()
	plan, err := a.Plan(t.Context(), images.PruneOptions{Keep: 1, Max: share(t, "1"), Guards: images.Guards{Now: later}})
	w.fatal(err)
	if got, _ := plan.Count(images.PlanRemove); got != 30 {
		t.Errorf("%d images are to be removed, want one of each of 10 in each of 3 regions", got)
	}
	// Of each region the list and 8 guards; of the 10 images that would go, references by
	// tens, and how each is shared.
	calls := w.seen()
	t.Logf("prune: %d images in 3 regions, %d calls in %s", 3*n, len(calls), time.Since(start))
	if n <= 200 && len(calls) > 3*(1+9+1+10)+5 {
		t.Errorf("%d calls", len(calls))
	}
	single := slices.DeleteFunc(calls, func(c call) bool { return c.Action != "DescribeImageAttribute" })
	if len(single) != 30 {
		t.Errorf("%d images were asked about one by one, want 30", len(single))
	}
	w.watch(answering(nobody))
	start = time.Now()
	found, err := a.Orphans(t.Context(), images.OrphanOptions{Now: later})
	w.fatal(err)
	calls = w.seen()
	t.Logf("orphans: %d found, %d calls in %s", len(found), len(calls), time.Since(start))
	if len(found) != 1 || n <= 200 && len(calls) > 20 {
		t.Errorf("%d orphans, %d calls", len(found), len(calls))
	}
}
