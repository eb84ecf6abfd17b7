package ec2

import (
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/durable"
	"bake/cloud/wire"
)

// offers is an image store of which only Publications may be called.
type offers struct{ Images }

func (offers) Publications() ([]Publication, error) { return nil, nil }

// open accepts every object and stores nothing.
type open struct{ Objects }

func (open) Accepts(wire.Caller, string, string, http.Header) error { return nil }

// TestExportCancelledAtOnce checks that an export that is cancelled before its work starts makes no
// disk.
func TestExportCancelledAtOnce(t *testing.T) {
	caller := wire.Caller{Account: "111122223333", Region: "us-east-1"}
	ctx := wire.WithCaller(t.Context(), caller)
	e := &env{opts: Options{Dir: t.TempDir(), Clock: SystemClock{}, Images: offers{}, Objects: open{}, Wrote: func() {}}, ctx: t.Context()}
	e.slow.Store(&Delays{})
	var work []func(*Service)
	st, err := openState(e, func(f func(*Service)) { work = append(work, f) })
	if err != nil {
		t.Fatal(err)
	}
	img := newImage(caller, "web", st.now())
	img.State = types.ImageStateAvailable
	if err := st.images.Put(*img.ImageId, img); err != nil {
		t.Fatal(err)
	}
	out, err := st.ExportImage(ctx, &ec2.ExportImageInput{ImageId: img.ImageId, DiskImageFormat: types.DiskImageFormatRaw,
		S3ExportLocation: &types.ExportTaskS3LocationRequest{S3Bucket: aws.String("disks")}})
	if err != nil || len(work) != 1 {
		t.Fatalf("ExportImage = %+v, %v, want work for one export, not %d", out, err, len(work))
	}
	if _, err := st.CancelExportTask(ctx, &ec2.CancelExportTaskInput{ExportTaskId: out.ExportImageTaskId}); err != nil {
		t.Fatal(err)
	}
	work[0](&Service{env: e, guarded: durable.Guard(st)}) // would panic if it exported a disk
	if task := st.exports.Rows[*out.ExportImageTaskId]; *task.Status != importDeleted || *task.StatusMessage != "cancelled by the user" {
		t.Errorf("%+v", task.ExportImageTask)
	}
	if len(st.exporting) != 0 {
		t.Errorf("%d exports can be cancelled", len(st.exporting))
	}
	if err := st.exports.Edit(*out.ExportImageTaskId, func(t *exportTask) { t.Status, t.StatusMessage = aws.String(importActive), aws.String(exportSealed) }); err != nil {
		t.Fatal(err)
	}
	const sealed = "can no longer be cancelled: its object is being written."
	if _, err := st.CancelExportTask(ctx, &ec2.CancelExportTaskInput{ExportTaskId: out.ExportImageTaskId}); err == nil || !strings.HasSuffix(err.Error(), sealed) {
		t.Errorf("%v, want %s", err, sealed)
	}
}

// TestExportSingleVolume checks that the export of an image with more than one volume is refused,
// with the names of the others.
func TestExportSingleVolume(t *testing.T) {
	caller := wire.Caller{Account: "111122223333", Region: "us-east-1"}
	e := &env{opts: Options{Dir: t.TempDir(), Clock: SystemClock{}, Images: offers{}, Wrote: func() {}}, ctx: t.Context()}
	st, err := openState(e, nil)
	if err != nil {
		t.Fatal(err)
	}
	img := newImage(caller, "web", st.now())
	img.State, img.RootDeviceName = types.ImageStateAvailable, aws.String("/dev/sda1")
	for _, name := range []string{"/dev/sda1", "/dev/sdf", "/dev/sdg"} {
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, types.BlockDeviceMapping{DeviceName: aws.String(name), Ebs: &types.EbsBlockDevice{SnapshotId: aws.String("snap-0123456789abcdef0")}})
	}
	if err := st.images.Put(*img.ImageId, img); err != nil {
		t.Fatal(err)
	}
	const want = "has volumes besides its root, from snapshots: /dev/sdf, /dev/sdg."
	if _, _, err := st.exportable(caller, img.ImageId); err == nil || !strings.HasPrefix(wire.AsError(err).Message, "Only images with a single volume") || !strings.HasSuffix(wire.AsError(err).Message, want) {
		t.Errorf("%v, want %s", err, want)
	}
}
