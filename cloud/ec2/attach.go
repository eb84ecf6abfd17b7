package ec2

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/confined"
	"bake/cloud/lazyregexp"
	"bake/cloud/machine"
	"bake/cloud/wire"
)

// contents is the content of a volume or a snapshot: layers, topmost first, or the base that they
// will be made from when first needed. A blank volume has neither.
type contents struct {
	layers []string
	base   string
	user   string // login user of instances started from it
}

// contentsOf returns the contents of a snapshot that the caller may use: see fromSnapshot.
func (s *state) contentsOf(c wire.Caller, id string) (contents, error) {
	if snap, ok := s.snapshots.Get(id); ok {
		return contents{layers: snap.Layers, base: snap.Base, user: snap.LoginUser}, nil
	}
	img, err := s.publicationOf(c, id)
	if err != nil || img == nil {
		return contents{}, err
	}
	return contents{base: img.Base, user: img.LoginUser}, nil
}

// publicationOf returns the published image that has the snapshot, or nil.
func (s *state) publicationOf(c wire.Caller, id string) (*image, error) {
	publications, err := s.opts.Images.Publications()
	if err != nil {
		return nil, err
	}
	for _, p := range publications {
		if img := published(p, c.Region); img.has(id) {
			return img, nil
		}
	}
	return nil, nil
}

// validDevice reports whether a device of an instance can have the name.
func validDevice(name string) bool { return len(name) <= 32 && deviceName.Get().MatchString(name) }

var deviceName = lazyregexp.New(`^(/dev/)?[a-z][a-z0-9]*$`)

// machineDevice returns the name that a device has inside the machine: /dev/sdf becomes
// xvdf.
func machineDevice(name string) string {
	name = strings.TrimPrefix(name, "/dev/")
	if letters, ok := strings.CutPrefix(name, "sd"); ok {
		return "xvd" + letters
	}
	return name
}

