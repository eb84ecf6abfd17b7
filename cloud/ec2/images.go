package ec2

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// image is an image. Its content is that of the snapshots in its mappings or, for a
// publication, that of its base.
type image struct {
	Region string
	types.Image
	LaunchPermissions []types.LaunchPermission
	ClientToken       string
	Request           string // see instance
	LoginUser         string
	Base              string
	Alias             bool                                       // found only by its id
	Launches          []time.Time                                // at most one an hour, oldest first; see launched
	FastLaunch        *types.DescribeFastLaunchImagesSuccessItem // nil means that instances are not prepared in advance
}

// timeForm is the layout of the times that EC2 returns as text.
const timeForm = "2006-01-02T15:04:05.000Z"

// has reports whether one of the image's mappings names the snapshot.
func (img *image) has(snapshot string) bool { return img.mapping(snapshot) != nil }

func (img *image) mapping(snapshot string) *types.BlockDeviceMapping {
	if img == nil {
		return nil
	}
	for i, b := range img.BlockDeviceMappings {
		if b.Ebs != nil && aws.ToString(b.Ebs.SnapshotId) == snapshot {
			return &img.BlockDeviceMappings[i]
		}
	}
	return nil
}

func (img *image) snapshotSize(snapshot string) int32 {
	return aws.ToInt32(img.mapping(snapshot).Ebs.VolumeSize)
}

// snapshotIDs returns the snapshots in the image's mappings.
func (img *image) snapshotIDs() []string {
	var out []string
	for _, b := range img.BlockDeviceMappings {
		if b.Ebs != nil && b.Ebs.SnapshotId != nil {
			out = append(out, *b.Ebs.SnapshotId)
		}
	}
	return out
}

// rootSnapshot returns the snapshot of the root device.
func (img *image) rootSnapshot() string {
	for _, b := range img.BlockDeviceMappings {
		if aws.ToString(b.DeviceName) == aws.ToString(img.RootDeviceName) && b.Ebs != nil {
			return aws.ToString(b.Ebs.SnapshotId)
		}
	}
	return ""
}

// launchable reports whether the account may use the image.
func (e *env) launchable(img *image, account string) bool {
	return *img.OwnerId == account || aws.ToBool(img.Public) || e.permitted(img, account)
}

// permitted reports whether the image has a launch permission for the account, or for an
// organization or unit that the account belongs to.
func (e *env) permitted(img *image, account string) bool {
	return slices.ContainsFunc(img.LaunchPermissions, func(p types.LaunchPermission) bool {
		unit := aws.ToString(p.OrganizationArn) + aws.ToString(p.OrganizationalUnitArn)
		return aws.ToString(p.UserId) == account || unit != "" && e.opts.Member(account, unit)
	})
}

func (img *image) deprecated(now time.Time) bool {
	at, err := time.Parse(timeForm, aws.ToString(img.DeprecationTime))
	return err == nil && !now.Before(at)
}

// content returns what the image's root holds: layers, or the base from which they have
// not been made yet.
func (s *state) content(img *image) (layers []string, base string) {
	if snap, ok := s.snapshots.Get(img.rootSnapshot()); ok {
		return snap.Layers, snap.Base
	}
	return nil, img.Base
}

// published returns a publication as an image of a region. Its ids are derived from owner,
// name and region, so that they are the same in every cloud.
func published(p Publication, region string) *image {
	sum := sha256.Sum256([]byte(p.Owner + "/" + p.Name + "/" + region + p.ID))
	digits := hex.EncodeToString(sum[:])
	root, size := cmp.Or(p.RootDevice, "/dev/xvda"), cmp.Or(p.Size, 8)
	img := newImage(wire.Caller{Account: p.Owner, Region: region}, p.Name, p.Created)
	img.Alias = p.ID != ""
	img.ImageId, img.State, img.Public = aws.String(cmp.Or(p.ID, "ami-0"+digits[:16])), types.ImageStateAvailable, aws.Bool(true)
	img.Description, img.ImageOwnerAlias = notEmpty(&p.Description), notEmpty(&p.OwnerAlias)
	img.Architecture, img.RootDeviceName = types.ArchitectureValues(p.Architecture), &root
	img.LoginUser, img.Base = p.User, p.Base
	if p.OwnerAlias != "" {
		img.ImageLocation = aws.String(p.OwnerAlias + "/" + p.Name)
	}
	img.BootMode, img.ImdsSupport = types.BootModeValues(p.BootMode), types.ImdsSupportValues(p.ImdsSupport)
	if !p.Deprecated.IsZero() {
		img.DeprecationTime = aws.String(p.Deprecated.UTC().Format(timeForm))
	}
	if len(p.Parameters) > 0 {
		img.PublicSsmParameterName = &p.Parameters[0]
	}
	ebs := &types.EbsBlockDevice{
		SnapshotId: aws.String("snap-0" + digits[16:32]), VolumeSize: &size, VolumeType: cmp.Or(types.VolumeType(p.VolumeType), types.VolumeTypeGp3),
		DeleteOnTermination: aws.Bool(true), Encrypted: aws.Bool(false),
	}
	if ebs.VolumeType == types.VolumeTypeGp3 {
		ebs.Iops, ebs.Throughput = aws.Int32(3000), aws.Int32(125)
	}
	img.BlockDeviceMappings = []types.BlockDeviceMapping{{DeviceName: &root, Ebs: ebs}}
	for i := range p.Ephemeral {
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, types.BlockDeviceMapping{
			DeviceName: aws.String("/dev/sd" + string(rune('b'+i))), VirtualName: aws.String(fmt.Sprint("ephemeral", i)),
		})
	}
	return img
}

