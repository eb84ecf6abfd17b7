package ebs_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/ebs"
	"bake/builder/amazon/internal/amazontest"
)

// An image is found by a tag, in all regions, and is checked before it is reused: whether
// it is shared as the options require, and whether it can be launched. The policy of an
// image block allows these queries.
func TestLookup(t *testing.T) {
	const user = "210987654321"
	w := newWorld(t)
	body := plain(`ami_name = "web"
ami_users = ["` + user + `", "` + amazontest.Account + `"]
snapshot_users = ["` + user + `"]
ami_regions = ["eu-west-1"]
tags = { Role = "w*b" }`)
	w.MustBuild(t, body)
	w.MustBuild(t, plain("ami_name = \"other\"\nami_regions = [\"us-west-2\"]\ntags = { Role = \"wob\" }"))
	foreign := w.Holdings()
	made, diags := ebs.Factory(w.Cloud).New(input(body))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	w.Mu.Lock()
	w.Calls = nil
	w.Mu.Unlock()
	b := w.Bake(t)
	before, err := made.(builder.Reusable).Lookup(t.Context(), b.Scope, "Role", "w*b", nil)
	if err != nil || len(before.Images) != 2 || len(before.Copies) != 0 || !slices.Equal(before.Regions, []string{region, "eu-west-1"}) {
		t.Fatalf("%+v, %v", before, err)
	}
	flawed := func(i builder.ExistingImage, want string) {
		t.Helper()
		if got, err := before.Flaw(t.Context(), i); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	for _, i := range before.Images {
		flawed(i, "")
	}
	made2, _ := ebs.Factory(amazon.Cloud{}).Outline(input(body))
	e := amazontest.Evaluator{Foreign: strings.Join(foreign, "\n"), Policy: amazon.PolicyFor([]amazon.Permitted{made2.(amazon.Permitted), amazon.Verification{Of: made2.(amazon.Verifying)}})}
	if refused := e.Refused(w.Calls); refused != nil {
		t.Errorf("the policy does not allow %q", refused)
	}
	more, err := made.(builder.Reusable).Lookup(t.Context(), w.Bake(t).Scope, "Role", "wob", []string{region, "eu-west-1", "us-west-2"})
	if err != nil || len(more.Images) != 1 || len(more.Copies) != 1 || more.Copies[0].Region != "us-west-2" {
		t.Errorf("%+v, %v", more, err)
	}
	one, other := before.Images[0], before.Images[1]
	for what, change := range map[string][2]string{
		"archived": {"<storageTier>standard<", "<storageTier>archive<"}, "pending": {"<status>completed<", "<status>pending<"}, "error": {"<status>completed<", "<status>error<"},
	} {
		w.Intercept = func(_ int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
			if c.Action != "DescribeSnapshots" {
				serve(rw)
				return
			}
			answer := httptest.NewRecorder()
			serve(answer)
			if !strings.Contains(answer.Body.String(), change[0]) {
				t.Errorf("%s: the cloud answers %s", what, answer.Body)
			}
			_, _ = io.WriteString(rw, strings.Replace(answer.Body.String(), change[0], change[1], 1))
		}
		flawed(one, "its snapshot "+one.Snapshots[0]+" is "+what)
	}
	w.Intercept = nil
	_, err = w.Client(one.Region).ModifyImageAttribute(context.Background(), &awsec2.ModifyImageAttributeInput{
		ImageId: &one.ID, LaunchPermission: &types.LaunchPermissionModifications{Remove: []types.LaunchPermission{{UserId: new(user)}}},
	})
	w.Fatal(err)
	flawed(one, "it is not shared with "+user+" any more")
	_, err = w.Client(other.Region).ModifySnapshotAttribute(context.Background(), &awsec2.ModifySnapshotAttributeInput{
		SnapshotId: &other.Snapshots[0], CreateVolumePermission: &types.CreateVolumePermissionModifications{Remove: []types.CreateVolumePermission{{UserId: new(user)}}},
	})
	w.Fatal(err)
	flawed(other, "its snapshot "+other.Snapshots[0]+" is not shared with "+user+" any more")
	other.Snapshots = append(other.Snapshots, "snap-0123456789abcdef0")
	flawed(other, "its snapshot snap-0123456789abcdef0 is gone")
}
