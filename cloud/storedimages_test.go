package cloud_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// bucketNamed creates a bucket of the account default.
func bucketNamed(t *testing.T, s *cloudtest.Server, name string) *s3.Client {
	t.Helper()
	client := s3Client(s, 0, "us-east-1")
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatal(err)
	}
	return client
}

// madeWith makes an image of a machine that has a file.
func madeWith(t *testing.T, s *cloudtest.Server, name, file string) types.Image {
	t.Helper()
	client := s.EC2("default", "us-east-1")
	id := *run(t, client, ec2.RunInstancesInput{}).InstanceId
	if err := writeDisk(s, id, file); err != nil {
		t.Fatal(err)
	}
	out, err := client.CreateImage(t.Context(), &ec2.CreateImageInput{InstanceId: &id, Name: &name, Description: aws.String("with " + file), NoReboot: aws.Bool(true), TagSpecifications: []types.TagSpecification{
		{ResourceType: "image", Tags: []types.Tag{{Key: aws.String("Team"), Value: aws.String("web")}}}}})
	if err != nil {
		t.Fatal(err)
	}
	return awaitImage(t, client, *out.ImageId)
}

// stored waits until a task that stores an image has ended.
func stored(t *testing.T, client *ec2.Client, ami *string) (task types.StoreImageTaskResult) {
	t.Helper()
	eventually(t, "the task to end", func() bool {
		out, err := client.DescribeStoreImageTasks(t.Context(), &ec2.DescribeStoreImageTasksInput{ImageIds: []string{*ami}})
		if err != nil || len(out.StoreImageTaskResults) == 0 {
			t.Fatalf("DescribeStoreImageTasks = %+v, %v, want a task", out, err)
		}
		task = out.StoreImageTaskResults[0]
		return *task.StoreTaskState != "InProgress"
	})
	return task
}

// imageOf waits until an image is no longer pending.
func imageOf(t *testing.T, client *ec2.Client, id *string) (img types.Image) {
	t.Helper()
	eventually(t, "the image to be there or not", func() bool {
		out, err := client.DescribeImages(t.Context(), &ec2.DescribeImagesInput{ImageIds: []string{*id}})
		if err != nil {
			t.Fatal(err)
		}
		img = out.Images[0]
		return img.State != types.ImageStatePending
	})
	return img
}