// PublicParameters returns the public Systems Manager parameters of the caller's region,
// each with the image that it names.
func (s *Service) PublicParameters(ctx context.Context) (map[string]types.Image, error) {
	publications, err := s.opts.Images.Publications()
	if err != nil {
		return nil, err
	}
	out := map[string]types.Image{}
	for _, p := range publications {
		for _, name := range p.Parameters {
			out[name] = published(p, wire.CallerFrom(ctx).Region).Image
		}
	}
	return out, nil
}

// newImage returns a new pending image owned by the caller.
func newImage(c wire.Caller, name string, created time.Time) *image {
	return &image{Region: c.Region, Image: types.Image{
		ImageId: aws.String(newID("ami")), OwnerId: &c.Account, Name: &name, ImageLocation: aws.String(c.Account + "/" + name),
		CreationDate: aws.String(created.UTC().Format(timeForm)), State: types.ImageStatePending, Public: aws.Bool(false),
		ImageType: types.ImageTypeValuesMachine, RootDeviceType: types.DeviceTypeEbs, VirtualizationType: types.VirtualizationTypeHvm,
		Hypervisor: types.HypervisorTypeXen, EnaSupport: aws.Bool(true), SriovNetSupport: aws.String("simple"),
		PlatformDetails: aws.String("Linux/UNIX"), UsageOperation: aws.String("RunInstances"),
	}}
}

// imagesIn returns all images of a region, including published ones.
func (s *state) imagesIn(region string) ([]*image, error) {
	publications, err := s.opts.Images.Publications()
	if err != nil {
		return nil, err
	}
	var out []*image
	for _, p := range publications {
		out = append(out, published(p, region))
	}
	for _, img := range s.images.All() {
		if img.Region == region {
			out = append(out, img)
		}
	}
	sort.Slice(out, func(i, j int) bool { return *out[i].ImageId < *out[j].ImageId })
	return out, nil
}

// findImage returns an image of the region that the caller may use.
func (s *state) findImage(c wire.Caller, region string, id *string) (*image, error) {
	if aws.ToString(id) == "" {
		return nil, missing("ImageId")
	}
	if err := kindImage.check(*id); err != nil {
		return nil, err
	}
	all, err := s.imagesIn(region)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(img *image) bool { return *img.ImageId == *id })
	if i < 0 || len(s.concealed([]string{*id})) > 0 {
		return nil, kindImage.notFound(*id)
	}
	if ok, enforced := s.allowed(c, all[i].Image); enforced && !ok {
		return nil, kindImage.notFound(*id)
	}
	if !s.launchable(all[i], c.Account) {
		return nil, wire.Errorf("AuthFailure", "Not authorized for images: [%s]", *id)
	}
	return all[i], nil
}

// usableImage returns an image that can be launched now.
func (s *state) usableImage(c wire.Caller, id *string) (*image, error) {
	img, err := s.findImage(c, c.Region, id)
	if err != nil {
		if wire.AsError(err).Code == kindImage.code+".NotFound" && s.instanceOf(c, *id) {
			return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is no longer available: it was deregistered.", *id)
		}
		return nil, err
	}
	if img.State != types.ImageStateAvailable {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not available: it is %s.", *id, img.State)
	}
	return img, nil
}

// ownImage returns one of the caller's images; a publication is an error.
func (s *state) ownImage(c wire.Caller, id *string) (*image, error) {
	img, err := s.findImage(c, c.Region, id)
	if err != nil {
		return nil, err
	}
	if _, stored := s.images.Get(*id); !stored || *img.OwnerId != c.Account {
		return nil, wire.Errorf("AuthFailure", "Not authorized for image:%s", *id)
	}
	return img, nil
}

// changeImage changes one of the caller's images. If change fails, the image is not
// changed.
func (s *state) changeImage(ctx context.Context, id *string, change func(*image) error) error {
	img, err := s.ownImage(wire.CallerFrom(ctx), id)
	if err != nil {
		return err
	}
	return s.images.Change(*img.ImageId, change)
}

