package cloud_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
			t.Fatal(out, err)
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
	img := madeWith(t, s, "web", "mine")
	out, err := client.CreateStoreImageTask(ctx, &ec2.CreateStoreImageTaskInput{ImageId: img.ImageId, Bucket: aws.String("images"), S3ObjectTags: []types.S3ObjectTag{{Key: aws.String("stage"), Value: aws.String("a & b")}}})
	if err != nil || *out.ObjectKey != *img.ImageId+".bin" {
		t.Fatal(out, err)
	}
	task := stored(t, client, img.ImageId)
	if *task.StoreTaskState != "Completed" || *task.ProgressPercentage != 100 || *task.Bucket != "images" || *task.S3objectKey != *out.ObjectKey || task.StoreTaskFailureReason != nil {
		t.Fatalf("%+v: %s", task, aws.ToString(task.StoreTaskFailureReason))
	}
	head, err := bucket.HeadObject(ctx, &s3.HeadObjectInput{Bucket: aws.String("images"), Key: out.ObjectKey})
	if err != nil || head.Metadata["ami-name"] != "web" || head.Metadata["ami-owner-account"] != *img.OwnerId || head.Metadata["ami-registration-date"] != *img.CreationDate {
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
			t.Fatal(change)
		}
		return strings.Replace(text, from, to, 1)
	}
	var empty bytes.Buffer
	if err := tar.NewWriter(&empty).Close(); err != nil {
		t.Fatal(err)
	}
	layer := empty.String()
	good := archive(t, "image.json", about("NAME => good"), "layers/0.tar", layer)
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
	if err != nil || len(after) > len(before)+1 { // the layer of a description that names more is collected
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