// TestStoreImage stores an image in a bucket as one object, with the metadata that S3
// shows, and restores it under another name with everything that it had.
func TestStoreImage(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, other, ctx := s.EC2("default", "us-east-1"), s.EC2("other", "us-east-1"), t.Context()
	bucket := bucketNamed(t, s, "images")
	img := madeWith(t, s, "ubuntu/images/web (1)", "mine")
	out, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images"), S3ObjectTags: []types.S3ObjectTag{{Key: aws.String("stage"), Value: aws.String("a & b")}}})
	if err != nil || *out.ObjectKey != *img.ImageId+".bin" {
		t.Fatalf("CreateStoreImageTask = %+v, %v, want the key %s.bin", out, err, *img.ImageId)
	}
	task := stored(t, client, img.ImageId)
	if *task.StoreTaskState != "Completed" || *task.ProgressPercentage != 100 || *task.Bucket != "images" || *task.S3objectKey != *out.ObjectKey || task.StoreTaskFailureReason != nil {
		t.Fatalf("%+v: %s", task, aws.ToString(task.StoreTaskFailureReason))
	}
	head, err := bucket.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("images"), Key: out.ObjectKey})
	if err != nil || head.Metadata["ami-name"] != "ubuntu/images/web (1)" || head.Metadata["ami-owner-account"] != *img.OwnerId || head.Metadata["ami-registration-date"] != *img.CreationDate {
		t.Errorf("%+v, %v", head, err)
	}
	tagged, err := bucket.GetObjectTagging(ctx, &s3.GetObjectTaggingInput{Bucket: aws.String("images"), Key: out.ObjectKey})
	if err != nil || len(tagged.TagSet) != 1 || *tagged.TagSet[0].Key != "stage" || *tagged.TagSet[0].Value != "a & b" {
		t.Errorf("%+v, %v", tagged, err)
	}
	restore := &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: out.ObjectKey}
	if _, err := client.CreateRestoreImageTask(ctx, restore); code(err) != "InvalidAMIName.Duplicate" {
		t.Errorf("the same name: %v", err)
	}
	restore.Name, restore.TagSpecifications = aws.String("web-again"), []types.TagSpecification{{ResourceType: "snapshot", Tags: []types.Tag{{Key: aws.String("from"), Value: aws.String("s3")}}}}
	if _, err := other.CreateRestoreImageTask(ctx, restore); code(err) != "InvalidParameterValue" {
		t.Errorf("another account: %v", err)
	}
	restored, err := client.CreateRestoreImageTask(ctx, restore)
	if err != nil {
		t.Fatal(err)
	}
	again := awaitImage(t, client, *restored.ImageId)
	if *again.Name != "web-again" || *again.Description != "with mine" || again.Architecture != img.Architecture || *again.RootDeviceName != *img.RootDeviceName ||
		len(again.BlockDeviceMappings) != len(img.BlockDeviceMappings) || !slices.ContainsFunc(again.Tags, func(tag types.Tag) bool { return *tag.Key == "Team" && *tag.Value == "web" }) {
		t.Errorf("restored: %+v", again)
	}
	snapshots, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{Filters: []types.Filter{{Name: aws.String("tag:from"), Values: []string{"s3"}}}})
	if err != nil || len(snapshots.Snapshots) != 1 || *snapshots.Snapshots[0].SnapshotId != *again.BlockDeviceMappings[0].Ebs.SnapshotId {
		t.Errorf("snapshots: %+v, %v", snapshots, err)
	}
	if id := *run(t, client, ec2.RunInstancesInput{ImageId: restored.ImageId}).InstanceId; !holds(s, id, "mine") {
		t.Error("a machine of the restored image lacks the file")
	}
	for want, in := range map[string]*ec2.CreateStoreImageTaskInput{
		"AuthFailure":           {ImageId: aws.String(source(t, client)), Bucket: aws.String("images")},
		"InvalidParameterValue": {ImageId: img.ImageId, Bucket: aws.String("nowhere")},
		"InvalidAMIID.NotFound": {ImageId: aws.String("ami-0123456789abcdef0"), Bucket: aws.String("images")},
	} {
		if _, err := client.CreateStoreImageTask(ctx, in); code(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
	list, err := client.DescribeStoreImageTasks(ctx, &ec2.DescribeStoreImageTasksInput{Filters: []types.Filter{{Name: aws.String("task-state"), Values: []string{"Completed"}}, {Name: aws.String("bucket"), Values: []string{"images"}}}})
	if err != nil || len(list.StoreImageTaskResults) != 1 {
		t.Errorf("tasks: %+v, %v", list, err)
	}
}

// TestStoredDescriptions checks that everything that an image can have survives storing and
// restoring, and that anything else is rejected when the image is made.
func TestStoredDescriptions(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucket := bucketNamed(t, s, "images")
	img := madeWith(t, s, "web", "mine")
	snapshot := img.BlockDeviceMappings[0].Ebs.SnapshotId
	longest, more := strings.Repeat("ü", 255), aws.String(strings.Repeat("u", 256))
	devices := func(name string, more ...types.BlockDeviceMapping) *ec2.RegisterImageInput {
		return &ec2.RegisterImageInput{Name: aws.String("registered"), RootDeviceName: &name,
			BlockDeviceMappings: append(more, types.BlockDeviceMapping{DeviceName: &name, Ebs: &types.EbsBlockDevice{SnapshotId: snapshot}})}
	}
	refused := map[string]error{}
	_, refused["CopyImage"] = client.CopyImage(ctx, &ec2.CopyImageInput{Name: aws.String("copy"), SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), Description: more})
	_, refused["ModifyImageAttribute"] = client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: img.ImageId, Description: &types.AttributeValue{Value: more}})
	_, refused["CopySnapshot"] = client.CopySnapshot(ctx, &ec2.CopySnapshotInput{SourceSnapshotId: snapshot, SourceRegion: aws.String("us-east-1"), Description: more})
	_, refused["RegisterImage"] = client.RegisterImage(ctx, &ec2.RegisterImageInput{Name: aws.String("registered"), RootDeviceName: aws.String("/dev/xvda"), Description: more})
	for action, err := range refused {
		if code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "longer than 255 characters") {
			t.Errorf("%s with a description of 256 characters: %v", action, err)
		}
	}
	if _, err := client.RegisterImage(ctx, devices("/dev/../../x")); code(err) != "InvalidBlockDeviceMapping" {
		t.Errorf("a device that is none: %v", err)
	}
	odd, err := client.RegisterImage(ctx, devices("/dev/xvda", types.BlockDeviceMapping{DeviceName: aws.String("/dev/xvdb"), VirtualName: aws.String(strings.Repeat("ephemeral", 9))}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: odd.ImageId, Bucket: aws.String("images")}); code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "cannot be stored") {
		t.Errorf("what cannot be restored: %v", err)
	}
	if _, err := client.ModifyImageAttribute(ctx, &ec2.ModifyImageAttributeInput{ImageId: img.ImageId, Description: &types.AttributeValue{Value: &longest}}); err != nil {
		t.Fatal(err)
	}
	out, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images")})
	if err != nil {
		t.Fatal(err)
	}
	stored(t, client, img.ImageId)
	head, err := bucket.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("images"), Key: out.ObjectKey})
	if err != nil || head.Metadata["ami-description"] != strings.Repeat("%C3%BC", 255) {
		t.Errorf("%+v, %v", head.Metadata, err)
	}
	restored, err := client.CreateRestoreImageTask(ctx, &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: out.ObjectKey, Name: aws.String("again")})
	if err != nil {
		t.Fatal(err)
	}
	if again := awaitImage(t, client, *restored.ImageId); *again.Description != longest {
		t.Errorf("described as %q", *again.Description)
	}
}

