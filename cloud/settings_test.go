package cloud_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	"bake/cloud/wire"
)

// TestPublicAccess checks that blocked resources cannot be shared publicly, in their
// region, also after a restart.
func TestPublicAccess(t *testing.T) {
	dir := t.TempDir()
	all := types.LaunchPermission{Group: "all"}
	share := func(client *ec2.Client, snapshot *string) error {
		_, err := client.ModifySnapshotAttribute(t.Context(), &ec2.ModifySnapshotAttributeInput{SnapshotId: snapshot, OperationType: "add", GroupNames: []string{"all"}})
		return err
	}
	var img types.Image
	t.Run("block", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
		img = made(t, client, "web")
		snapshot := img.BlockDeviceMappings[0].Ebs.SnapshotId
		if err := share(client, snapshot); err != nil {
			t.Fatal(err)
		}
		sees := func() int {
			out, err := other.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{})
			if err != nil {
				t.Fatal(err)
			}
			return len(out.Snapshots)
		}
		for state, want := range map[types.SnapshotBlockPublicAccessState]int{"block-new-sharing": 1, "block-all-sharing": 0} {
			if _, err := client.EnableSnapshotBlockPublicAccess(ctx, &ec2.EnableSnapshotBlockPublicAccessInput{State: state}); err != nil {
				t.Fatal(err)
			}
			if n := sees(); n != want {
				t.Errorf("%s: others see %d public snapshots", state, n)
			}
			if err := share(client, snapshot); code(err) != "OperationNotPermitted" {
				t.Errorf("%s: a snapshot made public: %v", state, err)
			}
		}
		if _, err := client.EnableImageBlockPublicAccess(ctx, &ec2.EnableImageBlockPublicAccessInput{ImageBlockPublicAccessState: "block-new-sharing"}); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("after a restart", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		client, west, ctx := s.EC2("default", "us-east-1"), s.EC2("default", "us-west-2"), t.Context()
		state := func(client *ec2.Client) string {
			t.Helper()
			out, err := client.GetImageBlockPublicAccessState(ctx, nil)
			if err != nil {
				t.Fatal(err)
			}
			return *out.ImageBlockPublicAccessState
		}
		if here, there := state(client), state(west); here != "block-new-sharing" || there != "unblocked" {
			t.Errorf("the state is %s here, %s in another region", here, there)
		}
		if err := permit(t, client, img.ImageId, all); code(err) != "OperationNotPermitted" {
			t.Errorf("an image made public: %v", err)
		}
		if err := permit(t, client, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
			t.Errorf("an image shared with an account: %v", err)
		}
		if _, err := client.DisableImageBlockPublicAccess(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if err := permit(t, client, img.ImageId, all); err != nil {
			t.Error(err)
		}
		snapshots, err := client.GetSnapshotBlockPublicAccessState(ctx, nil)
		if err != nil || snapshots.State == "unblocked" {
			t.Errorf("%v, %v", snapshots, err)
		}
		if _, err := client.DisableSnapshotBlockPublicAccess(ctx, nil); err != nil {
			t.Fatal(err)
		}
		if err := share(client, img.BlockDeviceMappings[0].Ebs.SnapshotId); err != nil {
			t.Error(err)
		}
	})
}

