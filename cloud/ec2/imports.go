package ec2

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// importTask is a task that imports a disk image as an image.
type importTask struct {
	Region  string
	Account string
	Token   string // the client's token
	Request string // see instance
	types.ImportImageTask

	Format, Bucket, Key string
}

// The states of a task as DescribeImportImageTasks spells them.
const (
	importActive    = "active"
	importCompleted = "completed"
	importDeleted   = "deleted" // failed or cancelled
)

// importFormats are the formats of disk images that EC2 names. Not all of them are read.
var importFormats = []string{"OVA", "VHD", "VHDX", "VMDK", "RAW"}

// ImportImage starts to import a disk image from one of the caller's buckets.
func (s *state) ImportImage(ctx context.Context, in *ec2.ImportImageInput) (*ec2.ImportImageOutput, error) {
	c := wire.CallerFrom(ctx)
	task, err := s.newImportTask(c, in)
	if err != nil {
		return nil, err
	}
	for _, t := range s.imports.of(c) {
		if task.Token == "" || t.Token != task.Token {
			continue
		}
		if t.Request != task.Request {
			return nil, errTokenMisused()
		}
		return imported(t), nil
	}
	id := *task.ImportTaskId
	if err := s.imports.Put(id, task); err != nil {
		return nil, err
	}
	fail, active := failing(ctx), later(stuck(ctx), s.delays().Image)
	s.background(func(ctx context.Context, s *Service) {
		disk, err := s.importDisk(ctx, c, task)
		if err == nil {
			err = fail
		}
		if ctx.Err() != nil || s.opts.Clock.Sleep(ctx, active) != nil {
			return // the next Open records that the task was interrupted
		}
		s.log(id, "imported", s.update(func(st *state) error {
			if t, ok := st.imports.Get(id); !ok || aws.ToString(t.Status) != importActive {
				return nil // cancelled
			}
			return st.endImport(ctx, c, task, disk, err)
		}))
	})
	return imported(task), nil
}

func (s *state) newImportTask(c wire.Caller, in *ec2.ImportImageInput) (*importTask, error) {
	if len(in.DiskContainers) != 1 {
		return nil, wire.Errorf("InvalidParameter", "The embedded cloud imports a single disk, not %d.", len(in.DiskContainers))
	}
	d := in.DiskContainers[0]
	switch {
	case aws.ToString(in.Platform) != "" && !strings.EqualFold(*in.Platform, "linux"):
		return nil, wire.Errorf("Unsupported", "The embedded cloud runs Linux only, not %s.", *in.Platform)
	case !slices.Contains(importFormats, strings.ToUpper(aws.ToString(d.Format))):
		return nil, invalidValue("Value (%s) for parameter DiskContainer.Format is invalid. It must be %s.", aws.ToString(d.Format), strings.Join(importFormats, ", "))
	case d.UserBucket == nil || aws.ToString(d.UserBucket.S3Bucket) == "" || aws.ToString(d.UserBucket.S3Key) == "":
		return nil, missing("DiskContainer.UserBucket")
	}
	if err := needsEncrypted(in.KmsKeyId, in.Encrypted); err != nil {
		return nil, err
	}
	if err := checkDescription(in.Description); err != nil {
		return nil, err
	}
	task := &importTask{
		Region: c.Region, Account: c.Account, Token: aws.ToString(in.ClientToken), Request: fingerprint(in),
		Format: strings.ToLower(aws.ToString(d.Format)), Bucket: *d.UserBucket.S3Bucket, Key: *d.UserBucket.S3Key,
	}
	architecture := aws.ToString(in.Architecture)
	if architecture == "" {
		architecture = "x86_64"
	}
	task.ImportImageTask = types.ImportImageTask{
		ImportTaskId: aws.String(newID("import-ami")), Status: aws.String(importActive), StatusMessage: aws.String("pending"), Progress: aws.String("1"),
		Description: notEmpty(in.Description), Architecture: &architecture, BootMode: in.BootMode,
		LicenseType: notEmpty(in.LicenseType), Platform: aws.String("Linux"), Encrypted: in.Encrypted,
		SnapshotDetails: []types.SnapshotDetail{{Format: aws.String(strings.ToUpper(task.Format)),
			UserBucket: &types.UserBucketDetails{S3Bucket: &task.Bucket, S3Key: &task.Key}}},
	}
	if s.encrypts(c) {
		task.Encrypted = aws.Bool(true)
	}
	if aws.ToBool(task.Encrypted) {
		task.KmsKeyId = aws.String(s.ebsKey(c, aws.ToString(in.KmsKeyId)))
	}
	tags, err := tagsFor(in.TagSpecifications, kindImport.resource)
	task.Tags = tags[kindImport.resource]
	return task, err
}

func imported(t *importTask) *ec2.ImportImageOutput {
	return &ec2.ImportImageOutput{
		ImportTaskId: t.ImportTaskId, Status: t.Status, StatusMessage: t.StatusMessage, Progress: t.Progress, Description: t.Description,
		Architecture: t.Architecture, LicenseType: t.LicenseType, Platform: t.Platform, Encrypted: t.Encrypted, KmsKeyId: t.KmsKeyId,
		SnapshotDetails: t.SnapshotDetails, Tags: t.Tags,
	}
}