// TestStoredTags checks that an image or snapshot cannot get more tags than the limit by inheriting
// tags.
func TestStoredTags(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucketNamed(t, s, "images")
	img := madeWith(t, s, "web", "mine")
	many := []types.Tag{}
	for i := range 49 {
		many = append(many, types.Tag{Key: aws.String(fmt.Sprint("k", i)), Value: aws.String("v")})
	}
	if _, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*img.ImageId}, Tags: many}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CreateTags(ctx, &ec2.CreateTagsInput{Resources: []string{*img.BlockDeviceMappings[0].Ebs.SnapshotId}, Tags: many}); err != nil {
		t.Fatal(err)
	}
	out, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images")})
	if err != nil {
		t.Fatal(err)
	}
	stored(t, client, img.ImageId)
	tags := func(kind types.ResourceType, keys ...string) (spec []types.TagSpecification) {
		spec = []types.TagSpecification{{ResourceType: kind}}
		for _, key := range keys {
			spec[0].Tags = append(spec[0].Tags, types.Tag{Key: &key, Value: aws.String("v")})
		}
		return spec
	}
	for name, test := range map[string]struct {
		tags []types.TagSpecification
		want string
	}{
		"an-image":   {tags("image", "k1", "more"), "TagLimitExceeded"},
		"a-snapshot": {tags("snapshot", "k1", "more", "yet-more"), "TagLimitExceeded"},
		"the-same":   {tags("image", "k1"), ""},
	} {
		restore := &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: out.ObjectKey, Name: aws.String(name), TagSpecifications: test.tags}
		if _, err := client.CreateRestoreImageTask(ctx, restore); code(err) != test.want {
			t.Errorf("restoring %s: %v", name, err)
		}
		if test.tags[0].ResourceType == "snapshot" {
			continue
		}
		copies := &ec2.CopyImageInput{SourceImageId: img.ImageId, SourceRegion: aws.String("us-east-1"), CopyImageTags: aws.Bool(true), Name: aws.String("copy-" + name), TagSpecifications: test.tags}
		if _, err := client.CopyImage(ctx, copies); code(err) != test.want {
			t.Errorf("copying %s: %v", name, err)
		}
	}
}

