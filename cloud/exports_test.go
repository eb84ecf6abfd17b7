package cloud_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// exported waits until an export has ended.
func exported(t *testing.T, client *ec2.Client, id *string) (task types.ExportImageTask) {
	t.Helper()
	eventually(t, "the export to end", func() bool {
		out, err := client.DescribeExportImageTasks(t.Context(), &ec2.DescribeExportImageTasksInput{ExportImageTaskIds: []string{*id}})
		if err != nil {
			t.Fatal(err)
		}
		task = out.ExportImageTasks[0]
		return *task.Status != "active"
	})
	return task
}

// exporting returns a request to export an image to the bucket "disks".
func exporting(ami *string) *ec2.ExportImageInput {
	return &ec2.ExportImageInput{ImageId: ami, DiskImageFormat: types.DiskImageFormatRaw, S3ExportLocation: &types.ExportTaskS3LocationRequest{S3Bucket: aws.String("disks"), S3Prefix: aws.String("out/")}}
}

// keysIn returns the keys in the bucket "disks".
func keysIn(t *testing.T, client *s3.Client) (keys []string) {
	t.Helper()
	out, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("disks")})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		keys = append(keys, *o.Key)
	}
	return keys
}

func TestExportImage(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	bucket := bucketNamed(t, s, "disks")
	img := madeWith(t, s, "web", "mine")
	in := exporting(img.ImageId)
	in.ClientToken, in.Description = aws.String("once"), aws.String("for elsewhere")
	in.TagSpecifications = []types.TagSpecification{{ResourceType: "export-image-task", Tags: []types.Tag{{Key: aws.String("Team"), Value: aws.String("web")}}}}
	started, err := client.ExportImage(ctx, in)
	if err != nil || *started.Status != "active" || *started.RoleName != "vmimport" || started.DiskImageFormat != "RAW" {
		t.Fatalf("ExportImage = %+v, %v, want an active RAW export with the role vmimport", started, err)
	}
	again, err := client.ExportImage(ctx, in)
	if err != nil || *again.ExportImageTaskId != *started.ExportImageTaskId {
		t.Errorf("the same request again: %v, %v", again, err)
	}
	done := exported(t, client, started.ExportImageTaskId)
	if *done.Status != "completed" || *done.S3ExportLocation.S3Prefix != "out/" || *done.Description != "for elsewhere" || len(done.Tags) != 1 {
		t.Errorf("the task is %+v: %s", done, aws.ToString(done.StatusMessage))
	}
	key := "out/" + *started.ExportImageTaskId + ".raw"
	disk, err := bucket.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("disks"), Key: &key})
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(disk.Body)
	if err != nil || !strings.HasPrefix(string(data), "layer-") || len(data) != 1<<20 || strings.Trim(string(data[100:]), "\x00") != "" {
		t.Errorf("the disk has %d bytes: %.60q, %v", len(data), data, err)
	}
	if _, err := client.CancelExportTask(ctx, &ec2.CancelExportTaskInput{ExportTaskId: started.ExportImageTaskId}); code(err) != "IncorrectState" {
		t.Errorf("cancelling what is done: %v", err)
	}
	vmdk, nowhere, published := exporting(img.ImageId), exporting(img.ImageId), exporting(aws.String(source(t, client)))
	vmdk.DiskImageFormat, nowhere.S3ExportLocation.S3Bucket = "VMDK", aws.String("nowhere")
	for want, in := range map[string]*ec2.ExportImageInput{"Unsupported": vmdk, "InvalidParameterValue": nowhere, "AuthFailure": published, "InvalidAMIID.NotFound": exporting(aws.String("ami-0123456789abcdef0"))} {
		if _, err := client.ExportImage(ctx, in); code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	if _, err := other.DescribeExportImageTasks(ctx, &ec2.DescribeExportImageTasksInput{ExportImageTaskIds: []string{*started.ExportImageTaskId}}); code(err) != "InvalidExportTaskID.NotFound" {
		t.Errorf("another account: %v", err)
	}
}

// TestExportImageEnds checks that an export that fails or is cancelled leaves no object
// and says why.
func TestExportImageEnds(t *testing.T) {
	s := rehearse(t, cloud.Options{}, cloud.Fault{Action: "ExportImage", Effect: "fail", Nth: 1, Message: "no room"})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucket := bucketNamed(t, s, "disks")
	img := madeWith(t, s, "web", "mine")
	started := func() *string {
		out, err := client.ExportImage(ctx, exporting(img.ImageId))
		if err != nil {
			t.Fatal(err)
		}
		return out.ExportImageTaskId
	}
	if task := exported(t, client, started()); *task.Status != "deleted" || *task.StatusMessage != "ClientError: no room" {
		t.Errorf("the rule: %+v", task)
	}
	s.Images.Exporting = func() error { return errors.New("no disk") }
	if task := exported(t, client, started()); *task.Status != "deleted" || *task.StatusMessage != "ClientError: no disk" {
		t.Errorf("no disk: %+v", task)
	}
	reached, goOn := make(chan struct{}), make(chan struct{})
	s.Images.Exporting = func() error { close(reached); <-goOn; return nil }
	id := started()
	<-reached
	if _, err := client.CancelExportTask(ctx, &ec2.CancelExportTaskInput{ExportTaskId: id}); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if task := exported(t, client, id); *task.Status != "deleted" || *task.StatusMessage != "cancelled by the user" {
		t.Errorf("cancelled: %+v", task)
	}
	s.Images.Exporting = nil
	if task := exported(t, client, started()); *task.Status != "completed" { // by then, the previous task has been handled
		t.Errorf("%+v", task)
	}
	if keys := keysIn(t, bucket); len(keys) != 1 {
		t.Errorf("the bucket holds %v", keys)
	}
}

// TestExportCutOff checks that an export that was running when the cloud ended has failed.
func TestExportCutOff(t *testing.T) {
	dir := t.TempDir()
	var id *string
	serveOnce(t, cloud.Options{Dir: dir, Clock: stuck{}}, func(s *cloudtest.Server) {
		bucketNamed(t, s, "disks")
		client := s.EC2("default", "us-east-1")
		source := aws.String(source(t, client))
		copied, err := client.CopyImage(t.Context(), &ec2.CopyImageInput{Name: aws.String("own"), SourceImageId: source, SourceRegion: aws.String("us-east-1")})
		if err != nil {
			t.Fatal(err)
		}
		id = copied.ImageId
	})
	serveOnce(t, cloud.Options{Dir: dir, Clock: stuck{}}, func(s *cloudtest.Server) {
		out, err := s.EC2("default", "us-east-1").ExportImage(t.Context(), exporting(id))
		if err != nil {
			t.Fatal(err)
		}
		id = out.ExportImageTaskId
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		if task := exported(t, s.EC2("default", "us-east-1"), id); *task.Status != "deleted" || !strings.Contains(*task.StatusMessage, "was stopped during the export") {
			t.Errorf("%+v", task)
		}
		if keys := keysIn(t, s3Client(s, 0, "us-east-1")); len(keys) != 0 {
			t.Errorf("the bucket holds %v", keys)
		}
	})
}
