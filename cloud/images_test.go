package cloud_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

const otherAccount = "987654321098"

// made makes an image and waits until it is available.
func made(t *testing.T, client *ec2.Client, name string, tags ...types.Tag) types.Image {
	t.Helper()
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	in := &ec2.CreateImageInput{InstanceId: &id, Name: &name, NoReboot: aws.Bool(true)}
	if len(tags) > 0 {
		in.TagSpecifications = []types.TagSpecification{{ResourceType: "image", Tags: tags}}
	}
	out, err := client.CreateImage(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return awaitImage(t, client, *out.ImageId)
}

// permit adds a launch permission to an image.
func permit(t *testing.T, client *ec2.Client, image *string, add ...types.LaunchPermission) error {
	t.Helper()
	_, err := client.ModifyImageAttribute(t.Context(), &ec2.ModifyImageAttributeInput{ImageId: image, LaunchPermission: &types.LaunchPermissionModifications{Add: add}})
	return err
}

// TestTagsForOthers checks that the accounts an image is shared with see only the tags
// that its owner shares, and that copies have them too.
func TestTagsForOthers(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	mine, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	const release = "ec2:SharedTag/bake:release"
	img := made(t, mine, "web", types.Tag{Key: aws.String("secret"), Value: aws.String("s")}, types.Tag{Key: aws.String(release), Value: aws.String("7")})
	if err := permit(t, mine, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
		t.Fatal(err)
	}
	if _, err := other.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*img.ImageId}, Tags: []types.Tag{{Key: aws.String("own"), Value: aws.String("o")}}}); err != nil {
		t.Fatal(err)
	}
	out, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Filters: []types.Filter{filter("tag:"+release, "7")}})
	if err != nil || len(out.Images) != 1 {
		t.Fatalf("images with the shared tag: %v, %v", out, err)
	}
	if tags := out.Images[0].Tags; tagValue(tags, release) != "7" || tagValue(tags, "own") != "o" || tagValue(tags, "secret") != "" {
		t.Errorf("the other account sees %v", tags)
	}
	if hidden, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Filters: []types.Filter{filter("tag-key", "secret")}}); err != nil || len(hidden.Images) != 0 {
		t.Errorf("images with a tag that is not shared: %v, %v", hidden, err)
	}
	_, err = mine.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: img.BlockDeviceMappings[0].Ebs.SnapshotId, OperationType: "add", UserIds: []string{otherAccount}})
	if err != nil {
		t.Fatal(err)
	}
	copied, err := other.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("web"), CopyImageTags: aws.Bool(true)})
	if err != nil {
		t.Fatal(err)
	}
	if tags := awaitImage(t, other, *copied.ImageId).Tags; tagValue(tags, release) != "7" || tagValue(tags, "secret") != "" {
		t.Errorf("the copy has the tags %v", tags)
	}
}

