package images_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"bake/builder/amazon/images"
	"bake/cloud"
)

// TestDiff: images differ exactly in the listed attributes.
func TestDiff(t *testing.T) {
	w := newWorld(t, cloud.Options{})
	one := w.register("default", home, "web-1", []string{w.snapshot("default", home, nil)}, "env", "test", "team", "a", "old", "")
	two := w.register("default", home, "web-2", []string{w.snapshot("default", home, aws.String("alias/golden")), w.snapshot("default", home, nil)}, "env", "prod", "team", "a")
	a := w.open(home)
	_, err := a.Share(t.Context(), one, images.SharingChange{With: []string{alice}})
	w.fatal(err)
	c, err := a.Diff(t.Context(), one, "web-2")
	w.fatal(err)
	if c.A.ID != one || c.B.ID != two {
		t.Errorf("compared %s and %s", c.A.ID, c.B.ID)
	}
	want := []images.Difference{
		{"/dev/xvda: encrypted", "no", "yes"},
		{"/dev/xvda: key", "", "arn:aws:kms:us-east-1:" + a.ID + ":alias/golden"},
		{"/dev/xvdb", "", "present"},
		{"/dev/xvdb: deleted on termination", "", "yes"},
		{"/dev/xvdb: encrypted", "", "no"},
		{"/dev/xvdb: size", "", "1 GiB"},
		{"/dev/xvdb: type", "", "gp2"},
		{"name", "web-1", "web-2"},
		{"shared with", alice, "nobody"},
		{"tag env", "test", "prod"},
		{"tag old", "(empty)", ""},
	}
	if diff := cmp.Diff(want, c.Differences); diff != "" {
		t.Errorf("differences (-want +got):\n%s", diff)
	}
	if c, err := a.Diff(t.Context(), one, one); err != nil || len(c.Differences) > 0 {
		t.Errorf("an image and itself: %v, %v", c.Differences, err)
	}
}
