package ec2

import (
	"cmp"
	"context"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/kms"
	"bake/cloud/wire"
)

// volumeRow is a volume. The content of an attached root volume is its instance's disk.
// Other content is in the volume's directory, see volumeDir. Without a directory, the
// content is that of Layers or of the Base from which they have not been made yet.
type volumeRow struct {
	Region  string
	Account string
	types.Volume
	Layers    []string // topmost first
	Base      string
	Freezing  string // id of the layer that the content is being turned into
	LoginUser string
	Token     string // client token of the request that created it; Request is its fingerprint
	Request   string
	Modified  *types.VolumeModification // the last one
}

// device is a block device of an instance to be launched.
type device struct {
	name    string
	deletes bool
	spec    types.Volume // size, type and so on
	from    contents
}

// volume returns the device's new volume, attached to the instance row.
func (d device) volume(row *instance, tags []types.Tag, now time.Time) *volumeRow {
	v := &volumeRow{Region: row.Region, Account: row.OwnerId, Volume: d.spec}
	if d.name != aws.ToString(row.RootDeviceName) {
		v.Layers, v.Base, v.LoginUser = d.from.layers, d.from.base, d.from.user
	}
	v.VolumeId, v.State, v.CreateTime, v.Tags = aws.String(newID("vol")), types.VolumeStateInUse, &now, tags
	v.AvailabilityZone, v.AvailabilityZoneId, v.MultiAttachEnabled = row.Placement.AvailabilityZone, row.Placement.AvailabilityZoneId, aws.Bool(false)
	v.Attachments = []types.VolumeAttachment{{InstanceId: row.InstanceId, VolumeId: v.VolumeId, Device: &d.name, AttachTime: &now,
		DeleteOnTermination: &d.deletes, State: types.VolumeAttachmentStateAttached}}
	return v
}

// checkVolume sets the defaults of a volume's type and reports invalid values.
func checkVolume(v *types.Volume) error {
	size := aws.ToInt32(v.Size)
	limits := map[types.VolumeType][2]int32{"standard": {1, 1024}, "gp2": {1, 16384}, "gp3": {1, 65536}, "io1": {4, 16384}, "io2": {4, 65536}, "st1": {125, 16384}, "sc1": {125, 16384}}
	v.VolumeType = cmp.Or(v.VolumeType, types.VolumeTypeGp2)
	if l := limits[v.VolumeType]; size < l[0] || size > l[1] {
		return invalidValue("Volume of %dGiB is invalid. A volume of type %s has %d to %d GiB.", size, v.VolumeType, l[0], l[1])
	}
	iops := aws.ToInt32(v.Iops)
	switch v.VolumeType {
	case "io1", "io2":
		ratio := map[types.VolumeType]int32{"io1": 50, "io2": 1000}[v.VolumeType]
		switch {
		case v.Iops == nil:
			return missing("iops")
		case iops < 100 || iops > 256000:
			return invalidValue("Volume iops of %d is invalid for the type %s.", iops, v.VolumeType)
		case iops > ratio*size:
			return invalidValue("Iops to volume size ratio of %.1f is too high; maximum is %d", float64(iops)/float64(size), ratio)
		}
	case "gp3":
		if v.Iops == nil {
			v.Iops = aws.Int32(3000)
		} else if iops < 3000 || iops > 80000 {
			return invalidValue("Volume iops of %d is invalid for the type gp3.", iops)
		}
		if v.Throughput == nil {
			v.Throughput = aws.Int32(125)
		} else if t := *v.Throughput; t < 125 || t > 2000 {
			return invalidValue("Throughput (MiBps) of %d is invalid. It must be between 125 and 2000.", t)
		}
	default:
		if v.Iops != nil {
			return wire.Errorf("InvalidParameterCombination", "The parameter iops is not supported for %s volumes.", v.VolumeType)
		}
		if v.VolumeType == "gp2" {
			v.Iops = aws.Int32(min(max(100, 3*size), 16000))
		}
	}
	if v.Throughput != nil && v.VolumeType != "gp3" {
		return wire.Errorf("InvalidParameterCombination", "The parameter throughput is not supported for %s volumes.", v.VolumeType)
	}
	return nil
}

// provisioned returns the volume's IOPS if they were requested. Those of a gp2 volume
// depend on its size, and mappings do not show them.
func provisioned(v types.Volume) *int32 {
	if v.VolumeType == types.VolumeTypeGp2 {
		return nil
	}
	return v.Iops
}