// TestImageParameters checks that a parameter that names an image is validated after it
// was accepted.
func TestImageParameters(t *testing.T) {
	var ahead atomic.Int64
	dir := t.TempDir()
	open := func() (*cloudtest.Server, *ssm.Client) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir, Clock: clock{now: func() time.Time { return time.Unix(1_800_000_000+ahead.Load(), 0) }}})
		return s, ssm.NewFromConfig(s.Config("default", "us-east-1"))
	}
	s, client := open()
	ctx := t.Context()
	good, missing := source(t, s.EC2("default", "us-east-1")), "ami-0123456789abcdef0"
	put := func(value string, kind *string) (int64, error) {
		out, err := client.PutParameter(ctx, &ssm.PutParameterInput{Name: aws.String("/golden/web"), Value: &value, Type: ssmtypes.ParameterTypeString, DataType: kind, Overwrite: aws.Bool(true)})
		if err != nil {
			return 0, err
		}
		return out.Version, nil
	}
	get := func(name string) string {
		out, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: &name})
		if err != nil {
			return code(err)
		}
		return fmt.Sprintf("%s %d", *out.Parameter.Value, out.Parameter.Version)
	}
	image := aws.String("aws:ec2:image")
	for i, step := range []struct {
		value, before, after string
	}{
		{missing, "ParameterNotFound", "ParameterNotFound"},
		{good, "ParameterNotFound", good + " 1"}, // a dropped version leaves no trace
		{missing, good + " 1", good + " 1"},
		{good, good + " 1", good + " 2"},
	} {
		if _, err := put(step.value, image); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if got := get("/golden/web"); got != step.before {
			t.Errorf("step %d, at once: %s, want %s", i, got, step.before)
		}
		ahead.Add(1)
		if got := get("/golden/web"); got != step.after {
			t.Errorf("step %d, then: %s, want %s", i, got, step.after)
		}
	}
	for _, kind := range []*string{nil, aws.String("text")} {
		if _, err := put("ami-text", kind); code(err) != "ValidationException" {
			t.Errorf("the data type changed to text: %v", err)
		}
	}
	if n, err := put(missing, image); err != nil || n != 3 {
		t.Errorf("version %d, %v", n, err)
	}
	if n, err := put(good, image); err != nil || n != 4 {
		t.Errorf("version %d, %v; 3 is not validated yet", n, err)
	}
	ahead.Add(1)
	if got := get("/golden/web:3"); got != "ParameterVersionNotFound" {
		t.Errorf("the invalid version: %s", got)
	}
	if got := get("/golden/web:4"); got != good+" 4" {
		t.Errorf("the version after it: %s", got)
	}
	if _, err := put(good, image); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteParameter(ctx, &ssm.DeleteParameterInput{Name: aws.String("/golden/web")}); err != nil {
		t.Fatal(err)
	}
	ahead.Add(1)
	if got := get("/golden/web"); got != "ParameterNotFound" {
		t.Errorf("deleted: %s", got)
	}
	if _, err := put(missing, image); err != nil {
		t.Fatal(err)
	}
	ahead.Add(1)
	anew := &ssm.PutParameterInput{Name: aws.String("/golden/web"), Type: ssmtypes.ParameterTypeString, Value: &good, DataType: image}
	if out, err := client.PutParameter(ctx, anew); err != nil || out.Version != 1 {
		t.Errorf("a parameter in the place of one that was not valid: %+v, %v", out, err)
	}
}

// TestEncryptedIsNotShared checks that resources encrypted with the default key cannot be
// shared, and those with another key only with accounts.
func TestEncryptedIsNotShared(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "plain")
	for key, want := range map[string][2]string{"": {"InvalidParameter", "OperationNotPermitted"}, "alias/aws/ebs": {"InvalidParameter", "OperationNotPermitted"}, "alias/golden": {"", ""}} {
		copied, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String("with key " + strings.ReplaceAll(key, "/", "-")),
			Encrypted: aws.Bool(true), KmsKeyId: &key})
		if err != nil {
			t.Fatal(err)
		}
		encrypted := awaitImage(t, client, *copied.ImageId)
		if err := permit(t, client, copied.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); code(err) != want[0] {
			t.Errorf("key %q: sharing the image: %v", key, err)
		}
		_, err = client.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: encrypted.BlockDeviceMappings[0].Ebs.SnapshotId, OperationType: "add", UserIds: []string{otherAccount}})
		if code(err) != want[1] {
			t.Errorf("key %q: sharing the snapshot: %v", key, err)
		}
		id := *run(t, client, ec2.RunInstancesInput{ImageId: copied.ImageId}).InstanceId
		volumes, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("attachment.instance-id", id)}})
		if err != nil || key != "" && !strings.HasSuffix(*volumes.Volumes[0].KmsKeyId, key) {
			t.Errorf("key %q: the volume of an instance has the key %s, %v", key, *volumes.Volumes[0].KmsKeyId, err)
		}
		if err := permit(t, client, copied.ImageId, types.LaunchPermission{Group: "all"}); code(err) != "InvalidParameter" {
			t.Errorf("key %q: made public: %v", key, err)
		}
	}
}

