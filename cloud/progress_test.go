package cloud_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestProgress checks that the progress of a running task is shown and never decreases.
func TestProgress(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucketNamed(t, s, "disks")
	img := madeWith(t, s, "web", "mine") // with two layers

	var during []string
	s.Images.Exporting = func() error {
		out, err := client.DescribeExportImageTasks(ctx, nil)
		if err == nil {
			during = append(during, aws.ToString(out.ExportImageTasks[0].Progress))
		}
		return err
	}
	started, err := client.ExportImage(ctx, exporting(img.ImageId))
	if err != nil || *started.Progress != "0" {
		t.Fatalf("ExportImage = %+v, %v, want the progress 0", started, err)
	}
	if done := exported(t, client, started.ExportImageTaskId); *done.Status != "completed" || len(during) != 1 || during[0] != "35" {
		t.Errorf("an export: %v, then %+v", during, done)
	}

	var stores []int32
	s.Images.Storing = func() error {
		out, err := client.DescribeStoreImageTasks(ctx, nil)
		if err == nil {
			stores = append(stores, *out.StoreImageTaskResults[0].ProgressPercentage)
		}
		return err
	}
	key, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("disks")})
	if err != nil {
		t.Fatal(err)
	}
	if task := stored(t, client, img.ImageId); *task.ProgressPercentage != 100 || len(stores) != 2 || stores[0] != 0 || stores[1] <= 0 || stores[1] >= 100 {
		t.Errorf("a store: %v, then %+v", stores, task)
	}

	during = nil
	s.Images.Restoring = func() error {
		out, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
		for _, snap := range out.Snapshots {
			if snap.State == "pending" {
				during = append(during, *snap.Progress)
			}
		}
		return err
	}
	restored, err := client.CreateRestoreImageTask(ctx, &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("disks"), ObjectKey: key.ObjectKey, Name: aws.String("again")})
	if err != nil {
		t.Fatal(err)
	}
	if img := imageOf(t, client, restored.ImageId); img.State != "available" || len(during) != 2 || during[0] == "0%" || during[0] == "100%" {
		t.Errorf("a restore: %v, then %s", during, img.State)
	}
}