// TestEncryptionByDefault checks that everything created is encrypted with the account's
// key, and that resources encrypted with the AWS managed key cannot be shared.
func TestEncryptionByDefault(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "plain")
	if _, err := client.EnableEbsEncryptionByDefault(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if out, err := client.GetEbsDefaultKmsKeyId(ctx, nil); err != nil || *out.KmsKeyId != "alias/aws/ebs" {
		t.Errorf("the key: %v, %v", out, err)
	}
	for i, key := range []string{"", "alias/golden"} {
		if key != "" {
			if _, err := client.ModifyEbsDefaultKmsKeyId(ctx, &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: &key}); err != nil {
				t.Fatal(err)
			}
		}
		copied, err := client.CopyImage(ctx, &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Name: aws.String(fmt.Sprint("copy ", i))})
		if err != nil {
			t.Fatal(err)
		}
		ebs := awaitImage(t, client, *copied.ImageId).BlockDeviceMappings[0].Ebs
		snapshot, err := client.CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceSnapshotId: img.BlockDeviceMappings[0].Ebs.SnapshotId, SourceRegion: aws.String("us-east-1")})
		if err != nil {
			t.Fatal(err)
		}
		out, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*ebs.SnapshotId, *snapshot.SnapshotId}})
		if err != nil || len(out.Snapshots) != 2 {
			t.Fatalf("DescribeSnapshots = %+v, %v, want two", out, err)
		}
		for _, r := range out.Snapshots {
			if !*r.Encrypted || !strings.HasSuffix(aws.ToString(r.KmsKeyId), key) {
				t.Errorf("key %q: %s is encrypted: %v, with %s", key, *r.Description, *r.Encrypted, aws.ToString(r.KmsKeyId))
			}
		}
		want := map[string]string{"": "InvalidParameter"}[key]
		if err := permit(t, client, copied.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); code(err) != want {
			t.Errorf("key %q: shared: %v, want %q", key, err, want)
		}
		id := *run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId
		volume, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String("us-east-1a")})
		if err != nil || !*volume.Encrypted {
			t.Errorf("a volume: %v, %v", volume, err)
		}
		volumes, err := client.DescribeVolumes(ctx, &ec2.DescribeVolumesInput{Filters: []types.Filter{filter("attachment.instance-id", id)}})
		if err != nil || !*volumes.Volumes[0].Encrypted || !strings.HasSuffix(*volumes.Volumes[0].KmsKeyId, key) {
			t.Errorf("key %q: an instance's volume: %+v, %v", key, volumes.Volumes[0], err)
		}
	}
	if out, err := client.ResetEbsDefaultKmsKeyId(ctx, nil); err != nil || *out.KmsKeyId != "alias/aws/ebs" {
		t.Errorf("reset: %v, %v", out, err)
	}
	if _, err := client.DisableEbsEncryptionByDefault(ctx, nil); err != nil {
		t.Fatal(err)
	}
	volume, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{Size: aws.Int32(1), AvailabilityZone: aws.String("us-east-1a")})
	if err != nil || *volume.Encrypted {
		t.Errorf("disabled: %v, %v", volume, err)
	}
}