// TestLastLaunched checks that the time of an image's last launch outlives its instances,
// and that it is shown a day late, to the owner only.
func TestLastLaunched(t *testing.T) {
	var ahead atomic.Int64
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	s := cloudtest.Start(t, cloud.Options{Delays: cloud.Delays{Usage: 24 * time.Hour}, Clock: clock{now: func() time.Time { return start.Add(time.Duration(ahead.Load())) }}})
	mine, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	img := made(t, mine, "web")
	if err := permit(t, mine, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
		t.Fatal(err)
	}
	seen := func(client *ec2.Client) string {
		t.Helper()
		out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*img.ImageId}})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.Images[0].LastLaunchedTime)
	}
	for _, step := range []struct {
		hour   int
		launch bool
		want   string
	}{
		{0, true, ""}, {20, true, ""}, {23, false, ""}, {24, false, "2026-05-04T12:00:00.000Z"}, {44, false, "2026-05-05T08:00:00.000Z"}, {900, false, "2026-05-05T08:00:00.000Z"},
	} {
		ahead.Store(int64(step.hour) * int64(time.Hour))
		if step.launch {
			id := *run(t, other, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId
			if _, err := other.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
				t.Fatal(err)
			}
		}
		if got := seen(mine); got != step.want {
			t.Errorf("after %d hours the owner sees %q, want %q", step.hour, got, step.want)
		}
		if got := seen(other); got != "" {
			t.Errorf("after %d hours the other account sees %q", step.hour, got)
		}
	}
	attribute, err := mine.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: img.ImageId, Attribute: types.ImageAttributeNameLastLaunchedTime})
	if err != nil || aws.ToString(attribute.LastLaunchedTime.Value) != "2026-05-05T08:00:00.000Z" {
		t.Errorf("lastLaunchedTime: %v, %v", attribute, err)
	}
}