// checkMappings reports mappings that are invalid in any request.
func checkMappings(want []types.BlockDeviceMapping) error {
	seen := map[string]bool{}
	for _, m := range want {
		name := aws.ToString(m.DeviceName)
		switch {
		case name == "":
			return missing("BlockDeviceMapping.DeviceName")
		case !validDevice(name):
			return wire.Errorf("InvalidBlockDeviceMapping", "Invalid device name %s", name)
		case seen[name]:
			return wire.Errorf("InvalidBlockDeviceMapping", "The device '%s' is used in more than one block-device mapping", name)
		case m.Ebs == nil && aws.ToString(m.VirtualName) == "" && m.NoDevice == nil:
			return wire.Errorf("InvalidBlockDeviceMapping", "The device '%s' has no mapping. Specify Ebs, VirtualName or NoDevice.", name)
		}
		seen[name] = true
		if m.Ebs != nil {
			if err := needsEncrypted(m.Ebs.KmsKeyId, m.Ebs.Encrypted); err != nil {
				return err
			}
		}
	}
	return nil
}

// needsEncrypted reports a request that names a KMS key without asking for encryption.
func needsEncrypted(key *string, encrypted *bool) error {
	if aws.ToString(key) != "" && !aws.ToBool(encrypted) {
		return wire.Errorf("InvalidParameterDependency", "The parameter KmsKeyId requires the parameter Encrypted to be set.")
	}
	return nil
}

// devices returns the block devices of a launch: the image's, changed and extended by the
// request's mappings.
func (s *state) devices(c wire.Caller, img *image, want []types.BlockDeviceMapping) ([]device, error) {
	if err := checkMappings(want); err != nil {
		return nil, err
	}
	mappings := slices.Clone(img.BlockDeviceMappings)
	for _, m := range want {
		name := *m.DeviceName
		i := slices.IndexFunc(mappings, func(have types.BlockDeviceMapping) bool { return *have.DeviceName == name })
		if m.NoDevice != nil {
			if name == aws.ToString(img.RootDeviceName) {
				return nil, wire.Errorf("InvalidBlockDeviceMapping", "The root device '%s' cannot be omitted", name)
			}
			if i >= 0 {
				mappings = slices.Delete(mappings, i, i+1)
			}
			continue
		}
		switch {
		case i < 0:
			mappings = append(mappings, m)
		case m.Ebs != nil && mappings[i].Ebs != nil:
			mappings[i].Ebs = overlaid(mappings[i].Ebs, m.Ebs)
		case m.Ebs != nil: // replaces an instance store
			mappings[i] = m
		}
	}
	var out []device
	var err error
	for _, m := range mappings {
		if m.Ebs == nil { // an instance store: no instance type here has one
			continue
		}
		d := device{name: *m.DeviceName, deletes: m.Ebs.DeleteOnTermination == nil || *m.Ebs.DeleteOnTermination}
		d.spec = types.Volume{Size: m.Ebs.VolumeSize, VolumeType: m.Ebs.VolumeType, Iops: m.Ebs.Iops, Throughput: m.Ebs.Throughput,
			Encrypted: aws.Bool(aws.ToBool(m.Ebs.Encrypted) || s.encrypts(c)), KmsKeyId: notEmpty(m.Ebs.KmsKeyId), SnapshotId: notEmpty(m.Ebs.SnapshotId)}
		if err := s.fromSnapshot(c, &d.spec, img); err != nil {
			return nil, err
		}
		if err := checkVolume(&d.spec); err != nil {
			return nil, err
		}
		if d.spec.SnapshotId != nil {
			if d.from, err = s.contentsOf(c, *d.spec.SnapshotId); err != nil {
				return nil, err
			}
		}
		if i := slices.IndexFunc(out, func(o device) bool { return machineDevice(o.name) == machineDevice(d.name) }); i >= 0 {
			return nil, wire.Errorf("InvalidBlockDeviceMapping", "The devices '%s' and '%s' are the same to the instance", out[i].name, d.name)
		}
		out = append(out, d)
	}
	return out, nil
}