var imageName = lazyregexp.New(`^[A-Za-z0-9()\[\] ./'@_-]{3,128}$`)

// checkName reports a name that the caller cannot give a new image.
func (s *state) checkName(c wire.Caller, name *string) error {
	if name == nil {
		return missing("Name")
	}
	if !imageName.Get().MatchString(*name) {
		return wire.Errorf("InvalidAMIName.Malformed", "AMI names must be between 3 and 128 characters long, and may contain letters, numbers, spaces, and the characters ()[]./-'@_")
	}
	if img := s.images.named(c, *name); img != nil {
		return wire.Errorf("InvalidAMIName.Duplicate", "AMI name %s is already in use by AMI %s", *name, *img.ImageId)
	}
	return nil
}

// checkDescription reports a description that neither an image nor a snapshot can have.
func checkDescription(text *string) error {
	if utf8.RuneCountInString(aws.ToString(text)) > 255 {
		return invalidValue("The description is longer than 255 characters.")
	}
	return nil
}

var imageFilters = filters{
	{"architecture", "Architecture"}, {"block-device-mapping.delete-on-termination", "BlockDeviceMappings.Ebs.DeleteOnTermination"},
	{"block-device-mapping.device-name", "BlockDeviceMappings.DeviceName"}, {"block-device-mapping.encrypted", "BlockDeviceMappings.Ebs.Encrypted"},
	{"block-device-mapping.snapshot-id", "BlockDeviceMappings.Ebs.SnapshotId"}, {"block-device-mapping.volume-size", "BlockDeviceMappings.Ebs.VolumeSize"},
	{"block-device-mapping.volume-type", "BlockDeviceMappings.Ebs.VolumeType"}, {"boot-mode", "BootMode"}, {"creation-date", "CreationDate"},
	{"description", "Description"}, {"ena-support", "EnaSupport"}, {"free-tier-eligible", ""}, {"hypervisor", "Hypervisor"}, {"image-allowed", "ImageAllowed"},
	{"image-id", "ImageId"}, {"image-type", "ImageType"}, {"image-watermark.source-image-creation-time", "ImageWatermarks.SourceImageCreationTime"}, {"image-watermark.source-image-id", "ImageWatermarks.SourceImageId"},
	{"image-watermark.source-image-region", "ImageWatermarks.SourceImageRegion"}, {"image-watermark.watermark-creation-time", "ImageWatermarks.WatermarkCreationTime"}, {"image-watermark.watermark-key", "ImageWatermarks.WatermarkKey"},
	{"imds-support", "ImdsSupport"}, {"instance-type-specification.supported-instance-type", ""},
	{"instance-type-specification.unsupported-instance-type", ""}, {"is-public", "Public"},
	{"kernel-id", ""}, {"manifest-location", "ImageLocation"}, {"name", "Name"}, {"owner-alias", "ImageOwnerAlias"}, {"owner-id", "OwnerId"}, {"platform", "Platform"},
	{"platform-details", "PlatformDetails"}, {"product-code", ""}, {"product-code.type", ""}, {"public-ssm-parameter-name", "PublicSsmParameterName"}, {"ramdisk-id", ""}, {"root-device-name", "RootDeviceName"},
	{"root-device-type", "RootDeviceType"}, {"scan-result.critical-fix-available-since", ""}, {"scan-result.finding-scan-date", ""},
	{"scan-result.high-fix-available-since", ""}, {"scan-result.highest-finding-severity-label", ""},
	{"scan-result.informational-fix-available-since", ""}, {"scan-result.low-fix-available-since", ""},
	{"scan-result.medium-fix-available-since", ""}, {"source-image-id", "SourceImageId"}, {"source-image-region", "SourceImageRegion"},
	{"source-instance-id", "SourceInstanceId"}, {"state", "State"}, {"state-reason-code", "StateReason.Code"}, {"state-reason-message", "StateReason.Message"},
	{"sriov-net-support", "SriovNetSupport"}, {"tpm-support", "TpmSupport"}, {"usage-operation", "UsageOperation"}, {"virtualization-type", "VirtualizationType"},
}

