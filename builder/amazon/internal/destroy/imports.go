package destroy

import (
	"context"
	"encoding/xml"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
)

// importTask cancels an import, and deletes its image if there is one already.
func (j *job) importTask(ctx context.Context) error {
	var task *types.ImportImageTask
	err := j.settle(ctx, func(ctx context.Context) (found bool, err error) {
		task, err = j.findImport(ctx)
		return task != nil, err
	})
	if err != nil || task == nil {
		return err
	}
	if aws.ToString(task.Status) == "active" {
		_, err := access.Call(ctx, j.client.CancelImportTask, &ec2.CancelImportTaskInput{ImportTaskId: task.ImportTaskId})
		// The task may have ended just now.
		if err != nil && !access.Is(err, "InvalidConversionTaskId.Conflict", "IncorrectState") {
			return err
		}
		err = j.session.Watch(5*time.Second, 10*time.Minute).Until(ctx, "import task "+*task.ImportTaskId+" to end", func(ctx context.Context) (bool, error) {
			j.r.ID = *task.ImportTaskId
			task, err = j.findImport(ctx)
			return err == nil && (task == nil || aws.ToString(task.Status) != "active" && aws.ToString(task.Status) != "deleting"), err
		})
		if err != nil || task == nil {
			return err
		}
	}
	if task.ImageId == nil {
		return nil
	}
	j.r.ID = *task.ImageId
	if err := j.image(ctx); err != nil {
		return err
	}
	// The task itself stays for some days, but must not be used to find the image any
	// more.
	_, err = access.Call(ctx, j.client.DeleteTags, &ec2.DeleteTagsInput{
		Resources: []string{*task.ImportTaskId}, Tags: []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
	})
	return err
}

// findImport returns the task of the resource, or nil.
func (j *job) findImport(ctx context.Context) (*types.ImportImageTask, error) {
	in := &ec2.DescribeImportImageTasksInput{}
	if j.r.ID != "" {
		in.ImportTaskIds = []string{j.r.ID}
	}
	out, err := access.Call(ctx, j.client.DescribeImportImageTasks, in)
	if access.Is(err, "InvalidConversionTaskId") {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, t := range out.ImportImageTasks {
		if j.r.ID != "" || ownership.Value(t.Tags, ownership.BuildTag) == j.build() {
			return &t, nil
		}
	}
	return nil, nil
}

// object deletes an object, and the parts of incomplete uploads of it.
func (j *job) object(ctx context.Context) error {
	key := j.r.With[ownership.WithKey]
	bucket := j.session.S3(j.session.Region, j.r.With[ownership.WithBucket])
	var begun struct {
		XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		Upload  []struct {
			Key      string
			UploadID string `xml:"UploadId"`
		}
	}
	err := bucket.Do(ctx, "ListMultipartUploads", access.S3Request{Method: http.MethodGet, OfBucket: true, Query: url.Values{"uploads": {""}, "prefix": {key}}}, &begun)
	if access.Is(err, "NoSuchBucket", "PermanentRedirect") { // there is none here
		return nil
	}
	if err != nil {
		return err
	}
	for _, u := range begun.Upload {
		if u.Key != key {
			continue
		}
		err := bucket.Do(ctx, "AbortMultipartUpload", access.S3Request{Method: http.MethodDelete, Key: key, Query: url.Values{"uploadId": {u.UploadID}}}, nil)
		if err != nil && !access.Is(err, "NoSuchUpload") {
			return err
		}
	}
	return bucket.Do(ctx, "DeleteObject", access.S3Request{Method: http.MethodDelete, Key: key}, nil)
}
