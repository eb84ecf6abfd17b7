package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/pipe"
	"bake/cloud/wire"
)

// storeTask is a task that stores an image in a bucket.
type storeTask struct {
	Region  string
	Account string
	types.StoreImageTaskResult
}

// The states of a task as DescribeStoreImageTasks spells them, and how long a task is
// described.
const (
	storeInProgress = "InProgress"
	storeCompleted  = "Completed"
	storeFailed     = "Failed"

	storeTaskAge = 31 * 24 * time.Hour
)

// storedForm is the value of a [storedImage]'s form.
const storedForm = "bake image 1"

// storedImage is the description of an image in a bucket. It is untrusted: anyone who can
// write to the bucket may have written it.
type storedImage struct {
	Form        string
	Name        string
	Description string
	LoginUser   string
	RootDevice  string
	Arch        types.ArchitectureValues
	BootMode    types.BootModeValues
	TpmSupport  types.TpmSupportValues
	ImdsSupport types.ImdsSupportValues
	EnaSupport  bool
	Sriov       string
	Tags        []types.Tag
	Devices     []storedDevice
}

// storedDevice is a device of a stored image.
type storedDevice struct {
	Mapping  types.BlockDeviceMapping // without a snapshot and encryption
	Snapshot *storedSnapshot
}

// storedSnapshot is a snapshot of a stored image.
type storedSnapshot struct {
	Size        int32 // in GiB
	Description string
	Tags        []types.Tag
	Layers      []int // indexes into the image's layers, topmost first
}

// CreateStoreImageTask starts to store an image in a bucket, as one object.
func (s *state) CreateStoreImageTask(ctx context.Context, in *ec2.CreateStoreImageTaskInput) (*ec2.CreateStoreImageTaskOutput, error) {
	c, bucket := wire.CallerFrom(ctx), aws.ToString(in.Bucket)
	img, err := s.usableImage(c, in.ImageId)
	if err != nil {
		return nil, err
	}
	if *img.OwnerId != c.Account && !s.permitted(img, c.Account) {
		return nil, wire.Errorf("AuthFailure", "The image '%s' belongs to another account and is only shared publicly: such images cannot be stored.", *img.ImageId)
	}
	key, header := *img.ImageId+".bin", s.storedHeader(img, in.S3ObjectTags)
	about, sources, err := s.toStore(c, img)
	if err != nil {
		return nil, err
	}
	if err := s.opts.Objects.Accepts(c, bucket, key, header); err != nil {
		return nil, invalidValue("The object '%s' cannot be put into the bucket '%s': %s", key, bucket, wire.Message(err))
	}
	if err := s.forgetStoreTasks(); err != nil {
		return nil, err
	}
	id, now := newID("store"), s.now()
	err = s.stores.Put(id, &storeTask{c.Region, c.Account, types.StoreImageTaskResult{AmiId: img.ImageId, Bucket: &bucket, S3objectKey: &key,
		StoreTaskState: aws.String(storeInProgress), ProgressPercentage: aws.Int32(0), TaskStartTime: &now}})
	if err != nil {
		return nil, err
	}
	s.keep(id, sources...)
	fail, active := failing(ctx), later(stuck(ctx), s.delays().Image)
	s.background(func(ctx context.Context, s *Service) {
		defer s.release(id)
		defer s.progress.ended(id)
		if s.opts.Clock.Sleep(ctx, active) != nil {
			return // the next Open records that the task was interrupted
		}
		err := fail
		if err == nil {
			err = s.storeImage(ctx, id, about, sources, func(content io.Reader) error { return s.opts.Objects.Store(c, bucket, key, header, content) })
		}
		if ctx.Err() != nil && err != nil {
			return
		}
		s.log(id, "store", err)
		s.log(id, "stored", s.update(func(st *state) error { return st.stores.Edit(id, func(t *storeTask) { t.end(err) }) }))
	})
	return &ec2.CreateStoreImageTaskOutput{ObjectKey: &key}, nil
}

// end ends a task; err, if not nil, is why it failed.
func (t *storeTask) end(err error) {
	if err != nil {
		t.StoreTaskState, t.StoreTaskFailureReason = aws.String(storeFailed), aws.String(wire.Message(err))
		return
	}
	t.StoreTaskState, t.ProgressPercentage = aws.String(storeCompleted), aws.Int32(100)
}