// TestStoreTaskPages checks paging of tasks that were started in the same second.
func TestStoreTaskPages(t *testing.T) {
	now := time.Now()
	s := cloudtest.Start(t, cloud.Options{Clock: clock{now: func() time.Time { return now }}})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucketNamed(t, s, "images")
	img := madeWith(t, s, "web", "mine")
	const tasks = 3
	for range tasks {
		if _, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images")}); err != nil {
			t.Fatal(err)
		}
	}
	shown := 0
	for in := (&ec2.DescribeStoreImageTasksInput{MaxResults: aws.Int32(1)}); shown <= tasks; {
		out, err := client.DescribeStoreImageTasks(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		shown += len(out.StoreImageTaskResults)
		if in.NextToken = out.NextToken; in.NextToken == nil {
			break
		}
	}
	if shown != tasks {
		t.Errorf("%d tasks are shown of %d", shown, tasks)
	}
}

// deleting deletes an image and its snapshots just before its layers are read, and records whether
// the layers could be collected then.
type deleting struct {
	*cloudtest.Images
	inUse  atomic.Pointer[func() (layers, bases []string)]
	delete func() error
	free   atomic.Pointer[string] // a layer that could be collected
}

func (d *deleting) Collect(_ context.Context, inUse func() (layers, bases []string)) error {
	d.inUse.Store(&inUse)
	return nil
}

// used reports whether a layer may not be collected.
func (d *deleting) used(layer string) bool {
	layers, _ := (*d.inUse.Load())()
	return slices.Contains(layers, layer)
}

func (d *deleting) reads(layers []string) error {
	if err := d.delete(); err != nil {
		return err
	}
	for _, id := range layers {
		if !d.used(id) && !strings.HasPrefix(id, "base-") {
			d.free.Store(&id)
		}
	}
	return nil
}

func (d *deleting) StoreImage(ctx context.Context, w io.Writer, about []byte, layers []string, report func(done, of int64)) error {
	return errors.Join(d.reads(layers), d.Images.StoreImage(ctx, w, about, layers, report))
}

func (d *deleting) ExportDisk(ctx context.Context, layers []string, size int64, report func(done, of int64), use func(*os.File) error) error {
	return errors.Join(d.reads(layers), d.Images.ExportDisk(ctx, layers, size, report, use))
}

// TestTasksKeepLayers checks that the layers of an image that is being stored or exported are kept
// until the task has ended, even if the image and its snapshots are deleted.
func TestTasksKeepLayers(t *testing.T) {
	d := &deleting{Images: cloudtest.NewImages(t.TempDir())}
	s := cloudtest.Start(t, cloud.Options{Images: d})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucketNamed(t, s, "disks")
	eventually(t, "layers to be collected", func() bool { return d.inUse.Load() != nil })
	for name, read := range map[string]func(ami *string) (ended bool){
		"stored": func(ami *string) bool {
			if _, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: ami, Bucket: aws.String("disks")}); err != nil {
				t.Fatal(err)
			}
			return *stored(t, client, ami).StoreTaskState == "Completed"
		},
		"exported": func(ami *string) bool {
			out, err := client.ExportImage(ctx, exporting(ami))
			if err != nil {
				t.Fatal(err)
			}
			return *exported(t, client, out.ExportImageTaskId).Status == "completed"
		},
	} {
		made := len(d.layersInUse())
		img := madeWith(t, s, name, "mine")
		before := d.layersInUse()
		if len(before) <= made {
			t.Fatalf("%s: an image brings no layers: %d, then %d", name, made, len(before))
		}
		d.delete = func() error {
			_, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)})
			return err
		}
		if !read(img.ImageId) {
			t.Errorf("the image is not %s", name)
		}
		if id := d.free.Load(); id != nil {
			t.Errorf("the layer %s may be collected while it is %s", *id, name)
		}
		eventually(t, "the layers to be let go", func() bool { return len(d.layersInUse()) < len(before) })
	}
}

func (d *deleting) layersInUse() []string { layers, _ := (*d.inUse.Load())(); return layers }

