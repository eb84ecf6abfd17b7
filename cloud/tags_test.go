package cloud_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestSharedTags checks that an account can tag resources that others share with it, and
// sees only its own tags on them.
func TestSharedTags(t *testing.T) {
	dir := t.TempDir()
	const owner, guest = "default", "other"
	ctx := t.Context()
	tag := func(value string) []types.Tag { return []types.Tag{{Key: aws.String("Name"), Value: &value}} }
	name := func(tags []types.Tag) string {
		if i := slices.IndexFunc(tags, func(t types.Tag) bool { return *t.Key == "Name" }); i >= 0 {
			return *tags[i].Value
		}
		return ""
	}
	var ami, snapshot, catalogue string
	// sees checks the name that an account sees on a resource: shown, by a filter, and
	// in DescribeTags.
	sees := func(t *testing.T, s *cloudtest.Server, account, id, want string) {
		t.Helper()
		client := s.EC2(account, "us-east-1")
		shown := func(filters ...types.Filter) (tags [][]types.Tag) {
			if id == snapshot {
				out, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{id}, Filters: filters})
				if err != nil {
					t.Fatal(err)
				}
				for _, r := range out.Snapshots {
					tags = append(tags, r.Tags)
				}
				return tags
			}
			out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{id}, Filters: filters})
			if err != nil {
				t.Fatal(err)
			}
			for _, r := range out.Images {
				tags = append(tags, r.Tags)
			}
			return tags
		}
		if all := shown(); len(all) != 1 || name(all[0]) != want {
			t.Errorf("%s sees %v on %s, want %q", account, all, id, want)
		}
		for _, other := range []string{"owner's", "guest's"} {
			if found := len(shown(filter("tag:Name", other))) == 1; found != (other == want) {
				t.Errorf("%s finds %s by the name %s: %v", account, id, other, found)
			}
		}
		out, err := client.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("resource-id", id), filter("key", "Name")}})
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case want == "" && len(out.Tags) == 0:
		case len(out.Tags) != 1 || *out.Tags[0].Value != want:
			t.Errorf("%s: the tags of %s are %v, want %q", account, id, out.Tags, want)
		}
	}
	give := func(s *cloudtest.Server, account, value string, ids ...string) error {
		_, err := s.EC2(account, "us-east-1").CreateTags(ctx, &ec2.CreateTagsInput{Resources: ids, Tags: tag(value)})
		return err
	}
	take := func(s *cloudtest.Server, account string, ids ...string) error {
		_, err := s.EC2(account, "us-east-1").DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: ids, Tags: []types.Tag{{Key: aws.String("Name")}}})
		return err
	}

	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		mine, other := s.EC2(owner, "us-east-1"), s.EC2(guest, "us-east-1")
		id := *run(t, mine, ec2.RunInstancesInput{}).InstanceId
		made, err := mine.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: &id, Name: aws.String("shared")})
		if err != nil {
			t.Fatal(err)
		}
		img := awaitImage(t, mine, *made.ImageId)
		ami, snapshot = *img.ImageId, *img.BlockDeviceMappings[0].Ebs.SnapshotId
		public, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
		if err != nil || len(public.Images) != 1 {
			t.Fatalf("the catalogue: %v, %v", public, err)
		}
		catalogue = *public.Images[0].ImageId
		if err := give(s, owner, "owner's", ami, snapshot); err != nil {
			t.Fatal(err)
		}

		if err := give(s, guest, "guest's", catalogue, ami); code(err) != "InvalidAMIID.NotFound" {
			t.Errorf("tags on an image that is not shared: %v", err)
		}
		sees(t, s, guest, catalogue, "") // all or none
		if err := take(s, guest, ami); code(err) != "InvalidAMIID.NotFound" {
			t.Errorf("tags off an image that is not shared: %v", err)
		}
		if err := give(s, guest, "guest's", snapshot); code(err) != "InvalidSnapshot.NotFound" {
			t.Errorf("tags on a snapshot that is not shared: %v", err)
		}
		_, err = mine.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: &ami, LaunchPermission: &types.LaunchPermissionModifications{
			Add: []types.LaunchPermission{{Group: types.PermissionGroupAll}}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = mine.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: &snapshot,
			CreateVolumePermission: &types.CreateVolumePermissionModifications{Add: []types.CreateVolumePermission{{UserId: aws.String("987654321098")}}}})
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{ami, snapshot} {
			sees(t, s, guest, id, "")
			sees(t, s, owner, id, "owner's")
		}
		if err := give(s, guest, "guest's", catalogue, ami, snapshot); err != nil {
			t.Fatal(err)
		}
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		mine, other := s.EC2(owner, "us-east-1"), s.EC2(guest, "us-east-1")
		for _, id := range []string{ami, snapshot, catalogue} {
			sees(t, s, guest, id, "guest's")
		}
		sees(t, s, owner, ami, "owner's")
		sees(t, s, owner, snapshot, "owner's")
		sees(t, s, owner, catalogue, "")
		copied, err := other.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: &ami, SourceRegion: aws.String("us-east-1"), Name: aws.String("copy"), CopyImageTags: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		if img := awaitImage(t, other, *copied.ImageId); name(img.Tags) != "guest's" {
			t.Errorf("the copy has the tags %v, want those that its owner gave to the source", img.Tags)
		}
		if err := take(s, guest, catalogue); err != nil {
			t.Fatal(err)
		}
		sees(t, s, guest, catalogue, "")
		sees(t, s, guest, ami, "guest's")

		_, err = mine.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: &ami, DeleteAssociatedSnapshots: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		out, err := other.DescribeTags(ctx, &ec2.DescribeTagsInput{Filters: []types.Filter{filter("resource-id", ami, snapshot)}})
		if err != nil || len(out.Tags) != 0 {
			t.Errorf("tags of what has been deleted: %v, %v", out, err)
		}
		if left, err := os.ReadDir(filepath.Join(dir, "ec2", "foreign-tags")); err != nil || len(left) != 0 {
			t.Errorf("left of them: %v, %v", left, err)
		}
	})
}