// TestAllowedImages checks that images outside the criteria are marked in audit mode and
// invisible when the criteria are enforced. An account's own images are always allowed.
func TestAllowedImages(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	mine, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	own, shared := made(t, other, "own"), made(t, mine, "web")
	if _, err := mine.AttachImageWatermark(ctx, &ec2.AttachImageWatermarkInput{ImageId: shared.ImageId, WatermarkName: aws.String("approved")}); err != nil {
		t.Fatal(err)
	}
	if err := permit(t, mine, shared.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
		t.Fatal(err)
	}
	seen := func() string {
		t.Helper()
		out, err := other.DescribeImages(ctx, &ec2.DescribeImagesInput{Filters: []types.Filter{filter("name", "own", "web")}})
		if err != nil {
			t.Fatal(err)
		}
		allowed := map[string]string{}
		for _, i := range out.Images {
			allowed[*i.Name] = "?"
			if i.ImageAllowed != nil {
				allowed[*i.Name] = fmt.Sprint(*i.ImageAllowed)
			}
		}
		return fmt.Sprint(allowed)
	}
	if got := seen(); got != "map[own:? web:?]" {
		t.Errorf("disabled: %s", got)
	}
	for name, test := range map[string]struct {
		criteria []types.ImageCriterionRequest
		audit    string
		launch   string
	}{
		"nothing":           {nil, "map[own:true web:false]", "InvalidAMIID.NotFound"},
		"the provider":      {[]types.ImageCriterionRequest{{ImageProviders: []string{"123456789012"}}}, "map[own:true web:true]", "DryRunOperation"},
		"another, or none":  {[]types.ImageCriterionRequest{{ImageProviders: []string{"amazon"}}, {ImageProviders: []string{"none"}}}, "map[own:true web:false]", "InvalidAMIID.NotFound"},
		"another's name":    {[]types.ImageCriterionRequest{{ImageProviders: []string{"123456789012"}, ImageNames: []string{"db*"}}}, "map[own:true web:false]", "InvalidAMIID.NotFound"},
		"its name":          {[]types.ImageCriterionRequest{{ImageNames: []string{"db*"}}, {ImageNames: []string{"w?b"}}}, "map[own:true web:true]", "DryRunOperation"},
		"its watermark":     {[]types.ImageCriterionRequest{{ImageWatermarks: []types.ImageWatermarkFilterRequest{{WatermarkKey: aws.String("123456789012:approved"), MaximumDaysSinceWatermarkCreated: aws.Int32(3)}}}}, "map[own:true web:true]", "DryRunOperation"},
		"another watermark": {[]types.ImageCriterionRequest{{ImageWatermarks: []types.ImageWatermarkFilterRequest{{WatermarkKey: aws.String("123456789012:other")}}}}, "map[own:true web:false]", "InvalidAMIID.NotFound"},
	} {
		if _, err := other.ReplaceImageCriteriaInAllowedImagesSettings(ctx, &ec2.ReplaceImageCriteriaInAllowedImagesSettingsInput{ImageCriteria: test.criteria}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, state := range types.AllowedImagesSettingsEnabledState("").Values() {
			if _, err := other.EnableAllowedImagesSettings(ctx, &ec2.EnableAllowedImagesSettingsInput{AllowedImagesSettingsState: state}); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			launch, want := "DryRunOperation", test.audit
			if state == types.AllowedImagesSettingsEnabledStateEnabled {
				launch, want = test.launch, strings.Replace(want, " web:false", "", 1)
			}
			if got := seen(); got != want {
				t.Errorf("%s, %s: %s, want %s", name, state, got, want)
			}
			_, err := other.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: shared.ImageId, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), InstanceType: types.InstanceTypeT3Micro, DryRun: aws.Bool(true)})
			if code(err) != launch {
				t.Errorf("%s, %s: a launch: %v, want %s", name, state, err, launch)
			}
		}
		out, err := other.GetAllowedImagesSettings(ctx, nil)
		if err != nil || len(out.ImageCriteria) != len(test.criteria) {
			t.Errorf("%s: %+v, %v", name, out, err)
		}
	}
	run(t, other, ec2.RunInstancesInput{ImageId: own.ImageId})
	if _, err := other.DisableAllowedImagesSettings(ctx, nil); err != nil || seen() != "map[own:? web:?]" {
		t.Errorf("disabled again: %s, %v", seen(), err)
	}
}

// TestLockedSnapshots checks that a lock prevents deletion until it is removed or expires,
// and that a lock in compliance mode cannot be removed after its cooling-off period.
func TestLockedSnapshots(t *testing.T) {
	var ahead atomic.Int64
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return start.Add(time.Duration(ahead.Load()) * time.Hour) }}})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "web")
	id := img.BlockDeviceMappings[0].Ebs.SnapshotId
	lock := func(mode types.LockMode, days int32, cool *int32) error {
		_, err := client.LockSnapshot(ctx, &ec2.LockSnapshotInput{SnapshotId: id, LockMode: mode, LockDuration: &days, CoolOffPeriod: cool})
		return err
	}
	unlock := func() error {
		_, err := client.UnlockSnapshot(ctx, &ec2.UnlockSnapshotInput{SnapshotId: id})
		return err
	}
	if out, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId}); err != nil || !*out.Return {
		t.Fatalf("DeregisterImage = %+v, %v, want that it returns true", out, err)
	}
	remove := func() error {
		_, err := client.DeleteSnapshot(ctx, &ec2.DeleteSnapshotInput{SnapshotId: id})
		return err
	}
	for i, step := range []struct {
		at   int64 // hours
		do   func() error
		want string
		lock types.LockState // afterwards
	}{
		{0, unlock, "IncorrectState", ""},
		{0, func() error { return lock("governance", 1, aws.Int32(1)) }, "InvalidParameterCombination", ""},
		{0, func() error { return lock("governance", 0, nil) }, "InvalidParameterValue", ""},
		{0, func() error { return lock("governance", 3, nil) }, "", "governance"},
		{1, remove, "SnapshotLocked", "governance"},
		{1, unlock, "", ""},
		{1, func() error { return lock("compliance", 2, aws.Int32(2)) }, "", "compliance-cooloff"},
		{2, unlock, "", ""},
		{2, func() error { return lock("compliance", 2, aws.Int32(2)) }, "", "compliance-cooloff"},
		{5, unlock, "OperationNotPermitted", "compliance"},
		{5, func() error { return lock("compliance", 1, nil) }, "OperationNotPermitted", "compliance"},
		{5, func() error { return lock("governance", 9, nil) }, "OperationNotPermitted", "compliance"},
		{5, func() error { return lock("compliance", 3, nil) }, "", "compliance"},
		{76, remove, "SnapshotLocked", "compliance"},
		{77, unlock, "IncorrectState", "expired"},
		{77, remove, "", "gone"},
	} {
		ahead.Store(step.at)
		if err := step.do(); code(err) != step.want {
			t.Errorf("step %d: %v, want %q", i, err, step.want)
		}
		out, err := client.DescribeLockedSnapshots(ctx, &ec2.DescribeLockedSnapshotsInput{SnapshotIds: []string{*id}})
		switch {
		case step.lock == "gone":
			if code(err) != "InvalidSnapshot.NotFound" {
				t.Errorf("step %d: %v", i, err)
			}
		case err != nil:
			t.Errorf("step %d: %v", i, err)
		case step.lock == "" && len(out.Snapshots) != 0, step.lock != "" && (len(out.Snapshots) != 1 || out.Snapshots[0].LockState != step.lock):
			t.Errorf("step %d: %+v, want the state %q", i, out.Snapshots, step.lock)
		}
	}
}