func (s *state) DescribeImages(ctx context.Context, in *ec2.DescribeImagesInput) (*ec2.DescribeImagesOutput, error) {
	c := wire.CallerFrom(ctx)
	if err := s.recall(in.Filters); err != nil {
		return nil, err
	}
	all, err := s.imagesIn(c.Region)
	if err != nil {
		return nil, err
	}
	var rows []*image
	var closed []string
	for _, img := range all {
		if ok, enforced := s.allowed(c, img.Image); enforced && !ok {
			continue
		}
		if !s.launchable(img, c.Account) {
			if slices.Contains(in.ImageIds, *img.ImageId) {
				closed = append(closed, *img.ImageId)
			}
			continue
		}
		shown := *img
		shown.ImageAllowed = s.imageAllowed(c, img.Image)
		shown.Tags = s.tagsOn(c, *img.ImageId, *img.OwnerId, img.Tags)
		rows = append(rows, &shown)
	}
	if len(closed) > 0 {
		return nil, wire.Errorf("AuthFailure", "Not authorized for images: [%s]", strings.Join(closed, ", "))
	}
	// While the caller still has an instance of a deregistered image, the image's id is
	// not an error; it just matches nothing.
	ids := slices.DeleteFunc(slices.Clone(in.ImageIds), func(id string) bool {
		return s.instanceOf(c, id) && !slices.ContainsFunc(rows, func(img *image) bool { return *img.ImageId == id })
	})
	if len(ids) < len(in.ImageIds) && len(ids) == 0 {
		rows = nil
	}
	if rows, err = pick(s, kindImage, ids, rows); err != nil {
		return nil, err
	}
	rows = slices.DeleteFunc(rows, func(img *image) bool {
		return img.Alias && len(in.ImageIds) == 0 || img.State == types.ImageStateDisabled && !aws.ToBool(in.IncludeDisabled) ||
			!ownedBy(c, in.Owners, *img.OwnerId, aws.ToString(img.ImageOwnerAlias)) || !s.executableBy(c, img, in.ExecutableUsers) ||
			img.deprecated(s.opts.Clock.Now()) && *img.OwnerId != c.Account && !aws.ToBool(in.IncludeDeprecated) && len(in.ImageIds) == 0
	})
	rows, next, err := listed(kindImage, query{filters: in.Filters, max: in.MaxResults, token: in.NextToken}, rows)
	out := &ec2.DescribeImagesOutput{NextToken: next, Images: []types.Image{}}
	for _, img := range rows {
		out.Images = append(out.Images, s.imageView(c, img))
	}
	return out, err
}

