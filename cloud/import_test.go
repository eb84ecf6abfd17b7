package cloud_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// upload creates the bucket "disks" with a disk image.
func upload(t *testing.T, s *cloudtest.Server, content string) {
	t.Helper()
	client := s3Client(s, 0, "us-east-1")
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: aws.String("disks")}); err != nil {
		t.Fatal(err)
	}
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{Bucket: aws.String("disks"), Key: aws.String("disk.raw"), Body: strings.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
}

// importing returns a request to import an object of the bucket "disks".
func importing(key, format string) *ec2.ImportImageInput {
	return &ec2.ImportImageInput{Architecture: aws.String("arm64"), BootMode: types.BootModeValuesUefi, DiskContainers: []types.ImageDiskContainer{{
		Format: &format, UserBucket: &types.UserBucket{S3Bucket: aws.String("disks"), S3Key: &key}}}}
}

// task waits until an import task has ended.
func task(t *testing.T, client *ec2.Client, id *string) types.ImportImageTask {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		out, err := client.DescribeImportImageTasks(t.Context(), &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{*id}})
		if err != nil {
			t.Fatal(err)
		}
		if one := out.ImportImageTasks[0]; *one.Status != "active" {
			return one
		}
		if time.Now().After(deadline) {
			t.Fatal("the task does not end")
		}
	}
}

func TestImportImage(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	upload(t, s, "a disk")
	in := importing("disk.raw", "RAW")
	in.Encrypted, in.ClientToken = aws.Bool(true), aws.String("once")
	started, err := client.ImportImage(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	again, err := client.ImportImage(ctx, in)
	if err != nil || *again.ImportTaskId != *started.ImportTaskId {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	done := task(t, client, started.ImportTaskId)
	if *done.Status != "completed" || done.ImageId == nil {
		t.Fatalf("the task is %s: %s", *done.Status, aws.ToString(done.StatusMessage))
	}
	out, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{ImageIds: []string{*done.ImageId}})
	if err != nil {
		t.Fatal(err)
	}
	img := out.Images[0]
	root := img.BlockDeviceMappings[0]
	if *img.Name != *started.ImportTaskId || img.State != "available" || img.Architecture != "arm64" || img.BootMode != "uefi" ||
		*root.DeviceName != *img.RootDeviceName || !*root.Ebs.Encrypted || *root.Ebs.VolumeSize != 1 || *root.Ebs.SnapshotId != *done.SnapshotDetails[0].SnapshotId {
		t.Errorf("the image: %+v, root %+v", img, root.Ebs)
	}
}

func TestImportImageFails(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	upload(t, s, "a disk")
	for _, test := range []struct{ name, key, format, want string }{
		{"no object", "other.raw", "raw", "NoSuchKey"},
		{"a format that is not read", "disk.raw", "vhdx", "no image in the format"},
	} {
		started, err := client.ImportImage(ctx, importing(test.key, test.format))
		if err != nil {
			t.Fatal(err)
		}
		if done := task(t, client, started.ImportTaskId); *done.Status != "deleted" || !strings.Contains(*done.StatusMessage, "ClientError: Disk validation failed") ||
			!strings.Contains(*done.StatusMessage, test.want) || done.ImageId != nil {
			t.Errorf("%s: %s, %s", test.name, *done.Status, aws.ToString(done.StatusMessage))
		}
	}
	windows := importing("disk.raw", "raw")
	windows.Platform = aws.String("Windows")
	nothing := importing("disk.raw", "raw")
	nothing.DiskContainers[0].UserBucket = nil
	qcow2 := importing("disk.raw", "qcow2") // EC2 does not import this format
	for want, in := range map[string]*ec2.ImportImageInput{"Unsupported": windows, "MissingParameter": nothing, "InvalidParameterValue": qcow2} {
		if _, err := client.ImportImage(ctx, in); code(err) != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
	_, err := client.DescribeImportImageTasks(ctx, &ec2.DescribeImportImageTasksInput{ImportTaskIds: []string{"import-ami-0123"}})
	if code(err) != "InvalidConversionTaskId" {
		t.Error(err)
	}
}

// stuck is a clock whose pauses do not end before the test.
type stuck struct{ cloud.Clock }

func (stuck) Now() time.Time { return time.Now() }

func (stuck) Sleep(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

// TestImportCutOff cancels an import, and closes the cloud during another.
func TestImportCutOff(t *testing.T) {
	dir := t.TempDir()
	var ids []*string
	serveOnce(t, cloud.Options{Dir: dir, Clock: stuck{}}, func(s *cloudtest.Server) {
		client, ctx := s.EC2("default", "us-east-1"), t.Context()
		upload(t, s, "a disk")
		for range 2 {
			started, err := client.ImportImage(ctx, importing("disk.raw", "raw"))
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, started.ImportTaskId)
		}
		cancel := &ec2.CancelImportTaskInput{ImportTaskId: ids[0], CancelReason: aws.String("enough")}
		if out, err := client.CancelImportTask(ctx, cancel); err != nil || *out.PreviousState != "active" {
			t.Errorf("%+v, %v", out, err)
		}
		if one := task(t, client, ids[0]); *one.Status != "deleted" || *one.StatusMessage != "enough" {
			t.Errorf("cancelled: %s, %s", *one.Status, *one.StatusMessage)
		}
		if _, err := client.CancelImportTask(ctx, cancel); err == nil {
			t.Error("a cancelled task is cancelled")
		}
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		if one := task(t, s.EC2("default", "us-east-1"), ids[1]); *one.Status != "deleted" || !strings.Contains(*one.StatusMessage, "was stopped during the import") {
			t.Errorf("cut off: %s, %s", *one.Status, *one.StatusMessage)
		}
	})
}