// TestRecycleBin checks that deleted resources can be restored for some time, an image
// after its snapshots, and that their permissions and content return.
func TestRecycleBin(t *testing.T) {
	var ahead atomic.Int64
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	options := cloud.Options{Dir: dir, RecycleBin: 24 * time.Hour, Clock: clock{now: func() time.Time { return start.Add(time.Duration(ahead.Load())) }}}
	var img, late types.Image
	var snapshot *string
	t.Run("delete", func(t *testing.T) {
		s := cloudtest.Start(t, options)
		client, ctx := s.EC2("default", "us-east-1"), t.Context()
		img, late = made(t, client, "web"), made(t, client, "late")
		snapshot = img.BlockDeviceMappings[0].Ebs.SnapshotId
		if err := permit(t, client, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
			t.Fatal(err)
		}
		for _, id := range []*string{img.ImageId, late.ImageId} {
			if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: id, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("restore", func(t *testing.T) {
		s := cloudtest.Start(t, options)
		client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
		images, err := client.ListImagesInRecycleBin(ctx, &ec2.ListImagesInRecycleBinInput{ImageIds: []string{*img.ImageId}})
		if err != nil || len(images.Images) != 1 || *images.Images[0].Name != "web" || images.Images[0].RecycleBinExitTime.Sub(start) != 24*time.Hour {
			t.Errorf("images in the bin: %+v, %v", images, err)
		}
		snapshots, err := client.ListSnapshotsInRecycleBin(ctx, nil)
		if err != nil || len(snapshots.Snapshots) != 2 {
			t.Errorf("snapshots in the bin: %+v, %v", snapshots, err)
		}
		if out, err := other.ListImagesInRecycleBin(ctx, nil); err != nil || len(out.Images) != 0 {
			t.Errorf("another account's bin: %+v, %v", out, err)
		}
		image := func(client *ec2.Client, id *string) string {
			_, err := client.RestoreImageFromRecycleBin(ctx, &ec2.RestoreImageFromRecycleBinInput{ImageId: id})
			return code(err)
		}
		if got := image(client, img.ImageId); got != "InvalidSnapshot.NotFound" {
			t.Errorf("the image before its snapshot: %q", got)
		}
		if out, err := client.RestoreSnapshotFromRecycleBin(ctx, &ec2.RestoreSnapshotFromRecycleBinInput{SnapshotId: snapshot}); err != nil || *out.VolumeSize != 8 {
			t.Errorf("the snapshot: %+v, %v", out, err)
		}
		if got := image(other, img.ImageId); got != "InvalidAMIID.NotFound" {
			t.Errorf("the image, by another account: %q", got)
		}
		if got := image(client, img.ImageId); got != "" {
			t.Errorf("the image: %q", got)
		}
		run(t, other, ec2.RunInstancesInput{ImageId: img.ImageId})
		if got := image(client, img.ImageId); got != "InvalidAMIID.NotFound" {
			t.Errorf("again: %q", got)
		}
		ahead.Store(int64(25 * time.Hour))
		if got := image(client, late.ImageId); got != "InvalidAMIID.NotFound" {
			t.Errorf("too late: %q", got)
		}
		if out, err := client.ListSnapshotsInRecycleBin(ctx, nil); err != nil || len(out.Snapshots) != 0 {
			t.Errorf("the bin, too late: %+v, %v", out, err)
		}
	})
}

// TestSharedActions covers the smaller actions about sharing, and lists that are always
// empty.
func TestSharedActions(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	mine, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	img := made(t, mine, "web")
	snapshot := img.BlockDeviceMappings[0].Ebs.SnapshotId
	if err := permit(t, mine, img.ImageId, types.LaunchPermission{UserId: aws.String(otherAccount)}); err != nil {
		t.Fatal(err)
	}
	cancel := func(client *ec2.Client) string {
		_, err := client.CancelImageLaunchPermission(ctx, &ec2.CancelImageLaunchPermissionInput{ImageId: img.ImageId})
		return code(err)
	}
	for i, step := range []struct{ got, want string }{{cancel(mine), "InvalidRequest"}, {cancel(other), ""}, {cancel(other), "AuthFailure"}} {
		if step.got != step.want {
			t.Errorf("cancel %d: %q, want %q", i, step.got, step.want)
		}
	}
	_, err := mine.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: snapshot, OperationType: "add", UserIds: []string{otherAccount}})
	if err != nil {
		t.Fatal(err)
	}
	west := s.EC2("other", "us-west-2")
	copyIt := func() (*ec2.CopySnapshotOutput, error) {
		return west.CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceSnapshotId: snapshot, SourceRegion: aws.String("us-east-1")})
	}
	copied, err := copyIt()
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the copy complete", func() bool {
		out, err := west.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*copied.SnapshotId}})
		return err == nil && out.Snapshots[0].State == types.SnapshotStateCompleted && *out.Snapshots[0].Description == "[Copied "+*snapshot+" from us-east-1]"
	})
	model, err := wire.Load("ec2")
	if err != nil {
		t.Fatal(err)
	}
	for region, want := range map[string]int{"us-east-1": http.StatusOK, "us-west-2": http.StatusBadRequest} { // as boto3 sends it
		status, answer := send(t, s.URL, s.Credentials()[0], "ec2", model, "CopySnapshot", map[string]any{"SourceSnapshotId": *snapshot, "SourceRegion": "us-east-1",
			"DestinationRegion": region, "PresignedUrl": "https://ec2.us-east-1.amazonaws.com/"})
		if status != want {
			t.Errorf("DestinationRegion %s: %d %s", region, status, answer)
		}
	}
	if _, err := mine.ResetSnapshotAttribute(ctx, &ec2.ResetSnapshotAttributeInput{SnapshotId: snapshot, Attribute: types.SnapshotAttributeNameCreateVolumePermission}); err != nil {
		t.Fatal(err)
	}
	if _, err := copyIt(); code(err) != "InvalidSnapshot.NotFound" {
		t.Errorf("a copy of a snapshot that is no longer shared: %v", err)
	}
	fleets, err := mine.DescribeFleets(ctx, nil)
	if err != nil || len(fleets.Fleets) != 0 {
		t.Errorf("fleets: %+v, %v", fleets, err)
	}
	if _, err := mine.DescribeFleets(ctx, &ec2.DescribeFleetsInput{FleetIds: []string{"fleet-0123456789abcdef0"}}); code(err) != "InvalidFleetId.NotFound" {
		t.Errorf("a fleet that does not exist: %v", err)
	}
	if out, err := mine.DescribeSpotFleetRequests(ctx, nil); err != nil || len(out.SpotFleetRequestConfigs) != 0 {
		t.Errorf("spot fleets: %+v, %v", out, err)
	}
	if out, err := mine.DescribeFastSnapshotRestores(ctx, &ec2.DescribeFastSnapshotRestoresInput{Filters: []types.Filter{filter("state", "enabled")}}); err != nil || len(out.FastSnapshotRestores) != 0 {
		t.Errorf("fast restores: %+v, %v", out, err)
	}
}
