package cloud_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestArchive checks that an archived snapshot cannot be used until it is restored,
// temporarily or permanently.
func TestArchive(t *testing.T) {
	var ahead atomic.Int64 // hours
	start := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	s := rehearse(t, cloud.Options{Clock: clock{now: func() time.Time { return start.Add(time.Duration(ahead.Load()) * time.Hour) }}},
		cloud.Fault{Action: "*SnapshotTier", Effect: "stuck", For: 2 * time.Hour})
	client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	img := made(t, client, "web")
	id := img.BlockDeviceMappings[0].Ebs.SnapshotId
	share := func() error {
		_, err := client.ModifySnapshotAttribute(ctx, &ec2.ModifySnapshotAttributeInput{SnapshotId: id, OperationType: types.OperationTypeAdd, UserIds: []string{otherAccount}})
		return err
	}
	if err := share(); err != nil {
		t.Fatal(err)
	}
	archive := func(tier types.TargetStorageTier) error {
		_, err := client.ModifySnapshotTier(ctx, &ec2.ModifySnapshotTierInput{SnapshotId: id, StorageTier: tier})
		return err
	}
	restore := func(days *int32, permanent *bool) error {
		out, err := client.RestoreSnapshotTier(ctx, &ec2.RestoreSnapshotTierInput{SnapshotId: id, TemporaryRestoreDays: days, PermanentRestore: permanent})
		if err == nil && (aws.ToInt32(out.RestoreDuration) != aws.ToInt32(days) || *out.IsPermanentRestore != aws.ToBool(permanent) || *out.SnapshotId != *id) {
			t.Errorf("restored: %+v", out)
		}
		return err
	}
	enable := func() error {
		_, err := client.EnableImage(ctx, &ec2.EnableImageInput{ImageId: img.ImageId})
		return err
	}
	disable := func() error {
		_, err := client.DisableImage(ctx, &ec2.DisableImageInput{ImageId: img.ImageId})
		return err
	}
	volume := func() error {
		_, err := client.CreateVolume(ctx, &ec2.CreateVolumeInput{SnapshotId: id, AvailabilityZone: aws.String("us-east-1a")})
		return err
	}
	register := func() error {
		_, err := client.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("again"), RootDeviceName: aws.String("/dev/sda1"),
			BlockDeviceMappings: []types.BlockDeviceMapping{{DeviceName: aws.String("/dev/sda1"), Ebs: &types.EbsBlockDevice{SnapshotId: id}}}})
		return err
	}
	duplicate := func() error {
		_, err := client.CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceSnapshotId: id, SourceRegion: aws.String("us-east-1")})
		return err
	}
	shown := func() error {
		_, err := other.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{SnapshotIds: []string{*id}})
		return err
	}
	yes := aws.Bool(true)
	for i, step := range []struct {
		at     int64 // hours
		do     func() error
		want   string
		tier   types.StorageTier // afterwards
		last   types.TieringOperationStatus
		expiry int64 // hours; 0 is none
	}{
		{0, func() error { return restore(aws.Int32(1), nil) }, "IncorrectState", "standard", "", 0},
		{0, func() error { return archive("") }, "MissingParameter", "standard", "", 0},
		{0, func() error { return archive("standard") }, "InvalidParameterValue", "standard", "", 0},
		{0, func() error { return archive("archive") }, "InvalidSnapshot.InUse", "standard", "", 0},
		{0, disable, "", "standard", "", 0},
		{0, func() error { return archive("archive") }, "", "standard", "archival-in-progress", 0},
		{1, func() error { return archive("archive") }, "IncorrectState", "standard", "archival-in-progress", 0},
		{1, volume, "", "standard", "archival-in-progress", 0},
		{1, shown, "", "standard", "archival-in-progress", 0},
		{1, enable, "IncorrectState", "standard", "archival-in-progress", 0},
		{1, register, "IncorrectState", "standard", "archival-in-progress", 0},
		{2, volume, "IncorrectState", "archive", "archival-completed", 0},
		{2, register, "IncorrectState", "archive", "archival-completed", 0},
		{2, duplicate, "IncorrectState", "archive", "archival-completed", 0},
		{2, enable, "IncorrectState", "archive", "archival-completed", 0},
		{2, shown, "InvalidSnapshot.NotFound", "archive", "archival-completed", 0},
		{2, share, "IncorrectState", "archive", "archival-completed", 0},
		{2, func() error { return archive("archive") }, "IncorrectState", "archive", "archival-completed", 0},
		{2, func() error { return restore(nil, nil) }, "MissingParameter", "archive", "archival-completed", 0},
		{2, func() error { return restore(aws.Int32(181), nil) }, "InvalidParameterValue", "archive", "archival-completed", 0},
		{2, func() error { return restore(aws.Int32(1), yes) }, "InvalidParameterCombination", "archive", "archival-completed", 0},
		{2, func() error { return restore(aws.Int32(1), nil) }, "", "archive", "temporary-restore-in-progress", 0},
		{3, func() error { return restore(nil, yes) }, "IncorrectState", "archive", "temporary-restore-in-progress", 0},
		{4, volume, "", "standard", "temporary-restore-completed", 28},
		{4, shown, "InvalidSnapshot.NotFound", "standard", "temporary-restore-completed", 28},
		{4, func() error { return archive("archive") }, "IncorrectState", "standard", "temporary-restore-completed", 28},
		{5, func() error { return restore(aws.Int32(2), nil) }, "", "standard", "temporary-restore-completed", 53},
		{53, volume, "IncorrectState", "archive", "temporary-restore-completed", 0},
		{53, func() error { return restore(nil, yes) }, "", "archive", "permanent-restore-in-progress", 0},
		{55, volume, "", "standard", "permanent-restore-completed", 0},
		{55, enable, "", "standard", "permanent-restore-completed", 0},
		{55, disable, "", "standard", "permanent-restore-completed", 0},
		{55, func() error { return archive("archive") }, "", "standard", "archival-in-progress", 0},
		{57, volume, "IncorrectState", "archive", "archival-completed", 0},
	} {
		ahead.Store(step.at)
		if err := step.do(); code(err) != step.want {
			t.Errorf("step %d: %v, want %q", i, err, step.want)
		}
		var expiry *time.Time
		if step.expiry > 0 {
			expiry = aws.Time(start.Add(time.Duration(step.expiry) * time.Hour))
		}
		described, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{Filters: []types.Filter{{Name: aws.String("storage-tier"), Values: []string{string(step.tier)}}}})
		if err != nil || len(described.Snapshots) != 1 || aws.ToTime(described.Snapshots[0].RestoreExpiryTime) != aws.ToTime(expiry) {
			t.Errorf("step %d: %+v, %v; want the tier %s and the expiry %v", i, described, err, step.tier, expiry)
		}
		out, err := client.DescribeSnapshotTierStatus(ctx, &ec2.DescribeSnapshotTierStatusInput{Filters: []types.Filter{{Name: aws.String("snapshot-id"), Values: []string{*id}}}})
		if err != nil || len(out.SnapshotTierStatuses) != 1 {
			t.Fatalf("step %d: %+v, %v", i, out, err)
		}
		got := out.SnapshotTierStatuses[0]
		if got.StorageTier != step.tier || got.LastTieringOperationStatus != step.last || aws.ToTime(got.RestoreExpiryTime) != aws.ToTime(expiry) ||
			(got.ArchivalCompleteTime != nil) != (step.at >= 2) && step.at < 55 {
			t.Errorf("step %d: %+v", i, got)
		}
	}
}