// recall adds the publications whose complete names the filters contain.
func (s *state) recall(asked []types.Filter) error {
	for _, f := range asked {
		if aws.ToString(f.Name) != "name" {
			continue
		}
		for _, name := range f.Values {
			if strings.ContainsAny(name, `*?\`) {
				continue
			}
			note, err := s.opts.Images.Recall(name)
			if err != nil {
				return err
			}
			if note != "" {
				s.opts.Progress(Progress{Note: note})
			}
		}
	}
	return nil
}

// instanceOf reports whether the caller has an instance of the image that is not
// terminated.
func (s *state) instanceOf(c wire.Caller, image string) bool {
	return slices.ContainsFunc(s.instances.of(c), func(in *instance) bool { return *in.ImageId == image && in.Ended == nil })
}

// userTag is a tag that DescribeImages shows on every image: its login user.
const userTag = "bake:user"

// imageView returns the image as DescribeImages shows it to the caller.
func (s *state) imageView(c wire.Caller, img *image) types.Image {
	v := img.Image
	v.DeregistrationProtection = aws.String(img.protection(s.opts.Clock.Now()))
	if *img.OwnerId == c.Account {
		v.LastLaunchedTime = notEmpty(aws.String(s.lastLaunch(img)))
	}
	if img.LoginUser != "" {
		v.Tags = merged(v.Tags, []types.Tag{{Key: aws.String(userTag), Value: &img.LoginUser}})
	}
	return v
}

// executableBy reports whether the image has a launch permission for one of users: account
// ids, "self" or "all". An empty list matches every image. Permissions for an organization
// count for "self" only.
func (e *env) executableBy(c wire.Caller, img *image, users []string) bool {
	return len(users) == 0 || slices.ContainsFunc(users, func(user string) bool {
		if user == "all" {
			return aws.ToBool(img.Public)
		}
		if user == "self" && *img.OwnerId != c.Account {
			return e.permitted(img, c.Account)
		}
		user = strings.Replace(user, "self", c.Account, 1)
		return slices.ContainsFunc(img.LaunchPermissions, func(p types.LaunchPermission) bool { return aws.ToString(p.UserId) == user })
	})
}

// CreateImage makes an image of an instance. A running instance is shut down for it and
// started again, unless NoReboot asks for a copy of the disk in its current state.
func (s *state) CreateImage(ctx context.Context, in *ec2.CreateImageInput) (*ec2.CreateImageOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindImage.resource, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	row, err := s.findInstance(c, in.InstanceId)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.checkName(c, in.Name), checkDescription(in.Description)); err != nil {
		return nil, err
	}
	if err := capturable(row); err != nil {
		return nil, err
	}
	img := newImage(c, *in.Name, s.now())
	img.Description, img.Tags = notEmpty(in.Description), tags[kindImage.resource]
	img.Architecture, img.BootMode, img.RootDeviceName = row.Architecture, row.BootMode, row.RootDeviceName
	img.SourceInstanceId, img.SourceImageId, img.SourceImageRegion = row.InstanceId, row.ImageId, &c.Region
	img.LoginUser, img.ImdsSupport, img.TpmSupport = row.LoginUser, row.ImdsSupport, types.TpmSupportValues(aws.ToString(row.TpmSupport))
	img.EnaSupport, img.SriovNetSupport = row.EnaSupport, row.SriovNetSupport
	if was, ok := s.known(aws.ToString(row.ImageId), c.Region); ok {
		img.ImageWatermarks = was.ImageWatermarks
	}
	if row.root() == nil {
		return nil, noRoot(row)
	}
	snapshots, captured := s.captureDevices(c, in, row, img, tags[kindSnapshot.resource])
	if img.BlockDeviceMappings, err = s.remap(c, img, in.BlockDeviceMappings); err != nil {
		return nil, err
	}
	if err := s.addImage(ctx, img, snapshots); err != nil {
		return nil, err
	}
	reboot, taken := "", moment(ctx)
	if !aws.ToBool(in.NoReboot) {
		reboot = *row.InstanceId
		taken() // the machine shuts down first
	}
	s.completeImage(ctx, img, s.delays().Image, func(ctx context.Context, s *Service) error {
		return s.fill(ctx, captured, reboot, taken)
	})
	return &ec2.CreateImageOutput{ImageId: img.ImageId}, nil
}

// captureDevices gives an image the devices of an instance, with new snapshots. captured are
// the snapshots' ids by volume.
func (s *state) captureDevices(c wire.Caller, in *ec2.CreateImageInput, row *instance, img *image, tags []types.Tag) (snapshots []*snapshot, captured map[string]string) {
	captured = map[string]string{}
	for _, b := range row.BlockDeviceMappings {
		if dropsDevice(in.BlockDeviceMappings, *b.DeviceName) {
			continue
		}
		v, ok := s.volumes.Get(*b.Ebs.VolumeId)
		if !ok {
			continue
		}
		snap := s.ofVolume(c, v, fmt.Sprintf("Created by CreateImage(%s) for %s", *row.InstanceId, *img.ImageId), tags)
		if *b.DeviceName == aws.ToString(row.RootDeviceName) {
			snap.describeRoot(row)
		}
		snapshots = append(snapshots, snap)
		captured[*v.VolumeId] = *snap.SnapshotId
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, types.BlockDeviceMapping{DeviceName: b.DeviceName, Ebs: &types.EbsBlockDevice{
			SnapshotId: snap.SnapshotId, VolumeSize: v.Size, VolumeType: v.VolumeType, Iops: provisioned(v.Volume), Throughput: v.Throughput,
			Encrypted: v.Encrypted, DeleteOnTermination: b.Ebs.DeleteOnTermination,
		}})
	}
	return snapshots, captured
}

// dropsDevice reports whether mappings omit the device (NoDevice).
func dropsDevice(mappings []types.BlockDeviceMapping, name string) bool {
	return slices.ContainsFunc(mappings, func(m types.BlockDeviceMapping) bool { return aws.ToString(m.DeviceName) == name && m.NoDevice != nil })
}

// remap applies the mappings of a request to an image's: it changes fields of existing
// devices and adds new ones.
func (s *state) remap(c wire.Caller, img *image, want []types.BlockDeviceMapping) ([]types.BlockDeviceMapping, error) {
	if err := checkMappings(want); err != nil {
		return nil, err
	}
	out := img.BlockDeviceMappings
	for _, m := range want {
		name := *m.DeviceName
		i := slices.IndexFunc(out, func(b types.BlockDeviceMapping) bool { return *b.DeviceName == name })
		switch {
		case m.NoDevice != nil && name == aws.ToString(img.RootDeviceName):
			return nil, wire.Errorf("InvalidBlockDeviceMapping", "The root device '%s' cannot be omitted", name)
		case m.NoDevice != nil:
		case i >= 0 && m.Ebs != nil:
			if size := m.Ebs.VolumeSize; size != nil && *size < *out[i].Ebs.VolumeSize {
				return nil, wire.Errorf("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than the volume of %dGB at '%s'", *size, *out[i].Ebs.VolumeSize, name)
			}
			snapshot := out[i].Ebs.SnapshotId
			out[i].Ebs = overlaid(out[i].Ebs, m.Ebs)
			out[i].Ebs.SnapshotId = snapshot
		case i < 0:
			var err error
			if m.Ebs, err = s.mapped(c, img, m.Ebs); err != nil {
				return nil, err
			}
			out = append(out, m)
		}
	}
	return out, nil
}

// mapped returns a new device of an image as DescribeImages shows it: the request's
// fields, completed from the snapshot and the volume type. img may be nil; if not, the
// device may also use a snapshot of img that the caller does not own.
func (s *state) mapped(c wire.Caller, img *image, ebs *types.EbsBlockDevice) (*types.EbsBlockDevice, error) {
	if ebs == nil {
		return nil, nil
	}
	v := types.Volume{Size: ebs.VolumeSize, VolumeType: ebs.VolumeType, Iops: ebs.Iops, Throughput: ebs.Throughput,
		SnapshotId: notEmpty(ebs.SnapshotId), Encrypted: aws.Bool(aws.ToBool(ebs.Encrypted)), KmsKeyId: notEmpty(ebs.KmsKeyId)}
	if err := s.fromSnapshot(c, &v, img); err != nil {
		return nil, err
	}
	if err := s.checkImageTier(aws.ToString(v.SnapshotId)); err != nil {
		return nil, err
	}
	if err := checkVolume(&v); err != nil {
		return nil, err
	}
	out := *ebs
	out.VolumeSize, out.VolumeType, out.Iops, out.Throughput, out.Encrypted = v.Size, v.VolumeType, provisioned(v), v.Throughput, v.Encrypted
	out.SnapshotId = v.SnapshotId
	if out.DeleteOnTermination == nil {
		out.DeleteOnTermination = aws.Bool(true)
	}
	return &out, nil
}

// addImage stores a new image and its snapshots. It stores the snapshots first: if a crash
// prevents the image from being stored, repair deletes them.
func (s *state) addImage(ctx context.Context, img *image, snapshots []*snapshot) error {
	for _, snap := range snapshots {
		snap.ForImage = *img.ImageId
		if err := s.snapshots.Put(*snap.SnapshotId, snap); err != nil {
			return err
		}
	}
	s.hide(ctx, *img.ImageId)
	return s.images.Put(*img.ImageId, img)
}

// completeImage makes a pending image available after content has filled its snapshots.
func (s *state) completeImage(ctx context.Context, img *image, delay time.Duration, content func(context.Context, *Service) error) {
	id, snapshots, fail := *img.ImageId, img.snapshotIDs(), failing(ctx)
	pending := later(stuck(ctx), s.delays().Snapshot)
	s.background(func(ctx context.Context, s *Service) {
		err := content(ctx, s)
		if err == nil {
			err = fail
		}
		if s.opts.Clock.Sleep(ctx, pending) != nil {
			return // the next Open continues from here
		}
		for _, snap := range snapshots {
			s.log(snap, "complete", s.update(func(st *state) error { return st.complete(snap, err) }))
		}
		if s.opts.Clock.Sleep(ctx, delay) != nil {
			return
		}
		s.log(id, "state", s.update(func(st *state) error {
			return st.images.Edit(id, func(img *image) {
				img.State = types.ImageStateAvailable
				if err != nil {
					img.State = types.ImageStateFailed
					img.StateReason = &types.StateReason{Code: aws.String("Client.InternalError"), Message: aws.String("Client.InternalError: " + wire.Message(err))}
				}
			})
		}))
	})
}

// repairImages completes the images and snapshots that a crash left pending, or deletes
// them if their content was not captured.
func (s *state) repairImages() error {
	whole := func(id string) bool { snap, ok := s.snapshots.Get(id); return ok && snap.Whole }
	for _, id := range s.images.IDs() {
		img, _ := s.images.Get(id)
		if img.State != types.ImageStatePending {
			continue
		}
		own := slices.DeleteFunc(img.snapshotIDs(), func(id string) bool {
			snap, ok := s.snapshots.Get(id)
			return ok && snap.State == types.SnapshotStateCompleted
		})
		if slices.ContainsFunc(own, func(id string) bool { return !whole(id) }) {
			if err := s.images.Drop(id); err != nil {
				return err
			}
			continue
		}
		for _, snap := range own {
			if err := s.complete(snap, nil); err != nil {
				return err
			}
		}
		if err := s.images.Edit(id, func(img *image) { img.State = types.ImageStateAvailable }); err != nil {
			return err
		}
	}
	for _, id := range s.snapshots.IDs() {
		snap, _ := s.snapshots.Get(id)
		if snap.State != types.SnapshotStatePending {
			continue
		}
		_, made := s.images.Get(snap.ForImage)
		var err error
		if snap.Whole && (made || snap.ForImage == "") {
			err = s.complete(id, nil)
		} else {
			err = s.snapshots.Drop(id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// CopyImage copies an image from SourceRegion to the caller's region. The copy has new
// snapshots that share the content of the source's.
func (s *state) CopyImage(ctx context.Context, in *ec2.CopyImageInput) (*ec2.CopyImageOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindImage.resource, kindSnapshot.resource)
	if err != nil {
		return nil, err
	}
	if err := needsEncrypted(in.KmsKeyId, in.Encrypted); err != nil {
		return nil, err
	}
	if m := in.SnapshotCopyCompletionDurationMinutes; m != nil {
		if err := checkDuration("SnapshotCopyCompletionDurationMinutes", *m); err != nil {
			return nil, err
		}
	}
	request := fingerprint(in)
	if out, err := s.repeatedCopy(c, aws.ToString(in.ClientToken), request); out != nil || err != nil {
		return out, err
	}
	from := aws.ToString(in.SourceRegion)
	if _, ok := findRegion(from); !ok || partition(from) != partition(c.Region) {
		return nil, invalidValue("Invalid value '%s' for SourceRegion.", from)
	}
	source, err := s.findImage(c, from, in.SourceImageId)
	if err != nil {
		return nil, err
	}
	if source.State != types.ImageStateAvailable {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not available: it is %s.", *source.ImageId, source.State)
	}
	if err := errors.Join(s.checkName(c, in.Name), checkDescription(in.Description)); err != nil {
		return nil, err
	}
	img := newImage(c, *in.Name, s.now())
	img.Description = notEmpty(in.Description)
	img.ClientToken, img.Request, img.LoginUser = aws.ToString(in.ClientToken), request, source.LoginUser
	img.Architecture, img.BootMode, img.RootDeviceName, img.ImdsSupport, img.TpmSupport = source.Architecture, source.BootMode, source.RootDeviceName, source.ImdsSupport, source.TpmSupport
	img.EnaSupport, img.SriovNetSupport = source.EnaSupport, source.SriovNetSupport
	img.SourceImageId, img.SourceImageRegion, img.ImageWatermarks = source.ImageId, &from, source.ImageWatermarks
	img.Tags = tags[kindImage.resource]
	if aws.ToBool(in.CopyImageTags) {
		if img.Tags, err = combined(s.tagsOn(c, *source.ImageId, *source.OwnerId, source.Tags), img.Tags); err != nil {
			return nil, err
		}
	}
	snapshots, err := s.copyDevices(c, in, source, img, tags[kindSnapshot.resource])
	if err != nil {
		return nil, err
	}
	if err := s.addImage(ctx, img, snapshots); err != nil {
		return nil, err
	}
	s.completeImage(ctx, img, s.delays().Copy, func(context.Context, *Service) error { return nil })
	return &ec2.CopyImageOutput{ImageId: img.ImageId}, nil
}

// repeatedCopy returns the answer to the request that had the token before, or nil.
func (s *state) repeatedCopy(c wire.Caller, token, request string) (*ec2.CopyImageOutput, error) {
	if token == "" {
		return nil, nil
	}
	for _, img := range s.images.of(c) {
		if img.ClientToken != token {
			continue
		}
		if img.Request != request {
			return nil, errTokenMisused()
		}
		return &ec2.CopyImageOutput{ImageId: img.ImageId}, nil
	}
	return nil, nil
}

// copyDevices gives a copy the devices of its source, with new snapshots.
func (s *state) copyDevices(c wire.Caller, in *ec2.CopyImageInput, source, img *image, tags []types.Tag) (snapshots []*snapshot, err error) {
	for _, b := range source.BlockDeviceMappings {
		if b.Ebs == nil || b.Ebs.SnapshotId == nil {
			img.BlockDeviceMappings = append(img.BlockDeviceMappings, b)
			continue
		}
		was, err := s.copySource(c, source, *b.Ebs.SnapshotId)
		if err != nil {
			return nil, err
		}
		description := copyDescription(*img.ImageId, *source.ImageId, *b.Ebs.SnapshotId, s.opts.Clock.Now().UnixMilli())
		snap := s.copyOf(c, was, description, tags)
		if in.Encrypted != nil && !*in.Encrypted && aws.ToBool(was.Encrypted) {
			return nil, wire.Errorf("InvalidParameterCombination", "The image is encrypted; a copy cannot be unencrypted")
		}
		if aws.ToBool(in.Encrypted) || aws.ToBool(was.Encrypted) || s.encrypts(c) {
			snap.Encrypted, snap.KmsKeyId = aws.Bool(true), aws.String(s.ebsKey(c, aws.ToString(in.KmsKeyId)))
		}
		snapshots = append(snapshots, snap)
		ebs := *b.Ebs
		ebs.SnapshotId, ebs.Encrypted = snap.SnapshotId, snap.Encrypted
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, types.BlockDeviceMapping{DeviceName: b.DeviceName, Ebs: &ebs})
	}
	return snapshots, nil
}

// copySource returns the snapshot of an image that the caller wants to copy. A publication
// has no snapshots; for it, copySource makes up an equivalent one.
func (s *state) copySource(c wire.Caller, source *image, id string) (*snapshot, error) {
	snap, ok := s.snapshots.Get(id)
	if !ok {
		size := source.snapshotSize(id)
		return &snapshot{Snapshot: types.Snapshot{VolumeSize: &size, Encrypted: aws.Bool(false)}, Base: source.Base, LoginUser: source.LoginUser,
			Architecture: source.Architecture, RootDevice: aws.ToString(source.RootDeviceName)}, nil
	}
	if !s.visible(snap, c.Account) || *snap.OwnerId != c.Account && snap.defaultKey() {
		return nil, wire.Errorf("InvalidRequest", "You do not have permission to access the storage of this ami")
	}
	return snap, s.checkTier(snap)
}

// RegisterImage makes an image from snapshots. It does not check that an instance can boot
// from the root device's snapshot.
func (s *state) RegisterImage(ctx context.Context, in *ec2.RegisterImageInput) (*ec2.RegisterImageOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindImage.resource)
	if err != nil {
		return nil, err
	}
	if aws.ToString(in.ImageLocation) != "" {
		return nil, wire.Errorf("Unsupported", "The embedded cloud cannot register images from S3 buckets.")
	}
	if err := errors.Join(s.checkName(c, in.Name), checkDescription(in.Description)); err != nil {
		return nil, err
	}
	if aws.ToString(in.RootDeviceName) == "" {
		return nil, missing("RootDeviceName")
	}
	if err := checkMappings(in.BlockDeviceMappings); err != nil {
		return nil, err
	}
	img := newImage(c, *in.Name, s.now())
	img.State, img.RootDeviceName, img.Description, img.Tags = types.ImageStateAvailable, in.RootDeviceName, notEmpty(in.Description), tags[kindImage.resource]
	img.BootMode, img.TpmSupport, img.ImdsSupport = in.BootMode, in.TpmSupport, in.ImdsSupport
	img.EnaSupport, img.SriovNetSupport = in.EnaSupport, notEmpty(in.SriovNetSupport)
	if v := aws.ToString(in.VirtualizationType); v != "" && v != "hvm" {
		return nil, wire.Errorf("Unsupported", "The embedded cloud runs only images with the virtualization type hvm.")
	}
	for _, b := range in.BlockDeviceMappings {
		if b.NoDevice != nil {
			continue
		}
		if b.Ebs, err = s.mapped(c, nil, b.Ebs); err != nil {
			return nil, err
		}
		img.BlockDeviceMappings = append(img.BlockDeviceMappings, b)
	}
	root, ok := s.snapshots.Get(img.rootSnapshot())
	switch {
	case !ok:
		return nil, wire.Errorf("InvalidBlockDeviceMapping", "The root device '%s' must be mapped to a snapshot", *in.RootDeviceName)
	case root.State != types.SnapshotStateCompleted:
		return nil, wire.Errorf("IncorrectState", "Snapshot '%s' is not 'completed'.", *root.SnapshotId)
	}
	img.LoginUser = root.LoginUser
	img.Architecture = cmp.Or(in.Architecture, root.Architecture, types.ArchitectureValuesX8664)
	return &ec2.RegisterImageOutput{ImageId: img.ImageId}, s.addImage(ctx, img, nil)
}

// DeregisterImage deregisters an image. It keeps the snapshots unless
// DeleteAssociatedSnapshots is set.
func (s *state) DeregisterImage(ctx context.Context, in *ec2.DeregisterImageInput) (*ec2.DeregisterImageOutput, error) {
	img, err := s.ownImage(wire.CallerFrom(ctx), in.ImageId)
	if err != nil {
		return nil, err
	}
	switch now := img.protection(s.opts.Clock.Now()); {
	case strings.HasPrefix(now, cooling):
		return nil, wire.Errorf("OperationNotPermitted", "The image '%s' is protected from deregistration: its protection is %s.", *img.ImageId, now)
	case now != unprotected:
		return nil, wire.Errorf("OperationNotPermitted", "The image '%s' is protected from deregistration. Disable its deregistration protection and try again.", *img.ImageId)
	}
	if err := s.addTombstone(img); err != nil {
		return nil, err
	}
	if err := s.dropShared(*img.ImageId, s.discardImage); err != nil {
		return nil, err
	}
	out := &ec2.DeregisterImageOutput{Return: aws.Bool(true)}
	if !aws.ToBool(in.DeleteAssociatedSnapshots) {
		return out, nil
	}
	for _, id := range img.snapshotIDs() {
		code := types.SnapshotReturnCodesSuccess
		for _, other := range s.images.Rows {
			if other.has(id) {
				code = types.SnapshotReturnCodesWarnSkipped
			}
		}
		if snap, ok := s.snapshots.Get(id); ok && code == types.SnapshotReturnCodesSuccess && s.checkLock(snap) != nil {
			code = types.SnapshotReturnCodesErrorCodeClientError
		}
		if code == types.SnapshotReturnCodesSuccess {
			if err := s.dropShared(id, s.discardSnapshot); err != nil {
				return nil, err
			}
		}
		out.DeleteSnapshotResults = append(out.DeleteSnapshotResults, types.DeleteSnapshotReturnCode{SnapshotId: &id, ReturnCode: code})
	}
	s.collect()
	return out, nil
}