// overlaid returns base with the fields that are set in over.
func overlaid(base, over *types.EbsBlockDevice) *types.EbsBlockDevice {
	out := *base
	from, to := reflect.ValueOf(*over), reflect.ValueOf(&out).Elem()
	for i := range from.NumField() {
		if to.Field(i).CanSet() && !from.Field(i).IsZero() {
			to.Field(i).Set(from.Field(i))
		}
	}
	if over.VolumeType != "" && over.VolumeType != base.VolumeType {
		out.Iops, out.Throughput = over.Iops, over.Throughput // the values of another volume type do not apply
	}
	return &out
}

// fromSnapshot completes a volume that is made from a snapshot, which must be visible to
// the caller or belong to img; img may be nil.
func (s *state) fromSnapshot(c wire.Caller, v *types.Volume, img *image) error {
	requested := v.KmsKeyId
	if aws.ToBool(v.Encrypted) {
		v.KmsKeyId = aws.String(s.ebsKey(c, aws.ToString(requested)))
	}
	if v.SnapshotId == nil {
		if v.Size == nil {
			return missing("BlockDeviceMapping.Ebs.VolumeSize")
		}
		return nil
	}
	id := *v.SnapshotId
	var size int32
	if img == nil {
		var err error
		if img, err = s.publicationOf(c, id); err != nil {
			return err
		}
	}
	if img.has(id) {
		size = img.snapshotSize(id)
	}
	if snap, ok := s.snapshots.Get(id); ok && (img.has(id) || s.visible(snap, c.Account)) && snap.Region == c.Region {
		if err := s.checkTier(snap); err != nil {
			return err
		}
		size = *snap.VolumeSize
		if aws.ToBool(snap.Encrypted) && requested == nil {
			v.Encrypted, v.KmsKeyId = aws.Bool(true), snap.KmsKeyId
			if *snap.OwnerId != c.Account {
				v.KmsKeyId = aws.String(s.ebsKey(c, ""))
			}
		}
	}
	if size == 0 {
		if err := kindSnapshot.check(id); err != nil {
			return err
		}
		return kindSnapshot.notFound(id)
	}
	if v.Size == nil {
		v.Size = &size
	}
	if *v.Size < size {
		return wire.Errorf("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than snapshot '%s', expect size >= %dGB", *v.Size, id, size)
	}
	return nil
}

// kmsKey returns the ARN of a key that a request names by ARN, id or alias, or of the
// default key. Content is not actually encrypted.
func kmsKey(c wire.Caller, name string) string {
	switch {
	case strings.HasPrefix(name, "arn:"):
		return name
	case strings.HasPrefix(name, "alias/"):
		return arn(c, "kms", name)
	case name == "":
		name = kms.EBSKey(c)
	}
	return arn(c, "kms", "key/"+name)
}

// defaultKey reports whether a key is the default EBS key of an account in a region.
// Resources encrypted with it cannot be shared.
func defaultKey(account, region, key string) bool {
	c := wire.Caller{Account: account, Region: region}
	return key == kmsKey(c, "") || key == kmsKey(c, ebsAlias)
}

func (s *state) CreateVolume(ctx context.Context, in *ec2.CreateVolumeInput) (*ec2.CreateVolumeOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindVolume.resource)
	if err != nil {
		return nil, err
	}
	if err := needsEncrypted(in.KmsKeyId, in.Encrypted); err != nil {
		return nil, err
	}
	if t := cmp.Or(in.VolumeType, types.VolumeTypeGp2); aws.ToBool(in.MultiAttachEnabled) && t != types.VolumeTypeIo1 && t != types.VolumeTypeIo2 {
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter MultiAttachEnabled is supported for the volume types io1 and io2 only, not for %s.", t)
	}
	r, _ := findRegion(c.Region)
	zone := r.zone(aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId))
	if zone < 0 {
		return nil, wire.Errorf("InvalidZone.NotFound", "The zone '%s' does not exist.", cmp.Or(aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId)))
	}
	token, request := aws.ToString(in.ClientToken), fingerprint(in)
	for _, have := range s.volumes.of(c) {
		switch {
		case token == "" || have.Token != token:
		case have.Request != request:
			return nil, errTokenMisused()
		default:
			return created(have), nil
		}
	}
	row := &volumeRow{Region: c.Region, Account: c.Account, Token: token, Request: request, Volume: types.Volume{
		Size: in.Size, VolumeType: in.VolumeType, Iops: in.Iops, Throughput: in.Throughput, Encrypted: aws.Bool(aws.ToBool(in.Encrypted) || s.encrypts(c)),
		KmsKeyId: notEmpty(in.KmsKeyId), SnapshotId: notEmpty(in.SnapshotId), MultiAttachEnabled: aws.Bool(aws.ToBool(in.MultiAttachEnabled)),
		VolumeId: aws.String(newID("vol")), State: types.VolumeStateAvailable, CreateTime: aws.Time(s.now()), Tags: tags[kindVolume.resource],
		AvailabilityZone: aws.String(r.zoneName(zone)), AvailabilityZoneId: aws.String(r.zoneID(zone)),
	}}
	if err := s.fromSnapshot(c, &row.Volume, nil); err != nil {
		return nil, err
	}
	if err := checkVolume(&row.Volume); err != nil {
		return nil, err
	}
	if row.SnapshotId != nil {
		from, err := s.contentsOf(c, *row.SnapshotId)
		if err != nil {
			return nil, err
		}
		row.Layers, row.Base, row.LoginUser = from.layers, from.base, from.user
	}
	s.hide(ctx, *row.VolumeId)
	return created(row), s.volumes.Put(*row.VolumeId, row)
}

