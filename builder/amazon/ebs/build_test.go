package ebs_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/communicator"
)

// distributed is a source block that uses many options.
const distributed = `
ami_name        = "web"
ami_description = "from {{ .SourceAMIName }}"
ami_regions     = ["eu-west-1", "us-west-2", "us-east-1"]
ami_users       = ["123456789013", "210987654321"]
snapshot_users  = ["123456789013"]
run_tags        = { Team = "images" }
run_volume_tags = { Volume = "root" }
tags            = { Name = "web", Base = "{{ .SourceAMI }}", Region = "{{ .BuildRegion }}", Stamp = "{{ timestamp }}" }
tag {
  key   = "Name"
  value = "{{ .SourceAMITags.none }}"
}
snapshot_tags = { Snap = "yes" }
`

func TestBuild(t *testing.T) {
	w := newWorld(t)
	b := w.Bake(t)
	var data builder.Data
	b.Provision = func(ctx context.Context, m builder.Machine) error {
		data = m.Data
		status, err := m.Run(ctx, communicator.Command{Line: "exit 7"})
		if err == nil && status.Code != 7 {
			err = fmt.Errorf("status %d", status.Code)
		}
		return err
	}
	a, err := b.Build(t.Context(), plain(distributed))
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d calls: %s", len(w.Calls), tally(w.Calls))

	if a.BuilderID != "mitchellh.amazonebs" || len(a.Images) != 3 || len(a.Resources) != 3 {
		t.Errorf("artifact %+v", a)
	}
	wantID := fmt.Sprintf("eu-west-1:%s,us-east-1:%s,us-west-2:%s", a.Images["eu-west-1"], a.Images["us-east-1"], a.Images["us-west-2"])
	wantText := "AMIs were created:\n" + strings.ReplaceAll(strings.ReplaceAll(wantID, ",", "\n"), ":", ": ") + "\n"
	if a.ID != wantID || a.Text != wantText {
		t.Errorf("artifact is %q\n%s", a.ID, a.Text)
	}
	if data["User"].Text != "admin" || data["SourceAMIName"].Text != "debian-12-amd64-20260101-1" || data["BuildRegion"].Text != region ||
		!strings.HasPrefix(data["SSHPublicKey"].Text, "ssh-ed25519 ") || data["SSHPrivateKey"].Text == "" {
		t.Errorf("build data: %v", data)
	}
	if _, leaked := a.Data["SSHPrivateKey"]; leaked {
		t.Error("the artifact holds the private key")
	}
	for in, id := range a.Images {
		checkImage(t, w, in, id)
	}
	left := w.Holdings()
	if len(left) != 6 {
		t.Errorf("there should be an image and a snapshot in each of 3 regions:\n%s", strings.Join(left, "\n"))
	}
	if _, err := os.Stat(b.Ledger); err == nil {
		owned, _ := b.Open.Owned()
		if len(owned) > 0 {
			t.Errorf("the ledger still owns %v", owned)
		}
	}

	// Deleting the artifact deletes the resources in it.
	d := b.Scope.Destroyers()
	for _, r := range a.Resources {
		for range 2 {
			if err := d.Destroy(t.Context(), r); err != nil {
				t.Errorf("destroying %s: %v", r, err)
			}
		}
	}
	if left := w.Holdings(); len(left) > 0 {
		t.Errorf("left after the artifact was destroyed:\n%s", strings.Join(left, "\n"))
	}
}

// checkImage checks an image made by distributed.
func checkImage(t *testing.T, w *world, in, id string) {
	t.Helper()
	ctx, c := t.Context(), w.Client(in)
	out, err := c.DescribeImages(ctx, &awsec2.DescribeImagesInput{ImageIds: []string{id}})
	w.Fatal(err)
	image := out.Images[0]
	base := strings.SplitN(aws.ToString(image.Description), " ", 2)
	if *image.Name != "web" || image.State != types.ImageStateAvailable || len(base) != 2 || base[1] != "debian-12-amd64-20260101-1" {
		t.Errorf("%s: image %s, %q, %s", in, *image.Name, aws.ToString(image.Description), image.State)
	}
	tags := func(tags []types.Tag) map[string]string {
		m := map[string]string{}
		for _, t := range tags {
			if *t.Key != "bake:user" { // of the embedded EC2: the login user
				m[*t.Key] = *t.Value
			}
		}
		return m
	}
	got := tags(image.Tags)
	if got["Team"] != "images" || got["Name"] != "<no value>" || got["Region"] != region || got["Stamp"] != "1700000000" || !strings.HasPrefix(got["Base"], "ami-") || len(got) != 5 {
		t.Errorf("%s: image tags %v", in, got)
	}
	snapshot := aws.ToString(image.BlockDeviceMappings[0].Ebs.SnapshotId)
	snapshots, err := c.DescribeSnapshots(ctx, &awsec2.DescribeSnapshotsInput{SnapshotIds: []string{snapshot}})
	w.Fatal(err)
	got = tags(snapshots.Snapshots[0].Tags)
	if got["Snap"] != "yes" || got["Region"] != region || got["bake:run"] != "" || got["bake:build"] != "" {
		t.Errorf("%s: snapshot tags %v", in, got)
	}
	users, err := c.DescribeImageAttribute(ctx, &awsec2.DescribeImageAttributeInput{ImageId: &id, Attribute: types.ImageAttributeNameLaunchPermission})
	w.Fatal(err)
	if len(users.LaunchPermissions) != 2 {
		t.Errorf("%s: launch permissions %v", in, users.LaunchPermissions)
	}
	volumes, err := c.DescribeSnapshotAttribute(ctx, &awsec2.DescribeSnapshotAttributeInput{SnapshotId: &snapshot, Attribute: types.SnapshotAttributeNameCreateVolumePermission})
	w.Fatal(err)
	if len(volumes.CreateVolumePermissions) != 1 {
		t.Errorf("%s: volume permissions %v", in, volumes.CreateVolumePermissions)
	}
}