// TestArchiveFails checks that a failed archival leaves the snapshot where it is, and that
// a failed restore leaves it in the archive.
func TestArchiveFails(t *testing.T) {
	s := rehearse(t, cloud.Options{}, cloud.Fault{Action: "ModifySnapshotTier", Effect: "fail", Nth: 1, Message: "no room"}, cloud.Fault{Action: "RestoreSnapshotTier", Effect: "fail", Nth: 1, Message: "no tape"})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "web")
	id := img.BlockDeviceMappings[0].Ebs.SnapshotId
	if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId}); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		restores     bool
		tier         types.StorageTier
		last, detail string
	}{{false, "standard", "archival-failed", "no room"}, {false, "archive", "archival-completed", ""}, {true, "archive", "permanent-restore-failed", "no tape"}, {true, "standard", "permanent-restore-completed", ""}} {
		var err error
		if step.restores {
			_, err = client.RestoreSnapshotTier(ctx, &ec2.RestoreSnapshotTierInput{SnapshotId: id, PermanentRestore: aws.Bool(true)})
		} else {
			_, err = client.ModifySnapshotTier(ctx, &ec2.ModifySnapshotTierInput{SnapshotId: id, StorageTier: "archive"})
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := client.DescribeSnapshotTierStatus(ctx, &ec2.DescribeSnapshotTierStatusInput{})
		if err != nil || len(out.SnapshotTierStatuses) != 1 {
			t.Fatalf("DescribeSnapshotTierStatus = %+v, %v, want one", out, err)
		}
		if got := out.SnapshotTierStatuses[0]; got.StorageTier != step.tier || string(got.LastTieringOperationStatus) != step.last || aws.ToString(got.LastTieringOperationStatusDetail) != step.detail {
			t.Errorf("%+v, want %+v", got, step)
		}
	}
}