// detachedDir returns the directory of a volume that is not attached; attachedDir that of
// an attached volume other than the root.
func (e *env) detachedDir(id string) string { return filepath.Join(e.opts.Dir, "attachable", id) }
func (e *env) attachedDir(instance, device string) string {
	return filepath.Join(e.machineDir(instance), machine.VolumesDir, machineDevice(device))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// placeVolumes moves the volumes of an instance, except its root, to where its machine expects
// them. The caller holds the lock of the instance's disk, and the machine is not running.
func (s *Service) placeVolumes(ctx context.Context, instance string) error {
	row := s.instance(instance)
	for _, b := range row.BlockDeviceMappings {
		if *b.DeviceName == aws.ToString(row.RootDeviceName) {
			continue
		}
		if err := s.place(ctx, *b.Ebs.VolumeId, instance, *b.DeviceName); err != nil {
			return fmt.Errorf("volume %s: %w", *b.Ebs.VolumeId, err)
		}
	}
	return nil
}

// place calls putIn with the volume's own lock held. The same lock is held while the
// content of an unattached volume is read.
func (s *Service) place(ctx context.Context, id, instance, device string) error {
	defer s.lockDisk(id)()
	return s.putIn(ctx, id, instance, device)
}

// putIn moves a volume into a machine's directory; a volume that has no directory yet gets
// one there. The caller holds both disks' locks.
func (s *Service) putIn(ctx context.Context, id, instance, device string) error {
	there, here := s.attachedDir(instance, device), s.detachedDir(id)
	if exists(there) {
		return nil
	}
	if err := errors.Join(s.opts.Driver.Private(s.machineDir(instance)), s.opts.Driver.Private(filepath.Dir(there))); err != nil {
		return err
	}
	if !exists(here) {
		if err := s.makeVolume(ctx, id, here); err != nil {
			return err
		}
	}
	return os.Rename(here, there)
}

func (s *Service) makeVolume(ctx context.Context, id, dir string) error {
	v, err := s.volume(id)
	if err != nil {
		return err
	}
	layers := v.Layers
	if v.Base != "" {
		if layers, err = s.opts.Images.Ensure(ctx, v.Base, s.opts.Progress); err != nil {
			return err
		}
	}
	paths, err := s.opts.Images.Paths(layers)
	if err != nil {
		return err
	}
	unfinished := dir + ".new" // the next Open removes it after a crash
	if err := s.opts.Driver.Remove(ctx, unfinished); err != nil {
		return err
	}
	if err := s.opts.Driver.MakeVolume(ctx, unfinished, paths, int64(*v.Size)<<30); err != nil {
		return err
	}
	return os.Rename(unfinished, dir)
}

// takeOut moves a volume out of a machine's directory, if it is there. The caller holds
// the disk's lock, and the volume is not plugged into the machine.
func (e *env) takeOut(id, instance, device string) error {
	err := os.Rename(e.attachedDir(instance, device), e.detachedDir(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// volumeDir returns the directory of a volume that is not a root, or "" if it has none.
func (e *env) volumeDir(v *volumeRow) string {
	dir := e.detachedDir(*v.VolumeId)
	if len(v.Attachments) > 0 && !exists(dir) {
		dir = e.attachedDir(*v.Attachments[0].InstanceId, *v.Attachments[0].Device)
	}
	if !exists(dir) {
		return ""
	}
	return dir
}

// tree returns the content in a volume's directory.
func (e *env) tree(dir string) confined.Dir {
	return e.confine(filepath.Join(dir, machine.VolumeContent))
}

// freezeVolumes turns the contents of volumes that are not in use into layers. The caller
// holds the disk's lock.
func (s *Service) freezeVolumes(ctx context.Context, volumes []string, instance string) (map[string]contents, error) {
	out := map[string]contents{}
	for _, id := range volumes {
		var held contents
		var err error
		if s.isRoot(id, instance) {
			held.layers, err = s.freezeDisk(ctx, instance)
		} else {
			held, err = s.freezeVolume(ctx, id)
		}
		if err != nil {
			return nil, err
		}
		out[id] = held
	}
	return out, nil
}

// holder returns the instance whose lock guards the contents of a volume, or "" if the volume's own
// lock does. A volume belongs to the instance from the moment its attachment begins until its
// detachment has ended.
func (s *Service) holder(volume string) string {
	v, err := s.volume(volume)
	if err != nil || len(v.Attachments) == 0 {
		return ""
	}
	a := v.Attachments[0]
	there := exists(s.attachedDir(*a.InstanceId, *a.Device))
	if s.isRoot(volume, *a.InstanceId) {
		there = a.State != types.VolumeAttachmentStateAttaching
	}
	if !there {
		return ""
	}
	return *a.InstanceId
}

func (s *Service) isRoot(volume, instance string) bool {
	row := s.instance(instance)
	return row != nil && row.root() != nil && *row.root().Ebs.VolumeId == volume
}

// freezeVolume turns the content of a volume's directory into a layer and removes the
// directory, which is made again when a machine needs it. If the process crashes
// meanwhile, the volume's row names the layer: see repairVolume.
func (s *Service) freezeVolume(ctx context.Context, id string) (contents, error) {
	v, err := s.volume(id)
	if err != nil {
		return contents{}, err
	}
	dir := s.volumeDir(v)
	if dir == "" {
		return contents{layers: v.Layers, base: v.Base}, nil
	}
	content := s.tree(dir)
	if blank, err := content.Empty(); err != nil || blank {
		return contents{}, err
	}
	layer := s.opts.Images.NewID()
	if err := s.editVolume(id, func(v *volumeRow) { v.Freezing = layer }); err != nil {
		return contents{}, err
	}
	if err := s.opts.Images.Freeze(ctx, layer, content); err != nil {
		return contents{}, errors.Join(err, s.editVolume(id, func(v *volumeRow) { v.Freezing = "" }))
	}
	return contents{layers: []string{layer}}, s.frozen(ctx, id, dir, layer)
}

// frozen records that the layer is what the volume holds.
func (s *Service) frozen(ctx context.Context, id, dir, layer string) error {
	if err := s.opts.Driver.Remove(ctx, dir); err != nil {
		return err
	}
	return s.editVolume(id, func(v *volumeRow) { v.Layers, v.Base, v.Freezing = []string{layer}, "", "" })
}

// cloneVolumes copies the contents of volumes while their machine keeps running.
func (s *Service) cloneVolumes(ctx context.Context, volumes []string, instance string, m machine.Machine) (_ map[string]contents, err error) {
	in := s.instance(instance)
	if err := m.Freeze(ctx); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, m.Thaw()) }()
	out := map[string]contents{}
	for _, id := range volumes {
		v, err := s.volume(id)
		if err != nil {
			return nil, err
		}
		held := contents{}
		from := s.upper(instance)
		if s.isRoot(id, instance) {
			held.layers = in.Layers
		} else {
			from = s.tree(s.attachedDir(instance, *v.Attachments[0].Device))
			blank, err := from.Empty()
			if err != nil {
				return nil, err
			}
			if blank {
				out[id] = held
				continue
			}
		}
		layer, err := s.opts.Images.Clone(ctx, from)
		if err != nil {
			return nil, err
		}
		held.layers = append([]string{layer}, held.layers...)
		out[id] = held
	}
	return out, nil
}

func (s *Service) volume(id string) (*volumeRow, error) {
	v := view(s, func(st *state) *volumeRow { return st.volumes.Rows[id] })
	if v == nil {
		return nil, kindVolume.notFound(id)
	}
	return v, nil
}

func (s *Service) editVolume(id string, change func(*volumeRow)) error {
	return s.update(func(st *state) error { return st.volumes.Edit(id, change) })
}

// repairVolume repairs a volume after a crash. The instances must have been repaired
// before.
func (s *Service) repairVolume(ctx context.Context, id string) error {
	v, err := s.volume(id)
	if err != nil {
		return err
	}
	if v.Freezing != "" {
		if _, missing := s.opts.Images.Paths([]string{v.Freezing}); missing == nil {
			err = s.frozen(ctx, id, s.volumeDir(v), v.Freezing)
		} else {
			err = s.editVolume(id, func(v *volumeRow) { v.Freezing = "" })
		}
		if err != nil {
			return err
		}
	}
	if len(v.Attachments) == 0 {
		return nil
	}
	a := v.Attachments[0]
	in := s.instance(*a.InstanceId)
	ok := in != nil
	root := ok && *a.Device == aws.ToString(in.RootDeviceName)
	attached := func(st *state) error { return st.attached(id, *a.InstanceId) }
	detached := func(st *state) error { return st.detached(id, *a.InstanceId) }
	switch {
	case root && a.State == types.VolumeAttachmentStateDetaching && len(v.Layers) == 0: // the instance still holds the content
		return s.update(attached)
	case root && a.State == types.VolumeAttachmentStateAttaching && len(in.Layers) == 0: // the volume still holds the content
		return s.update(detached)
	case ok && in.hasVolume(id) && a.State == types.VolumeAttachmentStateDetaching:
		if err := s.takeOut(id, *a.InstanceId, *a.Device); err != nil {
			return err
		}
		return s.update(detached)
	case ok && in.hasVolume(id):
		return s.update(attached)
	case ok && !aws.ToBool(a.DeleteOnTermination): // an attachment was interrupted
		return s.update(detached)
	default: // a launch or a termination was interrupted
		return s.update(func(st *state) error { return st.volumes.Drop(id) })
	}
}

func noRoot(row *instance) error {
	return wire.Errorf("IncorrectInstanceState", "Instance '%s' does not have a volume attached at root (%s)", *row.InstanceId, aws.ToString(row.RootDeviceName))
}

func (s *state) AttachVolume(ctx context.Context, in *ec2.AttachVolumeInput) (*ec2.AttachVolumeOutput, error) {
	c := wire.CallerFrom(ctx)
	v, err := s.volumes.find(c, in.VolumeId)
	if err != nil {
		return nil, err
	}
	row, err := s.findInstance(c, in.InstanceId)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.Device)
	root := name == aws.ToString(row.RootDeviceName)
	switch {
	case name == "":
		return nil, missing("Device")
	case !validDevice(name):
		return nil, invalidValue("Value (%s) for parameter device is invalid. %s is not a valid EBS device name.", name, name)
	case len(v.Attachments) > 0:
		return nil, wire.Errorf("VolumeInUse", "%s is already attached to an instance", *v.VolumeId)
	case row.state() != types.InstanceStateNameRunning && row.state() != types.InstanceStateNameStopped:
		return nil, wire.Errorf("IncorrectState", "Instance '%s' is not 'running' or 'stopped'.", *row.InstanceId)
	case *v.AvailabilityZone != *row.Placement.AvailabilityZone:
		return nil, wire.Errorf("InvalidVolume.ZoneMismatch", "The volume '%s' is not in the same availability zone as instance '%s'", *v.VolumeId, *row.InstanceId)
	case slices.ContainsFunc(row.BlockDeviceMappings, func(b types.InstanceBlockDeviceMapping) bool {
		return machineDevice(*b.DeviceName) == machineDevice(name)
	}):
		return nil, invalidValue("Invalid value '%s' for unixDevice. Attachment point %s is already in use", name, name)
	}
	a := types.VolumeAttachment{InstanceId: row.InstanceId, VolumeId: v.VolumeId, Device: &name, AttachTime: aws.Time(s.now()),
		DeleteOnTermination: aws.Bool(false), State: types.VolumeAttachmentStateAttaching}
	err = s.volumes.Edit(*v.VolumeId, func(v *volumeRow) { v.State, v.Attachments = types.VolumeStateInUse, []types.VolumeAttachment{a} })
	if err != nil {
		return nil, err
	}
	err = s.instances.Edit(*row.InstanceId, func(row *instance) {
		row.BlockDeviceMappings = append(row.BlockDeviceMappings, types.InstanceBlockDeviceMapping{DeviceName: &name, Ebs: &types.EbsInstanceBlockDevice{
			AttachTime: a.AttachTime, DeleteOnTermination: a.DeleteOnTermination, Status: types.AttachmentStatusAttaching, VolumeId: v.VolumeId}})
	})
	if err != nil {
		return nil, err
	}
	id, instance := *v.VolumeId, *row.InstanceId
	s.background(func(ctx context.Context, s *Service) {
		defer s.lockDisk(instance)()
		defer s.lockDisk(id)()
		err := s.attach(ctx, id, instance, name, root)
		if err == nil {
			s.log(id, "attached", s.update(func(st *state) error { return st.attached(id, instance) }))
			return
		}
		s.log(id, "attach to "+instance, errors.Join(err, s.takeOut(id, instance, name), s.update(func(st *state) error { return st.detached(id, instance) })))
	})
	out := &ec2.AttachVolumeOutput{}
	copyFields(out, a)
	return out, nil
}

// attach attaches the volume to the instance. The caller holds both disks' locks.
func (s *Service) attach(ctx context.Context, id, instance, device string, root bool) error {
	if root {
		held, err := s.freezeVolume(ctx, id)
		if err != nil {
			return err
		}
		return s.editInstance(instance, func(row *instanceRow) { row.Layers, row.Base = held.layers, held.base })
	}
	m := s.machineOf(instance)
	if m == nil {
		return nil // the next start will find it
	}
	if err := s.putIn(ctx, id, instance, device); err != nil {
		return err
	}
	return m.Plug(ctx, machineDevice(device))
}

// instanceRow is another name for instance, for functions with a parameter named instance.
type instanceRow = instance

// machineOf returns the instance's running machine, or nil.
func (s *Service) machineOf(instance string) machine.Machine {
	return view(s, func(st *state) machine.Machine {
		if r := st.runners[instance]; r != nil {
			return r.machine
		}
		return nil
	})
}

func (s *state) attached(id, instance string) error {
	err := s.volumes.Edit(id, func(v *volumeRow) { v.setAttachment(types.VolumeAttachmentStateAttached) })
	if err != nil {
		return err
	}
	return s.instances.Edit(instance, func(row *instanceRow) { row.setAttachment(id, types.AttachmentStatusAttached) })
}

// detached records that the volume is no longer attached to the instance.
func (s *state) detached(id, instance string) error {
	err := s.instances.Edit(instance, func(row *instanceRow) {
		row.BlockDeviceMappings = slices.DeleteFunc(row.BlockDeviceMappings, func(b types.InstanceBlockDeviceMapping) bool { return *b.Ebs.VolumeId == id })
	})
	if err != nil {
		return err
	}
	return s.volumes.Edit(id, func(v *volumeRow) { v.State, v.Attachments = types.VolumeStateAvailable, nil })
}

// setAttachment sets the state of the attachment, unless a termination has ended it.
func (v *volumeRow) setAttachment(state types.VolumeAttachmentState) {
	if len(v.Attachments) > 0 {
		v.Attachments[0].State = state
	}
}

func (in *instance) setAttachment(volume string, status types.AttachmentStatus) {
	for i := range in.BlockDeviceMappings {
		if ebs := in.BlockDeviceMappings[i].Ebs; *ebs.VolumeId == volume {
			ebs.Status = status
		}
	}
}

// DetachVolume detaches a volume from an instance. If the machine has it mounted, its
// attachment becomes busy and stays, as on EC2.
func (s *state) DetachVolume(ctx context.Context, in *ec2.DetachVolumeInput) (*ec2.DetachVolumeOutput, error) {
	c := wire.CallerFrom(ctx)
	v, err := s.volumes.find(c, in.VolumeId)
	if err != nil {
		return nil, err
	}
	if len(v.Attachments) == 0 || v.Attachments[0].State == types.VolumeAttachmentStateDetaching {
		return nil, wire.Errorf("IncorrectState", "Volume '%s' is in the 'available' state.", *v.VolumeId)
	}
	a := v.Attachments[0]
	if id := aws.ToString(in.InstanceId); id != "" && id != *a.InstanceId {
		return nil, wire.Errorf("InvalidAttachment.NotFound", "The volume '%s' is not attached to instance '%s' as device '%s'", *v.VolumeId, id, aws.ToString(in.Device))
	}
	row, ok := s.instances.Get(*a.InstanceId)
	root := ok && *a.Device == aws.ToString(row.RootDeviceName)
	if root && row.state() != types.InstanceStateNameStopped {
		return nil, wire.Errorf("OperationNotPermitted", "Unable to detach root volume '%s' from instance '%s'", *v.VolumeId, *a.InstanceId)
	}
	a.State = types.VolumeAttachmentStateDetaching
	id, instance, device := *v.VolumeId, *a.InstanceId, *a.Device
	err = s.volumes.Edit(id, func(v *volumeRow) { v.Attachments = []types.VolumeAttachment{a} })
	if err != nil {
		return nil, err
	}
	err = s.instances.Edit(instance, func(row *instanceRow) { row.setAttachment(id, types.AttachmentStatusDetaching) })
	if err != nil {
		return nil, err
	}
	s.background(func(ctx context.Context, s *Service) {
		defer s.lockDisk(instance)()
		err := s.detach(ctx, id, instance, device, root)
		if err == nil {
			s.log(id, "detached", s.update(func(st *state) error { return st.detached(id, instance) }))
			return
		}
		s.opts.Log.Info("volume stays attached", "volume", id, "instance", instance, "error", err)
		s.log(id, "busy", s.editVolume(id, func(v *volumeRow) { v.setAttachment(types.VolumeAttachmentStateBusy) }))
	})
	out := &ec2.DetachVolumeOutput{}
	copyFields(out, a)
	return out, nil
}

// detach removes the volume from the instance. The caller holds the lock of the instance's
// disk.
func (s *Service) detach(ctx context.Context, id, instance, device string, root bool) error {
	if root {
		layers, err := s.freezeDisk(ctx, instance)
		if err != nil {
			return err
		}
		return s.update(func(st *state) error {
			row, _ := st.instances.Get(instance)
			err := st.volumes.Edit(id, func(v *volumeRow) { v.Layers, v.LoginUser = layers, row.LoginUser })
			if err != nil {
				return err
			}
			return st.instances.Edit(instance, func(row *instanceRow) { row.Layers, row.Base = nil, "" })
		})
	}
	if m := s.machineOf(instance); m != nil {
		if err := m.Unplug(ctx, machineDevice(device)); err != nil {
			select {
			case <-m.Done():
			default:
				return err
			}
		}
	}
	return s.takeOut(id, instance, device)
}
