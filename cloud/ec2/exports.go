package ec2

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// exportTask is a task that exports an image to a disk image in a bucket. Its states are
// those of an import task.
type exportTask struct {
	Region   string
	Account  string
	Token    string // the client's token
	Request  string // see instance
	RoleName string
	types.ExportImageTask
}

var errExportCancelled = errors.New("the export was cancelled")

// ExportImage starts to export one of the caller's images as a raw disk to one of the
// caller's buckets.
func (s *state) ExportImage(ctx context.Context, in *ec2.ExportImageInput) (*ec2.ExportImageOutput, error) {
	c := wire.CallerFrom(ctx)
	task, key, err := s.newExportTask(c, in)
	if err != nil {
		return nil, err
	}
	for _, t := range s.exports.of(c) {
		if task.Token == "" || t.Token != task.Token {
			continue
		}
		if t.Request != task.Request {
			return nil, errTokenMisused()
		}
		return exported(t), nil
	}
	root, size, err := s.exportable(c, in.ImageId)
	if err != nil {
		return nil, err
	}
	id, bucket := *task.ExportImageTaskId, *task.S3ExportLocation.S3Bucket
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if err := s.opts.Objects.Accepts(c, bucket, key, header); err != nil {
		return nil, invalidValue("The object '%s' cannot be put into the bucket '%s': %s", key, bucket, wire.Message(err))
	}
	if err := s.exports.Put(id, task); err != nil {
		return nil, err
	}
	s.keep(id, root)
	fail, active := failing(ctx), later(stuck(ctx), s.delays().Image)
	during, cancel := context.WithCancelCause(s.ctx)
	s.exporting[id] = cancel
	s.background(func(_ context.Context, s *Service) {
		defer s.release(id)
		defer s.progress.ended(id)
		ctx := during
		defer cancel(nil)
		defer func() { _ = s.update(func(st *state) error { delete(st.exporting, id); return nil }) }() // the function returns nil
		err := s.opts.Clock.Sleep(ctx, active)
		if err == nil {
			err = fail
		}
		if err == nil {
			err = s.export(ctx, id, root, size, func(disk *os.File) error {
				return s.opts.Objects.StoreFile(c, bucket, key, header, disk, s.uploading(ctx, id))
			})
		}
		if err != nil && s.ctx.Err() != nil {
			return // the next Open records that the task was interrupted
		}
		if !errors.Is(err, errExportCancelled) {
			s.log(id, "export", err)
		}
		s.log(id, "exported", s.update(func(st *state) error { return st.exports.Edit(id, func(t *exportTask) { t.end(err) }) }))
	})
	return exported(task), nil
}

func (s *state) newExportTask(c wire.Caller, in *ec2.ExportImageInput) (task *exportTask, key string, err error) {
	to := in.S3ExportLocation
	switch {
	case to == nil || aws.ToString(to.S3Bucket) == "":
		return nil, "", missing("S3ExportLocation.S3Bucket")
	case in.DiskImageFormat == types.DiskImageFormatVmdk, in.DiskImageFormat == types.DiskImageFormatVhd:
		return nil, "", wire.Errorf("Unsupported", "The embedded cloud exports disks in the format RAW only, not %s.", in.DiskImageFormat)
	case in.DiskImageFormat != types.DiskImageFormatRaw:
		return nil, "", invalidValue("Value (%s) for parameter DiskImageFormat is invalid. It must be VMDK, RAW or VHD.", in.DiskImageFormat)
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, "", err
	}
	tags, err := tagsFor(in.TagSpecifications, kindExport.resource)
	if err != nil {
		return nil, "", err
	}
	id := newID(kindExport.prefix)
	task = &exportTask{Region: c.Region, Account: c.Account, Token: aws.ToString(in.ClientToken), Request: fingerprint(in), RoleName: aws.ToString(in.RoleName)}
	if task.RoleName == "" {
		task.RoleName = "vmimport"
	}
	task.ExportImageTask = types.ExportImageTask{
		ExportImageTaskId: &id, ImageId: in.ImageId, Description: notEmpty(in.Description), Status: aws.String(importActive), StatusMessage: aws.String("pending"),
		Progress: aws.String("0"), S3ExportLocation: &types.ExportTaskS3Location{S3Bucket: to.S3Bucket, S3Prefix: notEmpty(to.S3Prefix)}, Tags: tags[kindExport.resource],
	}
	return task, aws.ToString(to.S3Prefix) + id + ".raw", nil
}

func exported(t *exportTask) *ec2.ExportImageOutput {
	return &ec2.ExportImageOutput{ExportImageTaskId: t.ExportImageTaskId, ImageId: t.ImageId, Description: t.Description, DiskImageFormat: types.DiskImageFormatRaw,
		Status: t.Status, StatusMessage: t.StatusMessage, Progress: t.Progress, RoleName: &t.RoleName, S3ExportLocation: t.S3ExportLocation, Tags: t.Tags}
}