// TestStoreImageFails checks that no object exists after any failure to store an image.
func TestStoreImageFails(t *testing.T) {
	for name, wrong := range map[string]func(*testing.T, *cloudtest.Server, *s3.Client){
		"a layer": func(_ *testing.T, s *cloudtest.Server, _ *s3.Client) {
			s.Images.Storing = func() error { return errors.New("cannot be read") }
		},
		"the bucket": func(t *testing.T, s *cloudtest.Server, client *s3.Client) {
			s.Images.Storing = func() error {
				_, err := client.DeleteBucket(t.Context(), &s3.DeleteBucketInput{Bucket: aws.String("images")})
				return err
			}
		},
		"a rule": func(*testing.T, *cloudtest.Server, *s3.Client) {},
	} {
		t.Run(name, func(t *testing.T) {
			var rules []cloud.Fault
			if name == "a rule" {
				rules = []cloud.Fault{{Action: "CreateStoreImageTask", Effect: "fail", Message: "no room"}}
			}
			s := rehearse(t, cloud.Options{}, rules...)
			client, ctx := s.EC2("default", "us-east-1"), t.Context()
			bucket := bucketNamed(t, s, "images")
			img := madeWith(t, s, "web", "mine")
			wrong(t, s, bucket)
			if _, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images")}); err != nil {
				t.Fatal(err)
			}
			if task := stored(t, client, img.ImageId); *task.StoreTaskState != "Failed" || aws.ToString(task.StoreTaskFailureReason) == "" {
				t.Errorf("%+v", task)
			}
			list, err := bucket.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: aws.String("images")})
			if err == nil && len(list.Contents) != 0 {
				t.Errorf("the bucket holds %+v", list.Contents)
			}
		})
	}
}