// TestImageLimits checks EC2's limits for images, copies and permissions.
func TestImageLimits(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "web")
	snapshot := img.BlockDeviceMappings[0].Ebs.SnapshotId
	accounts := func(n int) (permissions []types.LaunchPermission, users []string) {
		for i := range n {
			user := fmt.Sprintf("%012d", i)
			permissions, users = append(permissions, types.LaunchPermission{UserId: &user}), append(users, user)
		}
		return permissions, users
	}
	many, _ := accounts(1001)
	_, users := accounts(501)
	deprecate := func(years, days int) error {
		_, err := client.EnableImageDeprecation(ctx, &ec2.EnableImageDeprecationInput{ImageId: img.ImageId, DeprecateAt: aws.Time(time.Now().AddDate(years, 0, days))})
		return err
	}
	copyIt := func(minutes int64) error {
		_, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String(fmt.Sprint("copy ", minutes)), SnapshotCopyCompletionDurationMinutes: &minutes})
		return err
	}
	ou := "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-cdefghij"
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"1,001 accounts":                    {permit(t, client, img.ImageId, many...), "ResourceLimitExceeded"},
		"1,000 accounts":                    {permit(t, client, img.ImageId, many[:1000]...), ""},
		"no organization":                   {permit(t, client, img.ImageId, types.LaunchPermission{OrganizationArn: aws.String("nonsense")}), "InvalidAMIAttributeItemValue"},
		"a unit is no organization":         {permit(t, client, img.ImageId, types.LaunchPermission{OrganizationArn: &ou}), "InvalidAMIAttributeItemValue"},
		"deprecated in 10 years and a day":  {deprecate(10, 1), "InvalidParameterValue"},
		"deprecated in 10 years less a day": {deprecate(10, -1), ""},
		"a copy within 16 minutes":          {copyIt(16), "InvalidParameterValue"},
		"a copy within 0 minutes":           {copyIt(0), "InvalidParameterValue"},
		"a copy within 30 minutes":          {copyIt(30), ""},
	} {
		if code(test.err) != test.want {
			t.Errorf("%s: %v", name, test.err)
		}
	}
	for _, n := range []int{501, 500} {
		_, err := client.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: snapshot, OperationType: "add", UserIds: users[:n]})
		if n == 501 && code(err) != "InvalidParameterValue" || n == 500 && err != nil {
			t.Errorf("a snapshot shared with %d: %v", n, err)
		}
	}
	if _, err := client.DescribeImageAttribute(ctx, &ec2.DescribeImageAttributeInput{ImageId: img.ImageId, Attribute: "blockDeviceMapping"}); code(err) != "AuthFailure" {
		t.Errorf("attribute blockDeviceMapping: %v", err)
	}
	for _, name := range []string{"scan-result.finding-scan-date", "instance-type-specification.supported-instance-type"} {
		if out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Filters: []types.Filter{filter(name, "*")}}); err != nil || len(out.Images) != 0 {
			t.Errorf("filter %s: %v, %v", name, out, err)
		}
	}

	// A public image is deprecated at most two years after its creation.
	public := made(t, client, "public")
	if err := permit(t, client, public.ImageId, types.LaunchPermission{Group: "all"}); err != nil {
		t.Fatal(err)
	}
	img = public
	if at, err := time.Parse(time.RFC3339, aws.ToString(awaitImage(t, client, *public.ImageId).DeprecationTime)); err != nil || time.Until(at).Round(24*time.Hour) != time.Until(time.Now().AddDate(2, 0, 0)).Round(24*time.Hour) {
		t.Errorf("the public image is deprecated at %v, %v", at, err)
	}
	if err := deprecate(2, 1); code(err) != "InvalidParameterValue" {
		t.Errorf("a public image deprecated later: %v", err)
	}
	if err := deprecate(1, 0); err != nil {
		t.Errorf("a public image deprecated earlier: %v", err)
	}
	if _, err := client.DisableImageDeprecation(ctx, &ec2.DisableImageDeprecationInput{ImageId: public.ImageId}); code(err) != "OperationNotPermitted" {
		t.Errorf("a public image deprecated never: %v", err)
	}
}

// TestMoment checks that images and snapshots of a running machine are of the time of the
// call, not of a later time.
func TestMoment(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	in := run(t, client, ec2.RunInstancesInput{})
	upper := filepath.Join(s.Driver.Specs()[0].Dir, "upper")
	s.Images.Cloning = func() error { time.Sleep(50 * time.Millisecond); return nil }
	for name, capture := range map[string]func() error{
		"image": func() error {
			_, err := client.CreateImage(ctx, &ec2.CreateImageInput{InstanceId: in.InstanceId, Name: aws.String("web"), NoReboot: aws.Bool(true)})
			return err
		},
		"snapshot": func() error {
			_, err := client.CreateSnapshot(ctx, &ec2.CreateSnapshotInput{VolumeId: in.BlockDeviceMappings[0].Ebs.VolumeId})
			return err
		},
		"snapshots": func() error {
			_, err := client.CreateSnapshots(ctx, &ec2.CreateSnapshotsInput{InstanceSpecification: &types.InstanceSpecification{InstanceId: in.InstanceId}})
			return err
		},
	} {
		if err := capture(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(upper, "after-"+name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the snapshots", func() bool {
		out, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: []types.Filter{filter("status", "completed")}})
		return err == nil && len(out.Snapshots) == 3
	})
	layers, err := s.Images.Layers()
	if err != nil {
		t.Fatal(err)
	}
	later := 0 // data written after a call is in the following captures
	paths, err := s.Images.Paths(layers)
	for _, path := range paths {
		files, err := filepath.Glob(filepath.Join(path, "after-*"))
		if err != nil {
			t.Fatal(err)
		}
		later += len(files)
	}
	if err != nil || later != 0+1+2 {
		t.Errorf("%d files, not 3, were written before the copies: %v", later, err)
	}
}