// storedHeader returns the headers of the object: its tags and the image's metadata that
// S3 shows.
func (s *state) storedHeader(img *image, tags []types.S3ObjectTag) http.Header {
	all := url.Values{}
	for _, t := range tags {
		all.Add(aws.ToString(t.Key), aws.ToString(t.Value))
	}
	header := http.Header{}
	header.Set("Content-Type", "application/octet-stream")
	for name, value := range map[string]string{"Name": *img.Name, "Description": aws.ToString(img.Description), "Registration-Date": *img.CreationDate,
		"Owner-Account": *img.OwnerId, "Store-Date": s.now().Format(timeForm)} {
		if value != "" {
			header.Set("X-Amz-Meta-Ami-"+name, asciiText(value))
		}
	}
	if len(all) > 0 {
		header.Set("X-Amz-Tagging", all.Encode())
	}
	return header
}

// asciiText returns a text for a header: all but printable ASCII is percent-encoded.
func asciiText(text string) string {
	var out strings.Builder
	for _, c := range []byte(text) {
		if c >= ' ' && c <= '~' {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

// toStore returns the description of an image to store, and the contents of its snapshots. It
// reports an image that could not be restored.
func (s *state) toStore(c wire.Caller, img *image) (storedImage, []contents, error) {
	out := storedImage{Form: storedForm, Name: *img.Name, Description: aws.ToString(img.Description), LoginUser: img.LoginUser, RootDevice: aws.ToString(img.RootDeviceName),
		Arch: img.Architecture, BootMode: img.BootMode, TpmSupport: img.TpmSupport, ImdsSupport: img.ImdsSupport, EnaSupport: aws.ToBool(img.EnaSupport),
		Sriov: aws.ToString(img.SriovNetSupport), Tags: s.tagsOn(c, *img.ImageId, *img.OwnerId, img.Tags)}
	var sources []contents
	for _, b := range img.BlockDeviceMappings {
		d := storedDevice{Mapping: b}
		if b.Ebs != nil {
			ebs := *b.Ebs
			ebs.SnapshotId, ebs.Encrypted, ebs.KmsKeyId = nil, nil, nil
			d.Mapping.Ebs = &ebs
		}
		if b.Ebs != nil && b.Ebs.SnapshotId != nil {
			snap, err := s.copySource(c, img, *b.Ebs.SnapshotId)
			if err != nil {
				return out, nil, err
			}
			d.Snapshot = &storedSnapshot{Size: *snap.VolumeSize, Description: aws.ToString(snap.Description), Tags: s.tagsOn(c, *b.Ebs.SnapshotId, *img.OwnerId, snap.Tags)}
			sources = append(sources, contents{layers: snap.Layers, base: snap.Base})
		}
		out.Devices = append(out.Devices, d)
	}
	if err := out.check(); err != nil {
		return out, nil, invalidValue("The image '%s' cannot be stored: %s", *img.ImageId, wire.Message(err))
	}
	return out, sources, nil
}

// storeImage calls put with a reader of the object of a task. sources are the contents of the
// image's snapshots.
func (s *Service) storeImage(ctx context.Context, id string, about storedImage, sources []contents, put func(io.Reader) error) error {
	release, err := s.opts.Images.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	var layers []string
	for _, d := range about.Devices {
		if d.Snapshot == nil {
			continue
		}
		from := sources[0]
		sources = sources[1:]
		if from.base != "" {
			if from.layers, err = s.opts.Images.Ensure(ctx, from.base, s.opts.Progress); err != nil {
				return err
			}
		}
		for _, id := range from.layers {
			n := slices.Index(layers, id)
			if n < 0 {
				n, layers = len(layers), append(layers, id)
			}
			d.Snapshot.Layers = append(d.Snapshot.Layers, n)
		}
	}
	text, err := json.Marshal(about)
	if err != nil {
		return err
	}
	store := func(ctx context.Context, w io.Writer) error {
		return s.opts.Images.StoreImage(ctx, w, text, layers, s.progress.part(0, 99, id))
	}
	return pipe.Through(ctx, store, put)
}

// forgetStoreTasks deletes the tasks that are no longer described.
func (s *state) forgetStoreTasks() error {
	for _, id := range s.stores.IDs() {
		if s.opts.Clock.Now().Sub(*s.stores.Rows[id].TaskStartTime) > storeTaskAge {
			if err := s.stores.Drop(id); err != nil {
				return err
			}
		}
	}
	return nil
}

var storeFilters = filters{{"bucket", "Bucket"}, {"task-state", "StoreTaskState"}}

// DescribeStoreImageTasks lists the caller's tasks of the last month in the region.
func (s *state) DescribeStoreImageTasks(ctx context.Context, in *ec2.DescribeStoreImageTasksInput) (*ec2.DescribeStoreImageTasksOutput, error) {
	switch {
	case len(in.ImageIds) > 20:
		return nil, invalidValue("At most 20 image ids are allowed, not %d.", len(in.ImageIds))
	case len(in.ImageIds) > 0 && in.MaxResults != nil:
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter ImageIds cannot be used with the parameter MaxResults")
	}
	for _, id := range in.ImageIds {
		if err := kindImage.check(id); err != nil {
			return nil, err
		}
	}
	if err := s.forgetStoreTasks(); err != nil {
		return nil, err
	}
	type row struct {
		types.StoreImageTaskResult
		TaskID *string // not shown by EC2
	}
	rows, asked, c := []row{}, in.Filters, wire.CallerFrom(ctx)
	for _, id := range s.stores.IDs() {
		t := s.stores.Rows[id]
		if t.Account == c.Account && t.Region == c.Region && (len(in.ImageIds) == 0 || slices.Contains(in.ImageIds, *t.AmiId)) {
			r := row{t.StoreImageTaskResult, &id}
			if percent, working := s.progress.percent(id); working && *r.StoreTaskState == storeInProgress {
				r.ProgressPercentage = &percent
			}
			rows = append(rows, r)
		}
	}
	if len(in.ImageIds) > 0 {
		asked = nil // EC2 ignores them in this case
	}
	k := &kind{field: "TaskID", made: "TaskStartTime", filters: storeFilters, min: 1, max: 200}
	if err := checkMax(in.MaxResults, k.min, k.max); err != nil {
		return nil, err
	}
	rows, next, err := listed(k, query{filters: asked, max: in.MaxResults, token: in.NextToken}, rows)
	out := &ec2.DescribeStoreImageTasksOutput{StoreImageTaskResults: []types.StoreImageTaskResult{}, NextToken: next}
	for _, r := range rows {
		out.StoreImageTaskResults = append(out.StoreImageTaskResults, r.StoreImageTaskResult)
	}
	return out, err
}

// repairStoreTasks ends the tasks that a crash interrupted.
func (s *state) repairStoreTasks() error {
	for _, id := range s.stores.IDs() {
		if *s.stores.Rows[id].StoreTaskState != storeInProgress {
			continue
		}
		err := s.stores.Edit(id, func(t *storeTask) {
			t.end(wire.Errorf("InternalError", "The embedded cloud was stopped while the image was being stored."))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// CreateRestoreImageTask starts to restore an image that is stored in one of the caller's
// buckets.
func (s *Service) CreateRestoreImageTask(ctx context.Context, in *ec2.CreateRestoreImageTaskInput) (*ec2.CreateRestoreImageTaskOutput, error) {
	bucket, key := aws.ToString(in.Bucket), aws.ToString(in.ObjectKey)
	f, err := s.opts.Objects.Get(wire.CallerFrom(ctx), bucket, key)
	if err != nil {
		return nil, invalidValue("The object '%s' in the bucket '%s' cannot be read: %s", key, bucket, wire.Message(err))
	}
	stored, err := s.readStored(f)
	if err != nil {
		return nil, errors.Join(invalidValue("The object '%s' in the bucket '%s' cannot be restored: %s", key, bucket, wire.Message(err)), f.Close())
	}
	restore := func(st *state, ctx context.Context, in *ec2.CreateRestoreImageTaskInput) (*ec2.CreateRestoreImageTaskOutput, error) {
		return st.restoreImage(ctx, in, stored, f)
	}
	out, err := locked(s, restore)(ctx, in)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return out, nil
}

// readStored reads the description in a stored image, and reports one that is invalid.
func (s *Service) readStored(f *os.File) (stored storedImage, err error) {
	text, err := s.opts.Images.About(f)
	if err != nil {
		return stored, err
	}
	if err := json.Unmarshal(text, &stored); err != nil || stored.Form != storedForm {
		return stored, errors.New("it is not a stored image")
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return stored, err
	}
	return stored, stored.check()
}

var loginName = lazyregexp.New(`^([a-z_][a-z0-9_.-]{0,31})?$`)

// Limits of a stored image: the layers of all its snapshots together, and its devices.
const maxStoredLayers, maxStoredDevices = 500, 50

// check reports an invalid description, and reduces tags and devices to the fields that were
// checked.
func (i *storedImage) check() error {
	bad := func(what string, value any) error {
		return fmt.Errorf("its %s %.80q is invalid", what, fmt.Sprint(value))
	}
	switch {
	case !imageName.Get().MatchString(i.Name):
		return bad("name", i.Name)
	case checkDescription(&i.Description) != nil:
		return checkDescription(&i.Description)
	case !loginName.Get().MatchString(i.LoginUser):
		return bad("login user", i.LoginUser)
	case processorOf(i.Arch) == "":
		return bad("architecture", i.Arch)
	case i.BootMode != "" && !slices.Contains(i.BootMode.Values(), i.BootMode):
		return bad("boot mode", i.BootMode)
	case i.TpmSupport != "" && !slices.Contains(i.TpmSupport.Values(), i.TpmSupport):
		return bad("TPM support", i.TpmSupport)
	case i.ImdsSupport != "" && !slices.Contains(i.ImdsSupport.Values(), i.ImdsSupport):
		return bad("IMDS support", i.ImdsSupport)
	case i.Sriov != "" && i.Sriov != "simple":
		return bad("SR-IOV support", i.Sriov)
	case len(i.Devices) > maxStoredDevices:
		return fmt.Errorf("it has %d devices; at most %d are allowed", len(i.Devices), maxStoredDevices)
	}
	if err := checkTags(i.Tags); err != nil {
		return err
	}
	i.Tags = merged(nil, i.Tags)
	var mappings []types.BlockDeviceMapping
	rooted := false
	for n := range i.Devices {
		d := &i.Devices[n]
		if err := d.check(); err != nil {
			return err
		}
		rooted = rooted || d.Snapshot != nil && aws.ToString(d.Mapping.DeviceName) == i.RootDevice
		mappings = append(mappings, d.Mapping)
	}
	if !rooted {
		return fmt.Errorf("its root device %.80q has no snapshot", i.RootDevice)
	}
	return checkMappings(mappings)
}

func (d *storedDevice) check() error {
	ebs, name := d.Mapping.Ebs, aws.ToString(d.Mapping.DeviceName)
	switch {
	case !validDevice(name) || len(aws.ToString(d.Mapping.VirtualName)) > 32:
		return fmt.Errorf("a device cannot be named %.80q", name)
	case ebs == nil && d.Snapshot != nil, ebs != nil && (ebs.SnapshotId != nil || ebs.KmsKeyId != nil || ebs.Encrypted != nil || ebs.OutpostArn != nil):
		return fmt.Errorf("the device %s refers to a snapshot that is not in the object", name)
	case ebs == nil:
		d.Mapping = types.BlockDeviceMapping{DeviceName: &name, VirtualName: d.Mapping.VirtualName}
		return nil
	}
	v := types.Volume{Size: ebs.VolumeSize, VolumeType: ebs.VolumeType, Iops: ebs.Iops, Throughput: ebs.Throughput}
	if err := checkVolume(&v); err != nil {
		return err
	}
	d.Mapping = types.BlockDeviceMapping{DeviceName: &name, Ebs: &types.EbsBlockDevice{VolumeSize: v.Size, VolumeType: v.VolumeType, Iops: provisioned(v),
		Throughput: v.Throughput, DeleteOnTermination: aws.Bool(ebs.DeleteOnTermination == nil || *ebs.DeleteOnTermination)}}
	if d.Snapshot == nil {
		return nil
	}
	seen := map[int]bool{}
	for _, n := range d.Snapshot.Layers {
		if n < 0 || n >= maxStoredLayers || seen[n] {
			return fmt.Errorf("the snapshot of the device %s cannot have the layer %d", name, n)
		}
		seen[n] = true
	}
	switch size := d.Snapshot.Size; {
	case size < 1 || size > *ebs.VolumeSize:
		return fmt.Errorf("the snapshot of the device %s cannot have %d GiB", name, size)
	case checkDescription(&d.Snapshot.Description) != nil:
		return checkDescription(&d.Snapshot.Description)
	}
	if err := checkTags(d.Snapshot.Tags); err != nil {
		return err
	}
	d.Snapshot.Tags = merged(nil, d.Snapshot.Tags)
	return nil
}

// restoreImage starts to restore a stored image. It closes f when done.
func (s *state) restoreImage(ctx context.Context, in *ec2.CreateRestoreImageTaskInput, stored storedImage, f *os.File) (*ec2.CreateRestoreImageTaskOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindImage.resource, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	name := &stored.Name
	if in.Name != nil {
		name = in.Name
	}
	if err := s.checkName(c, name); err != nil {
		return nil, err
	}
	img := newImage(c, *name, s.now())
	img.Description, img.Architecture, img.RootDeviceName, img.LoginUser = notEmpty(&stored.Description), stored.Arch, &stored.RootDevice, stored.LoginUser
	img.BootMode, img.TpmSupport, img.ImdsSupport = stored.BootMode, stored.TpmSupport, stored.ImdsSupport
	img.EnaSupport, img.SriovNetSupport = &stored.EnaSupport, notEmpty(&stored.Sriov)
	if img.Tags, err = combined(stored.Tags, tags[kindImage.resource]); err != nil {
		return nil, err
	}
	var snapshots []*snapshot
	layers := map[string][]int{} // by snapshot
	for _, d := range stored.Devices {
		if d.Snapshot != nil {
			own, err := combined(d.Snapshot.Tags, tags[kindSnapshot.resource])
			if err != nil {
				return nil, err
			}
			snap := s.newSnapshot(c, d.Snapshot.Size, d.Snapshot.Description, own)
			snap.VolumeId = aws.String("vol-ffffffff") // the value that EC2 shows for a copy
			snap.Architecture, snap.LoginUser, snap.RootDevice = stored.Arch, stored.LoginUser, stored.RootDevice
			if s.encrypts(c) {
				snap.Encrypted, snap.KmsKeyId = aws.Bool(true), aws.String(s.ebsKey(c, ""))
			}
			d.Mapping.Ebs.SnapshotId, d.Mapping.Ebs.Encrypted = snap.SnapshotId, snap.Encrypted
			snapshots, layers[*snap.SnapshotId] = append(snapshots, snap), d.Snapshot.Layers
		} else if d.Mapping.Ebs != nil {
			d.Mapping.Ebs.Encrypted = aws.Bool(false)
		}
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, d.Mapping)
	}
	if err := s.addImage(ctx, img, snapshots); err != nil {
		return nil, err
	}
	s.completeImage(ctx, img, s.delays().Image, func(ctx context.Context, s *Service) error {
		return errors.Join(s.restoreLayers(ctx, f, layers), f.Close())
	})
	return &ec2.CreateRestoreImageTaskOutput{ImageId: img.ImageId}, nil
}

// restoreLayers makes the layers in a file and assigns them to snapshots. of contains the indexes
// of the layers, by snapshot.
func (s *Service) restoreLayers(ctx context.Context, f *os.File, of map[string][]int) error {
	release, err := s.opts.Images.Hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	ids := slices.Collect(maps.Keys(of))
	defer s.progress.ended(ids...)
	made, err := s.opts.Images.RestoreImage(ctx, &reading{Reader: f, size: info.Size(), report: s.progress.part(0, 99, ids...)})
	if err == nil {
		err = s.opts.Images.Flush()
	}
	if err != nil {
		return err
	}
	return s.update(func(st *state) error {
		for id, numbers := range of {
			var layers []string
			for _, n := range numbers {
				if n >= len(made) {
					st.collect()
					return fmt.Errorf("the stored image lacks layer %d", n)
				}
				if !slices.Contains(layers, made[n]) { // a layer hides an equal one below it
					layers = append(layers, made[n])
				}
			}
			if err := st.snapshots.Edit(id, func(r *snapshot) { r.Layers, r.Whole = layers, true }); err != nil {
				return err
			}
		}
		return nil
	})
}