// created returns the answer to a request that created a volume.
func created(row *volumeRow) *ec2.CreateVolumeOutput {
	out := &ec2.CreateVolumeOutput{}
	copyFields(out, row.Volume)
	out.State = types.VolumeStateCreating
	if out.Tags == nil { // unlike DescribeVolumes, CreateVolume always sends them
		out.Tags = []types.Tag{}
	}
	return out
}

// copyFields copies the fields of the struct from to the fields of *to with the same name
// and type. Several of the SDK's outputs repeat the fields of a resource.
func copyFields(to, from any) {
	dst, src := reflect.ValueOf(to).Elem(), reflect.ValueOf(from)
	for i := range src.NumField() {
		f := src.Type().Field(i)
		if d := dst.FieldByName(f.Name); f.IsExported() && d.IsValid() && d.Type() == f.Type {
			d.Set(src.Field(i))
		}
	}
}

func (s *state) DeleteVolume(ctx context.Context, in *ec2.DeleteVolumeInput) (*ec2.DeleteVolumeOutput, error) {
	v, err := s.volumes.find(wire.CallerFrom(ctx), in.VolumeId)
	if err != nil {
		return nil, err
	}
	if len(v.Attachments) > 0 {
		return nil, wire.Errorf("VolumeInUse", "Volume %s is currently attached to %s", *v.VolumeId, *v.Attachments[0].InstanceId)
	}
	if err := s.volumes.Drop(*v.VolumeId); err != nil {
		return nil, err
	}
	id := *v.VolumeId
	s.background(func(ctx context.Context, s *Service) {
		defer s.lockDisk(id)()
		s.log(id, "delete", s.opts.Driver.Remove(context.WithoutCancel(ctx), s.detachedDir(id)))
	})
	s.collect()
	return &ec2.DeleteVolumeOutput{}, nil
}

var volumeFilters = filters{
	{"attachment.attach-time", "Attachments.AttachTime"}, {"attachment.delete-on-termination", "Attachments.DeleteOnTermination"},
	{"attachment.device", "Attachments.Device"}, {"attachment.instance-id", "Attachments.InstanceId"}, {"attachment.status", "Attachments.State"},
	{"availability-zone", "AvailabilityZone"}, {"availability-zone-id", "AvailabilityZoneId"}, {"create-time", "CreateTime"}, {"encrypted", "Encrypted"},
	{"fast-restored", "FastRestored"}, {"multi-attach-enabled", "MultiAttachEnabled"}, {"operator.managed", ""}, {"operator.principal", ""}, {"size", "Size"},
	{"snapshot-id", "SnapshotId"}, {"source-volume-id", ""}, {"status", "State"}, {"volume-id", "VolumeId"}, {"volume-type", "VolumeType"},
}

func (s *state) DescribeVolumes(ctx context.Context, in *ec2.DescribeVolumesInput) (*ec2.DescribeVolumesOutput, error) {
	var rows []types.Volume
	for _, v := range s.volumes.of(wire.CallerFrom(ctx)) {
		rows = append(rows, v.Volume)
	}
	rows, next, err := list(s, kindVolume, query{in.VolumeIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeVolumesOutput{Volumes: rows, NextToken: next}, err
}