// TestArchiveOfDiscarded checks that an image cannot leave the recycle bin while its snapshot is
// archived.
func TestArchiveOfDiscarded(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{RecycleBin: 24 * time.Hour})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	img := made(t, client, "web")
	id := img.BlockDeviceMappings[0].Ebs.SnapshotId
	if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.ModifySnapshotTier(ctx, &ec2.ModifySnapshotTierInput{SnapshotId: id, StorageTier: "archive"}); err != nil {
		t.Fatal(err)
	}
	restore := func(want string) {
		t.Helper()
		if _, err := client.RestoreImageFromRecycleBin(ctx, &ec2.RestoreImageFromRecycleBinInput{ImageId: img.ImageId}); code(err) != want {
			t.Errorf("%v, want %q", err, want)
		}
	}
	restore("IncorrectState")
	if _, err := client.RestoreSnapshotTier(ctx, &ec2.RestoreSnapshotTierInput{SnapshotId: id, PermanentRestore: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	restore("")
}

// TestSpotPriceHistory checks that prices are always the same, also in pages, and that
// there is a price at every time.
func TestSpotPriceHistory(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return now }}})
	client, ctx := s.EC2("default", "us-west-1"), t.Context()
	history := func(in ec2.DescribeSpotPriceHistoryInput) (all []types.SpotPrice) {
		t.Helper()
		pages := ec2.NewDescribeSpotPriceHistoryPaginator(client, &in)
		for pages.HasMorePages() {
			out, err := pages.NextPage(ctx)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, out.SpotPriceHistory...)
		}
		return all
	}
	kinds := []types.InstanceType{"t3.micro", "m5.large"}
	current := history(ec2.DescribeSpotPriceHistoryInput{StartTime: &now, InstanceTypes: kinds, ProductDescriptions: []string{"Linux/UNIX (Amazon VPC)"}})
	if len(current) != 4 {
		t.Fatalf("current prices: %+v", current)
	}
	whole := history(ec2.DescribeSpotPriceHistoryInput{InstanceTypes: kinds, MaxResults: aws.Int32(7)})
	for i, p := range whole {
		if i > 0 && p.Timestamp.After(*whole[i-1].Timestamp) {
			t.Errorf("%d is newer than the one before", i)
		}
		if p.Timestamp.After(now) || p.Timestamp.Before(now.AddDate(0, 0, -97)) || p.ProductDescription != "Linux/UNIX" {
			t.Errorf("%+v", p)
		}
	}
	if n := len(whole); n < 4*13 || n > 4*14 {
		t.Errorf("%d prices in 90 days", n)
	}
	for _, c := range current { // the newest of its type and zone here too
		for _, p := range whole {
			if p.InstanceType == c.InstanceType && *p.AvailabilityZone == *c.AvailabilityZone {
				if *p.SpotPrice != *c.SpotPrice || !p.Timestamp.Equal(*c.Timestamp) {
					t.Errorf("%+v and %+v", p, c)
				}
				break
			}
		}
	}
	one := history(ec2.DescribeSpotPriceHistoryInput{StartTime: aws.Time(now.AddDate(0, 0, -30)), EndTime: aws.Time(now.AddDate(0, 0, -20)), AvailabilityZone: aws.String("us-west-1c"),
		Filters: []types.Filter{{Name: aws.String("instance-type"), Values: []string{"t3.mic*"}}}})
	if n := len(one); n < 2 || n > 3 || one[n-1].Timestamp.After(now.AddDate(0, 0, -30)) || one[0].Timestamp.After(now.AddDate(0, 0, -20)) {
		t.Errorf("ten days: %+v", one)
	}
	before := time.Date(1969, 12, 20, 12, 0, 0, 0, time.UTC)
	for _, p := range history(ec2.DescribeSpotPriceHistoryInput{EndTime: &before, InstanceTypes: kinds}) {
		if p.Timestamp.After(before) || p.Timestamp.Before(before.AddDate(0, 0, -7)) {
			t.Errorf("the price that holds on %s is from %s", before, p.Timestamp)
		}
	}
	if got := history(ec2.DescribeSpotPriceHistoryInput{ProductDescriptions: []string{"Windows"}}); len(got) != 0 {
		t.Errorf("prices of Windows: %+v", got)
	}
	if all := history(ec2.DescribeSpotPriceHistoryInput{StartTime: &now}); len(all) < 300 {
		t.Errorf("%d types and zones", len(all))
	}
	for _, in := range []ec2.DescribeSpotPriceHistoryInput{{AvailabilityZone: aws.String("us-east-1a")}, {InstanceTypes: []types.InstanceType{"x9.odd"}}, {StartTime: &now, EndTime: aws.Time(now.Add(-time.Hour))}} {
		if _, err := client.DescribeSpotPriceHistory(ctx, &in); code(err) != "InvalidParameterValue" {
			t.Errorf("%v", err)
		}
	}
}
