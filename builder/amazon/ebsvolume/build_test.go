package ebsvolume_test

import (
	"context"
	"strings"
	"testing"

	awsec2 "github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon"
	"bake/builder/amazon/ebsvolume"
	"bake/builder/amazon/internal/amazontest"
)

const small = `
run_volume_tags = { Build = "yes", Name = "temporary" }
run_volume_tag {
  key   = "Other"
  value = "{{ .BuildRegion }}"
}
ebs_volumes {
  device_name     = "/dev/xvdf"
  volume_size     = 2
  tags            = { Name = "data" }
  snapshot_volume = true
  snapshot_tags   = { Snap = "{{ .SourceAMIName }}" }
  snapshot_users  = ["123456789013"]
}
ebs_volumes {
  device_name           = "/dev/xvdg"
  volume_size           = 1
  delete_on_termination = true
  snapshot_volume       = true
  snapshot_description  = "the other"
}
`

func TestTrace(t *testing.T) { amazontest.TracePolicy(t, ebsvolume.Factory, "volume", nil) }

// TestFaults wants a volume and two snapshots, or nothing.
func TestFaults(t *testing.T) { amazontest.Faults(t, ebsvolume.Factory, small, 3) }

// TestResume: a build that is killed after provisioning is resumed and keeps the same
// volume and snapshots.
func TestResume(t *testing.T) { amazontest.Resume(t, ebsvolume.Factory, small) }

func TestBuild(t *testing.T) {
	w := amazontest.NewWorld(t, ebsvolume.Factory)
	b := w.Bake(t)
	a, err := b.Build(t.Context(), amazontest.Plain(small))
	if err == nil {
		err = b.Scope.Close(t.Context(), context.Background())
	}
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(a.ID, ",")
	if a.BuilderID != "mitchellh.amazon.ebsvolume" || len(parts) != 3 || !strings.HasPrefix(parts[0], "us-east-1:snap-") || !strings.HasPrefix(parts[2], "us-east-1:vol-") ||
		!strings.HasPrefix(a.Text, "EBS Volumes were created:\n\nus-east-1: snap-") || len(a.Resources) != 3 {
		t.Errorf("artifact %+v", a)
	}
	c := w.Client(amazontest.Region)
	volumes, err := c.DescribeVolumes(t.Context(), &awsec2.DescribeVolumesInput{})
	w.Fatal(err)
	if len(volumes.Volumes) != 1 || len(volumes.Volumes[0].Tags) != 1 || *volumes.Volumes[0].Tags[0].Value != "data" || volumes.Volumes[0].State != "available" {
		t.Errorf("volumes %+v", volumes.Volumes)
	}
	snapshots, err := c.DescribeSnapshots(t.Context(), &awsec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
	w.Fatal(err)
	for _, s := range snapshots.Snapshots {
		switch {
		case *s.VolumeId == *volumes.Volumes[0].VolumeId:
			if len(s.Tags) != 1 || *s.Tags[0].Value != "debian-12-amd64-20260101-1" {
				t.Errorf("snapshot tags %+v", s.Tags)
			}
		case *s.Description != "the other" || len(s.Tags) != 0:
			t.Errorf("snapshot %q with %+v", *s.Description, s.Tags)
		}
	}
	for _, r := range a.Resources {
		w.Fatal(b.Scope.Destroyers().Destroy(t.Context(), r))
	}
	if left := w.Holdings(); len(left) != 0 {
		t.Errorf("left:\n%s", strings.Join(left, "\n"))
	}
}

func TestOptions(t *testing.T) {
	volume := func(more string) string { return "ebs_volumes {\n device_name = \"/dev/xvdf\"\n" + more + "\n}\n" }
	for _, test := range []struct{ body, want string }{
		{volume("volume_size = 1"), ""},
		{"", "No volumes"},
		{volume(`snapshot_description = "x"`), "No snapshot"},
		{volume("snapshot_volume = true\nsnapshot_description = \"x\""), ""},
		{volume("snapshot_volume = true\nsnapshot_groups = [\"some\"]"), "Unknown group"},
		{volume("volume_type = \"io1\"\nvolume_size = 10\niops = 1000"), "Too many IOPS"},
		{volume("throughput = 200"), "Throughput without gp3"},
		{volume("kms_key_id = \"?\""), "Not a KMS key"},
		{volume("") + volume(""), "Duplicate device"},
		{volume("") + `ami_name = "x"`, "Unsupported argument"},
		{volume("") + "run_volume_tag {\n name = \"x\"\n value = \"y\"\n}\n", "Unsupported argument"},
	} {
		diags := ebsvolume.Factory(amazon.Cloud{}).Check(amazontest.Input(amazontest.Plain(test.body)))
		ok := test.want == "" && len(diags) == 0
		for _, d := range diags {
			ok = ok || d.Summary == test.want
		}
		if !ok {
			t.Errorf("%s\nwant %q, got %v", test.body, test.want, diags)
		}
	}
}