// exportable returns the contents of the root of an image that the caller may export, and
// its size in bytes.
func (s *state) exportable(c wire.Caller, id *string) (root contents, size int64, err error) {
	img, err := s.usableImage(c, id)
	if err != nil {
		return root, 0, err
	}
	if *img.OwnerId != c.Account {
		return root, 0, wire.Errorf("AuthFailure", "Not authorized for image:%s", *id)
	}
	var further []string
	for _, b := range img.BlockDeviceMappings {
		if b.Ebs != nil && b.Ebs.SnapshotId != nil && aws.ToString(b.DeviceName) != aws.ToString(img.RootDeviceName) {
			further = append(further, aws.ToString(b.DeviceName))
		}
	}
	if len(further) > 0 {
		return root, 0, wire.Errorf("Unsupported", "Only images with a single volume can be exported: the image '%s' has volumes besides its root, from snapshots: %s.", *id, strings.Join(further, ", "))
	}
	for _, b := range img.BlockDeviceMappings {
		switch {
		case b.Ebs == nil || b.Ebs.SnapshotId == nil:
			continue
		case aws.ToBool(b.Ebs.Encrypted):
			return root, 0, wire.Errorf("Unsupported", "The image '%s' is encrypted; such images cannot be exported.", *id)
		}
		snap, err := s.copySource(c, img, *b.Ebs.SnapshotId)
		if err != nil {
			return root, 0, err
		}
		root, size = contents{layers: snap.Layers, base: snap.Base}, int64(*snap.VolumeSize)<<30
	}
	return root, size, nil
}

// export calls use with a disk image of an image's root, for a task.
func (s *Service) export(ctx context.Context, id string, root contents, size int64, use func(*os.File) error) error {
	release, err := s.opts.Images.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	if root.base != "" {
		if root.layers, err = s.opts.Images.Ensure(ctx, root.base, s.opts.Progress); err != nil {
			return err
		}
	}
	return s.opts.Images.ExportDisk(ctx, root.layers, size, s.progress.part(0, exportMade, id), use)
}

// The progress of a task when its disk has been made, and when its object is being completed.
const exportMade, exportUploaded = 70, 95

// uploading returns a function to call while the object of a task is written. It records the
// progress and fails if ctx has ended. When everything is written, it makes the task impossible to
// cancel.
func (s *Service) uploading(ctx context.Context, id string) func(done, of int64) error {
	report := s.progress.part(exportMade, exportUploaded, id)
	return func(done, of int64) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if report(done, of); done < of {
			return nil
		}
		return s.sealExport(id)
	}
}

// exportSealed is the message of a task whose object is being completed. Such a task can
// no longer be cancelled.
const exportSealed = "uploaded"

// sealExport makes a task impossible to cancel, or returns an error if it has been
// cancelled already.
func (s *Service) sealExport(id string) error {
	return s.update(func(st *state) error {
		if t, ok := st.exports.Get(id); !ok || *t.Status != importActive {
			return errExportCancelled
		}
		return st.exports.Edit(id, func(t *exportTask) {
			t.StatusMessage, t.Progress = aws.String(exportSealed), aws.String(strconv.Itoa(exportUploaded))
		})
	})
}

// end ends a task that has not been cancelled; err is why it failed, or nil.
func (t *exportTask) end(err error) {
	switch {
	case *t.Status != importActive:
	case err != nil:
		t.Status, t.StatusMessage, t.Progress = aws.String(importDeleted), aws.String("ClientError: "+wire.Message(err)), nil
	default:
		t.Status, t.StatusMessage, t.Progress = aws.String(importCompleted), nil, nil
	}
}

var exportFilters = filters{{"task-state", "Status"}}

// DescribeExportImageTasks lists the caller's tasks in the region.
func (s *state) DescribeExportImageTasks(ctx context.Context, in *ec2.DescribeExportImageTasksInput) (*ec2.DescribeExportImageTasksOutput, error) {
	rows := []types.ExportImageTask{}
	for _, t := range s.exports.of(wire.CallerFrom(ctx)) {
		row := t.ExportImageTask
		if percent, working := s.progress.percent(*row.ExportImageTaskId); working && *row.Status == importActive {
			row.Progress = aws.String(strconv.Itoa(int(percent)))
		}
		rows = append(rows, row)
	}
	rows, next, err := list(s, kindExport, query{in.ExportImageTaskIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeExportImageTasksOutput{ExportImageTasks: rows, NextToken: next}, err
}

// CancelExportTask cancels a running task; no object is created.
func (s *state) CancelExportTask(ctx context.Context, in *ec2.CancelExportTaskInput) (*ec2.CancelExportTaskOutput, error) {
	t, err := s.exports.find(wire.CallerFrom(ctx), in.ExportTaskId)
	if err != nil {
		return nil, err
	}
	switch {
	case *t.Status != importActive:
		return nil, wire.Errorf("IncorrectState", "The export task %s can no longer be cancelled: it is %s.", *t.ExportImageTaskId, *t.Status)
	case aws.ToString(t.StatusMessage) == exportSealed:
		return nil, wire.Errorf("IncorrectState", "The export task %s can no longer be cancelled: its object is being written.", *t.ExportImageTaskId)
	}
	err = s.exports.Edit(*t.ExportImageTaskId, func(t *exportTask) {
		t.Status, t.StatusMessage, t.Progress = aws.String(importDeleted), aws.String("cancelled by the user"), nil
	})
	if cancel := s.exporting[*t.ExportImageTaskId]; err == nil && cancel != nil {
		cancel(errExportCancelled)
	}
	return &ec2.CancelExportTaskOutput{}, err
}

// repairExports ends the tasks that a crash interrupted.
func (s *state) repairExports() error {
	for _, id := range s.exports.IDs() {
		if *s.exports.Rows[id].Status != importActive {
			continue
		}
		err := s.exports.Edit(id, func(t *exportTask) { t.end(errors.New("the embedded cloud was stopped during the export")) })
		if err != nil {
			return err
		}
	}
	return nil
}