// archive returns a stored image with these entries: names and contents in alternation.
func archive(t *testing.T, entries ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for i := 0; i < len(entries); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: entries[i], Mode: 0o600, Size: int64(len(entries[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, entries[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRestoreHostile checks that hostile objects are refused at once, or that the image
// fails and no layer remains.
func TestRestoreHostile(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s.EC2("default", "us-east-1"), t.Context()
	bucket := bucketNamed(t, s, "images")
	about := func(change string) string {
		text := `{"Form": "bake image 1", "Name": "NAME", "RootDevice": "/dev/xvda", "Arch": "x86_64", "Devices": [{"Mapping": {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 8, "VolumeType": "gp3"}}, "Snapshot": {"Size": 8, "Layers": [0]}}]}`
		from, to, _ := strings.Cut(change, " => ")
		if !strings.Contains(text, from) {
			t.Fatalf("%q is not in the description: %s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	var empty bytes.Buffer
	if err := tar.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	layer := empty.String()
	device := func(fields string) string {
		return about(`"Ebs": {"VolumeSize": 8, "VolumeType": "gp3"} => ` + fields)
	}
	good := archive(t, "image.json", about("NAME => good"), "layers/0.tar", layer)
	data := archive(t, "image.json", strings.Replace(device(`"NoDevice": "", "VirtualName": "ephemeral7", "Ebs": {"VolumeSize": 8, "AvailabilityZone": "us-east-1a", "VolumeInitializationRate": 300}`), "NAME", "fields", 1), "layers/0.tar", layer)
	if _, err := bucket.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("images"), Key: aws.String("fields.bin"), Body: bytes.NewReader(data)}); err != nil {
		t.Fatal(err)
	}
	fields, err := client.CreateRestoreImageTask(ctx, &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: aws.String("fields.bin")})
	if err != nil {
		t.Fatal(err)
	}
	img := awaitImage(t, client, *fields.ImageId)
	if b := img.BlockDeviceMappings[0]; b.NoDevice != nil || b.VirtualName != nil || b.Ebs.AvailabilityZone != nil || b.Ebs.VolumeInitializationRate != nil || b.Ebs.VolumeType != "gp2" || !*b.Ebs.DeleteOnTermination {
		t.Errorf("a device has what it was not checked for: %+v, %+v", b, b.Ebs)
	}
	if _, err := client.DeregisterImage(ctx, &ec2.DeregisterImageInput{ImageId: img.ImageId, DeleteAssociatedSnapshots: aws.Bool(true)}); err != nil {
		t.Fatal(err)
	}
	before, err := s.Images.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"nothing":                nil,
		"text":                   []byte("no image"),
		"no description":         archive(t, "layers/0.tar", layer),
		"no JSON":                archive(t, "image.json", "x", "layers/0.tar", layer),
		"another form":           archive(t, "image.json", about("image 1 => image 9"), "layers/0.tar", layer),
		"a large description":    archive(t, "image.json", about("NAME => large")+strings.Repeat(" ", 2<<20)),
		"a name":                 archive(t, "image.json", about("NAME => ../../x;"), "layers/0.tar", layer),
		"a user":                 archive(t, "image.json", about(`"Arch" => "LoginUser": "a:0:0\n", "Arch"`), "layers/0.tar", layer),
		"an architecture":        archive(t, "image.json", about("x86_64 => vax"), "layers/0.tar", layer),
		"a boot mode":            archive(t, "image.json", about(`"Arch" => "BootMode": "magic", "Arch"`), "layers/0.tar", layer),
		"no root":                archive(t, "image.json", about("/dev/xvda => /dev/xvdb"), "layers/0.tar", layer),
		"a device":               archive(t, "image.json", strings.ReplaceAll(about("NAME => x"), "/dev/xvda", "/dev/../../x"), "layers/0.tar", layer),
		"a size":                 archive(t, "image.json", about(`"VolumeSize": 8 => "VolumeSize": 99999999`), "layers/0.tar", layer),
		"a larger snapshot":      archive(t, "image.json", about(`"Size": 8, "L => "Size": 9, "L`), "layers/0.tar", layer),
		"no Ebs":                 archive(t, "image.json", about(`"Ebs": {"VolumeSize": 8, "VolumeType": "gp3"} => "VirtualName": "ephemeral0"`), "layers/0.tar", layer),
		"somebody's snapshot":    archive(t, "image.json", about(`"VolumeSize" => "SnapshotId": "snap-0123456789abcdef0", "VolumeSize"`), "layers/0.tar", layer),
		"a layer below zero":     archive(t, "image.json", about("[0] => [-1]"), "layers/0.tar", layer),
		"a layer twice":          archive(t, "image.json", about("[0] => [0, 0]"), "layers/0.tar", layer),
		"a reserved tag":         archive(t, "image.json", about(`"Arch" => "Tags": [{"Key": "aws:x"}], "Arch"`), "layers/0.tar", layer),
		"a tag without a key":    archive(t, "image.json", about(`"Arch" => "Tags": [{}], "Arch"`), "layers/0.tar", layer),
		"half: a layer lacks":    archive(t, "image.json", about("[0] => [0, 7]"), "layers/0.tar", layer),
		"half: another entry":    archive(t, "image.json", about("NAME => another"), "layers/0.tar", layer, "../x", layer),
		"half: no archive":       archive(t, "image.json", about("NAME => none"), "layers/0.tar", strings.Repeat("x", 1024)),
		"half: cut off":          good[:len(good)-20],
		"half: what is not read": append(slices.Clone(good), "more"...),
	} {
		if _, err := bucket.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("images"), Key: aws.String("x.bin"), Body: bytes.NewReader(data)}); err != nil {
			t.Fatal(err)
		}
		in := &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: aws.String("x.bin")}
		if strings.HasPrefix(name, "half: ") {
			in.Name = aws.String(strings.NewReplacer(":", "", " ", "-").Replace(name))
		}
		out, err := client.CreateRestoreImageTask(ctx, in)
		if in.Name == nil {
			if code(err) != "InvalidParameterValue" {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if img := imageOf(t, client, out.ImageId); img.State != types.ImageStateFailed || img.StateReason == nil {
			t.Errorf("%s: the image is %s", name, img.State)
		}
	}
	after, err := s.Images.Layers()
	if err != nil || len(after) > len(before)+1 { // extra layers of an invalid object are collected
		t.Errorf("layers: %v, then %v, %v", before, after, err)
	}
	images, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: []types.Filter{{Name: aws.String("state"), Values: []string{"available", "pending"}}}})
	if err != nil || len(images.Images) != 0 {
		t.Errorf("images: %+v, %v", images.Images, err)
	}
}

// TestStoreImageCrash checks that after a crash at any point of storing or restoring an
// image nothing is half done: tasks have ended, objects are complete, and images are
// either available with their content or do not exist.
func TestStoreImageCrash(t *testing.T) {
	dir, copies := t.TempDir(), t.TempDir()
	taking, n := false, 0
	opts := cloud.Options{Dir: filepath.Join(dir, "cloud"), Wrote: func() {
		if taking {
			n++
			if err := os.CopyFS(filepath.Join(copies, fmt.Sprint(n)), os.DirFS(filepath.Join(dir, "cloud"))); err != nil {
				t.Error(err)
			}
		}
	}}
	var ami, key *string
	serveOnce(t, opts, func(s *cloudtest.Server) {
		client, ctx := s.EC2("default", "us-east-1"), t.Context()
		bucketNamed(t, s, "images")
		img := madeWith(t, s, "web", "mine")
		for _, id := range instanceIDs(t, client) {
			await(t, client, id, types.InstanceStateNameRunning)
			if _, err := client.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}}); err != nil {
				t.Fatal(err)
			}
			await(t, client, id, types.InstanceStateNameTerminated)
		}
		taking, ami = true, img.ImageId
		out, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: ami, Bucket: aws.String("images")})
		if err != nil {
			t.Fatal(err)
		}
		key = out.ObjectKey
		stored(t, client, ami)
		restored, err := client.CreateRestoreImageTask(ctx, &ec2.CreateRestoreImageTaskInput{Bucket: aws.String("images"), ObjectKey: key, Name: aws.String("again")})
		if err != nil {
			t.Fatal(err)
		}
		awaitImage(t, client, *restored.ImageId)
		taking = false
	})
	if n < 6 {
		t.Fatalf("the state was written %d times", n)
	}
	ended, available := map[string]int{}, 0
	for i := range n {
		serveOnce(t, cloud.Options{Dir: filepath.Join(copies, fmt.Sprint(i+1))}, func(s *cloudtest.Server) {
			client, ctx := s.EC2("default", "us-east-1"), t.Context()
			tasks, err := client.DescribeStoreImageTasks(ctx, &ec2.DescribeStoreImageTasksInput{})
			if err != nil || len(tasks.StoreImageTaskResults) != 1 {
				t.Fatalf("after write %d: %+v, %v", i+1, tasks, err)
			}
			ended[*tasks.StoreImageTaskResults[0].StoreTaskState]++
			images, err := client.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"self"}})
			if err != nil {
				t.Fatal(err)
			}
			snapshots, err := client.DescribeSnapshots(ctx, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}})
			if err != nil || len(snapshots.Snapshots) != len(images.Images) {
				t.Errorf("after write %d: %d images and %d snapshots, %v", i+1, len(images.Images), len(snapshots.Snapshots), err)
			}
			for _, img := range images.Images {
				if img.State != types.ImageStateAvailable {
					t.Errorf("after write %d: %s is %s", i+1, *img.Name, img.State)
				}
				if *img.Name == "again" {
					available++
					if id := *run(t, client, ec2.RunInstancesInput{ImageId: img.ImageId}).InstanceId; !holds(s, id, "mine") {
						t.Errorf("after write %d: the restored image lacks the file", i+1)
					}
				}
			}
			// An interrupted task can be started again.
			if _, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: ami, Bucket: aws.String("images")}); err != nil {
				t.Errorf("after write %d: %v", i+1, err)
			}
		})
	}
	if ended["InProgress"] != 0 || ended["Failed"] == 0 || ended["Completed"] == 0 || available == 0 || available == n {
		t.Errorf("tasks %v, restored %d of %d times", ended, available, n)
	}
}

// instanceIDs returns the ids of the caller's instances.
func instanceIDs(t *testing.T, client *ec2.Client) (ids []string) {
	t.Helper()
	out, err := client.DescribeInstances(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			ids = append(ids, *i.InstanceId)
		}
	}
	return ids
}