// importDisk makes a layer from the task's disk image.
func (s *Service) importDisk(ctx context.Context, c wire.Caller, t *importTask) (ImportedDisk, error) {
	f, err := s.opts.Objects.Get(c, t.Bucket, t.Key)
	if err != nil {
		return ImportedDisk{}, fmt.Errorf("ClientError: Disk validation failed [%w]", err)
	}
	defer f.Close()
	s.tell(t, "converting", "20")
	disk, err := s.opts.Images.ImportDisk(ctx, f, t.Format)
	if err != nil {
		return ImportedDisk{}, fmt.Errorf("ClientError: Disk validation failed [%w]", err)
	}
	s.tell(t, "preparing ami", "90")
	return disk, nil
}

// tell records the progress of a task.
func (s *Service) tell(t *importTask, message, percent string) {
	s.log(*t.ImportTaskId, message, s.update(func(st *state) error {
		return st.imports.Edit(*t.ImportTaskId, func(t *importTask) {
			if *t.Status == importActive {
				t.StatusMessage, t.Progress = &message, &percent
			}
		})
	}))
}

// endImport stores the imported image, or the error in failed.
func (s *state) endImport(ctx context.Context, c wire.Caller, t *importTask, disk ImportedDisk, failed error) error {
	id := *t.ImportTaskId
	if failed != nil {
		return s.imports.Edit(id, func(t *importTask) {
			t.Status, t.StatusMessage, t.Progress = aws.String(importDeleted), aws.String(wire.WithoutPaths(failed)), nil
		})
	}
	root, size := "/dev/sda1", int32(max(1, (disk.Size+1<<30-1)>>30))
	snap := s.newSnapshot(c, size, fmt.Sprintf("Created by AWS-VMImport service for %s", id), nil)
	snap.Layers, snap.Whole, snap.LoginUser, snap.RootDevice = []string{disk.Layer}, true, disk.User, root
	snap.Architecture = types.ArchitectureValues(*t.Architecture)
	if aws.ToBool(t.Encrypted) {
		snap.Encrypted, snap.KmsKeyId = t.Encrypted, t.KmsKeyId
	}
	img := newImage(c, id, s.now())
	img.State, img.RootDeviceName, img.LoginUser, img.Architecture, img.BootMode = types.ImageStateAvailable, &root, disk.User, snap.Architecture, t.BootMode
	img.Description = aws.String("AWS-VMImport service: Linux - imported from " + t.Bucket + "/" + t.Key)
	img.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: &root, Ebs: &types.EbsBlockDevice{
		SnapshotId: snap.SnapshotId, VolumeSize: &size, VolumeType: types.VolumeTypeGp2, DeleteOnTermination: aws.Bool(true), Encrypted: snap.Encrypted,
	}}}
	if err := s.addImage(ctx, img, []*snapshot{snap}); err != nil {
		return err
	}
	return errors.Join(s.complete(*snap.SnapshotId, nil), s.imports.Edit(id, func(t *importTask) {
		t.Status, t.StatusMessage, t.Progress, t.ImageId = aws.String(importCompleted), nil, nil, img.ImageId
		t.SnapshotDetails[0].DeviceName, t.SnapshotDetails[0].SnapshotId = &root, snap.SnapshotId
	}))
}

var importFilters = filters{{"task-state", "Status"}}

// DescribeImportImageTasks lists the caller's tasks in the region.
func (s *state) DescribeImportImageTasks(ctx context.Context, in *ec2.DescribeImportImageTasksInput) (*ec2.DescribeImportImageTasksOutput, error) {
	c := wire.CallerFrom(ctx)
	for _, id := range in.ImportTaskIds {
		if _, err := s.findImport(c, &id); err != nil {
			return nil, err
		}
	}
	var rows []types.ImportImageTask
	for _, t := range s.imports.of(c) {
		rows = append(rows, t.ImportImageTask)
	}
	rows, next, err := list(s, kindImport, query{in.ImportTaskIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeImportImageTasksOutput{ImportImageTasks: rows, NextToken: next}, err
}

// findImport returns one of the caller's tasks.
func (s *state) findImport(c wire.Caller, id *string) (*importTask, error) {
	t, ok := s.imports.Get(aws.ToString(id))
	if !ok || t.Account != c.Account || t.Region != c.Region {
		return nil, wire.Errorf("InvalidConversionTaskId", "No task with id %s was found.", aws.ToString(id))
	}
	return t, nil
}

// CancelImportTask cancels a running task.
func (s *state) CancelImportTask(ctx context.Context, in *ec2.CancelImportTaskInput) (*ec2.CancelImportTaskOutput, error) {
	t, err := s.findImport(wire.CallerFrom(ctx), in.ImportTaskId)
	if err != nil {
		return nil, err
	}
	was := *t.Status
	if was != importActive {
		return nil, wire.Errorf("InvalidConversionTaskId.Conflict", "The task %s is %s.", *t.ImportTaskId, was)
	}
	reason := aws.ToString(in.CancelReason)
	if reason == "" {
		reason = "cancelled by the user"
	}
	err = s.imports.Edit(*t.ImportTaskId, func(t *importTask) {
		t.Status, t.StatusMessage, t.Progress = aws.String(importDeleted), &reason, nil
	})
	return &ec2.CancelImportTaskOutput{ImportTaskId: t.ImportTaskId, PreviousState: &was, State: aws.String(importDeleted)}, err
}

// repairImports ends the tasks that a crash interrupted.
func (s *state) repairImports() error {
	for _, id := range s.imports.IDs() {
		err := s.imports.Edit(id, func(t *importTask) {
			if *t.Status == importActive {
				t.Status, t.Progress = aws.String(importDeleted), nil
				t.StatusMessage = aws.String("ServerError: the embedded cloud was stopped during the import")
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
