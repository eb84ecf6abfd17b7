// Package chroot is the builder amazon-chroot. It runs on an EC2 instance, attaches a
// volume to that instance, provisions the volume in a chroot, and makes an image from it.
// It launches no instance.
package chroot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/sourceami"
	"bake/communicator/chroot"
	"bake/internal/shellquote"
	"bake/step"
)

// builderID is the builder ID in the artifacts of this builder.
const builderID = "mitchellh.amazon.chroot"

// Factory returns the factory of the builder. cloud replaces AWS.
func Factory(cloud access.Cloud) amazonbuild.Factory {
	return FactoryOn(func(s *access.Session, env []string) Host { return thisHost(s.InstanceID, env) })(cloud)
}

// FactoryOn returns the factory of the builder for a machine other than this one.
func FactoryOn(host func(s *access.Session, env []string) Host) func(access.Cloud) amazonbuild.Factory {
	return func(cloud access.Cloud) amazonbuild.Factory {
		return amazonbuild.Define("amazon-chroot", builderID, cloud, defaults, func(o *Options) amazonbuild.Recipe {
			return amazonbuild.Recipe{
				Access: &o.Access.Options, Image: &o.Image.Options, Permissions: o.permissions, Selection: o.selection(),
				Hooks: func(b *amazonbuild.Build) (amazonbuild.Hooks, error) {
					w := &work{Options: o, Build: b, Host: host(b.Session, b.Scope.Run.Env)}
					return amazonbuild.Hooks{Prepare: w.find, Work: w.provision, Stop: w.detach, Make: w.register}, nil
				},
			}
		})
	}
}

// work is one build in progress.
type work struct {
	*Options
	*amazonbuild.Build
	Host

	instance types.Instance // that bake runs on
	volume   string
	device   string // of the volume on this machine
	mounted  string // where the volume is mounted
	undo     []func(context.Context) error
}

// provision attaches the volume and provisions its content. It always detaches the volume,
// even if the build fails or is cancelled.
func (w *work) provision(ctx context.Context, provision builder.Provision) error {
	tags, err := w.Texts.Tags(interpolate.Of(&w.RootVolumeTags, w.RootVolumeTag))
	if err != nil {
		return err
	}
	if err := w.attach(ctx, tags); err != nil {
		return err
	}
	w.Data = interpolate.Data(w.Source)
	w.Data["BuildRegion"], w.Data["ID"] = builder.Text(w.Session.Region), builder.Text(aws.ToString(w.instance.InstanceId))
	err = w.mountAndProvision(ctx, provision)
	return errors.Join(err, w.unmount(context.WithoutCancel(ctx)))
}

func (w *work) detach(ctx context.Context) error {
	return step.Run(ctx, w.Scope, "detach the volume", func(ctx context.Context) error { return w.Detach(ctx, w.volume) })
}

// find determines the ID of this instance, and the source image.
func (w *work) find(ctx context.Context) error {
	client := w.Session.EC2(w.Session.Region)
	err := step.Run(ctx, w.Scope, "identify this instance", func(ctx context.Context) error {
		id, err := w.Host.Instance(ctx)
		if err != nil {
			return fmt.Errorf("amazon-chroot must run on an EC2 instance, and this machine does not seem to be one: %w", err)
		}
		out, err := access.Call(ctx, client.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			return err
		}
		for _, r := range out.Reservations {
			for _, i := range r.Instances {
				w.instance = i
			}
		}
		if w.instance.Placement == nil {
			return fmt.Errorf("EC2 returned nothing about this instance, %s", id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if w.FromScratch {
		return w.checkSource(ctx)
	}
	if w.Source, err = w.Selection.Find(ctx, w.Scope, w.Session, w.Src, types.DeviceTypeEbs); err != nil {
		return err
	}
	if w.sourceRoot() == nil {
		return fmt.Errorf("EC2 does not say which volume is the root of the source image %s", aws.ToString(w.Source.ImageId))
	}
	w.Texts = w.Texts.With(w.Source)
	return w.checkSource(ctx)
}

// checkSource returns an error for an image that could not be shared. The new volume is the
// root of the image; the other devices of the source image keep their encryption.
func (w *work) checkSource(ctx context.Context) error {
	source, root := w.Source, cmp.Or(aws.ToString(w.Source.RootDeviceName), w.RootDeviceName)
	source.BlockDeviceMappings = slices.DeleteFunc(slices.Clone(source.BlockDeviceMappings), func(b types.BlockDeviceMapping) bool {
		return aws.ToString(b.DeviceName) != root && (len(w.BlockDeviceMappings) > 0 || b.Ebs == nil || !aws.ToBool(b.Ebs.Encrypted))
	})
	return w.Images.CheckSharing(ctx, source, []*device.Mapping{{DeviceName: root, Encrypted: w.RootVolumeEncryptBoot, KMSKeyID: w.RootVolumeKMSKeyID}})
}

// sourceRoot returns the mapping of the source image's root, or nil.
func (w *work) sourceRoot() *types.BlockDeviceMapping {
	for i, m := range w.Source.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(w.Source.RootDeviceName) {
			return &w.Source.BlockDeviceMappings[i]
		}
	}
	return nil
}

// request returns the volume to make: empty, or one with the root of the source image.
func (w *work) request(tags map[string]string) *ec2.CreateVolumeInput {
	token := uuid.NewString()
	in := &ec2.CreateVolumeInput{
		AvailabilityZone: w.instance.Placement.AvailabilityZone, ClientToken: &token, VolumeType: types.VolumeType(w.RootVolumeType),
		Encrypted: w.RootVolumeEncryptBoot, TagSpecifications: w.Owner.Specs(tags, types.ResourceTypeVolume),
	}
	if w.RootVolumeKMSKeyID != "" {
		in.KmsKeyId = &w.RootVolumeKMSKeyID
	}
	size := int32(w.RootVolumeSize) // validated
	if w.FromScratch {
		if in.VolumeType == "" {
			in.VolumeType = types.VolumeTypeGp2
		}
	} else {
		root := w.sourceRoot().Ebs
		size = max(size, aws.ToInt32(root.VolumeSize))
		in.SnapshotId = root.SnapshotId
		if in.VolumeType == "" {
			in.VolumeType = root.VolumeType
		}
		if in.VolumeType == root.VolumeType {
			in.Throughput = root.Throughput
			if in.VolumeType != types.VolumeTypeGp2 {
				in.Iops = root.Iops
			}
		}
	}
	in.Size = &size
	return in
}

// attach makes the volume and attaches it to this instance.
func (w *work) attach(ctx context.Context, tags map[string]string) error {
	in := w.request(tags)
	return w.exclusively(ctx, func() (err error) {
		w.device = w.DevicePath
		if w.device == "" {
			if w.device, err = w.freeDevice(); err != nil {
				return err
			}
		}
		region := w.Session.Region
		want := w.Owner.Resource(ownership.Volume, "volume "+w.Owner.ID, region)
		w.volume, err = ownership.Acquire(ctx, w.Scope, "create the volume", want, func(ctx context.Context) (string, string, error) {
			out, err := access.Finish(ctx, w.Session.EC2(region).CreateVolume, in)
			if err != nil {
				return "", "", err
			}
			return aws.ToString(out.VolumeId), aws.ToString(out.VolumeId), nil
		})
		if err != nil {
			return err
		}
		err = step.Run(ctx, w.Scope, "attach the volume as "+w.device, func(ctx context.Context) error {
			if err := w.Available(ctx, w.volume); err != nil {
				return err
			}
			name := strings.Replace(w.device, "/xvd", "/sd", 1)
			if err := w.Attach(ctx, w.volume, aws.ToString(w.instance.InstanceId), name); err != nil {
				return err
			}
			if w.NVMeDevicePath != "" {
				w.device = w.NVMeDevicePath
			}
			return w.await(ctx, w.device)
		})
		return err
	})
}

// wrapped returns a command for this machine in the form that the user has defined with
// command_wrapper.
func (w *work) wrapped(command string) (string, error) {
	return w.Render(&w.CommandWrapper, w.CommandWrapper, map[string]any{"Command": command})
}

func (w *work) command(ctx context.Context, words ...string) error {
	line, err := w.wrapped(shellquote.Join(words...))
	if err == nil {
		_, err = w.Run(ctx, line)
	}
	return err
}

// commands runs the commands of an option.
func (w *work) commands(ctx context.Context, name string, option *[]string) error {
	if len(*option) == 0 {
		return nil
	}
	return step.Run(ctx, w.Scope, name, func(ctx context.Context) error {
		for _, text := range *option {
			line, err := w.Render(option, text, map[string]any{"Device": w.device, "MountPath": w.mounted})
			if err != nil {
				return err
			}
			if line, err = w.wrapped(line); err != nil {
				return err
			}
			out, err := w.Run(ctx, line)
			for text := range strings.Lines(out) {
				w.Scope.Output(ctx, step.Output, strings.TrimSuffix(text, "\n"))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// mountAndProvision mounts the volume and provisions its content. unmount undoes the
// mounts.
func (w *work) mountAndProvision(ctx context.Context, provision builder.Provision) error {
	if err := w.commands(ctx, "run pre_mount_commands", &w.PreMountCommands); err != nil {
		return err
	}
	if err := step.Run(ctx, w.Scope, "mount the volume", func(ctx context.Context) error { return w.mount(ctx) }); err != nil {
		return err
	}
	if err := w.commands(ctx, "run post_mount_commands", &w.PostMountCommands); err != nil {
		return err
	}
	if err := step.Run(ctx, w.Scope, "mount the chroot's file systems", func(ctx context.Context) error { return w.mountMore(ctx) }); err != nil {
		return err
	}
	machine := chroot.New(w.mounted, w.wrapped, w.Scope.Run.Env)
	defer func() { _ = machine.Close() }()
	w.Data["MountPath"], w.Data["Device"] = builder.Text(w.mounted), builder.Text(w.device)
	return step.Run(ctx, w.Scope, "provision", func(ctx context.Context) error {
		return provision(ctx, builder.Machine{Communicator: machine, Data: maps.Clone(w.Data)})
	})
}

func (w *work) mount(ctx context.Context) error {
	where, err := w.Render(&w.MountPath, w.MountPath, map[string]any{"Device": path.Base(w.device)})
	if err != nil {
		return err
	}
	if err := w.command(ctx, "mkdir", "-p", where); err != nil {
		return err
	}
	from := w.device
	hvm := w.VirtualizationType == "hvm" || !w.FromScratch && w.Source.VirtualizationType == types.VirtualizationTypeHvm
	if w.MountPartition != "0" && hvm {
		if strings.HasPrefix(path.Base(from), "nvme") {
			from += "p"
		}
		from += w.MountPartition
	}
	words := []string{"mount"}
	for _, o := range w.MountOptions {
		words = append(words, "-o", o)
	}
	if err := w.command(ctx, append(words, from, where)...); err != nil {
		return err
	}
	w.mounted = where
	w.undo = append(w.undo, func(ctx context.Context) error { return w.command(ctx, "umount", where) })
	return nil
}

// mountMore mounts the entries of chroot_mounts, and copies the files.
func (w *work) mountMore(ctx context.Context) error {
	for _, m := range w.ChrootMounts {
		place := path.Join(w.mounted, m[2])
		if err := w.command(ctx, "mkdir", "-p", place); err != nil {
			return err
		}
		words := []string{"mount", "-t", m[0], m[1], place}
		if m[0] == "bind" {
			words = []string{"mount", "--bind", m[1], place}
		}
		if err := w.command(ctx, words...); err != nil {
			return err
		}
		w.undo = append(w.undo, func(ctx context.Context) error { return w.command(ctx, "umount", place) })
	}
	files := w.CopyFiles
	if !w.Src.Set(&w.CopyFiles) && !w.FromScratch {
		files = []string{"/etc/resolv.conf"}
	}
	for _, file := range files {
		place := path.Join(w.mounted, file)
		if err := w.command(ctx, "cp", "--remove-destination", file, place); err != nil {
			return err
		}
		w.undo = append(w.undo, func(ctx context.Context) error { return w.command(ctx, "rm", "-f", place) })
	}
	return nil
}

// unmount removes the copied files and unmounts in reverse order. It continues after
// errors.
func (w *work) unmount(ctx context.Context) error {
	var errs []error
	for _, undo := range slices.Backward(w.undo) {
		errs = append(errs, undo(ctx))
	}
	w.undo = nil
	return errors.Join(errs...)
}

// register makes a snapshot of the volume and an image of it.
func (w *work) register(ctx context.Context) (image.Made, error) {
	snapshot, err := w.Snapshot(ctx, w.volume, w.device, "", image.SnapshotTags(w.Labels))
	if err != nil {
		return image.Made{}, err
	}
	in := w.Images.Request(w.Firmware)
	root := w.RootDeviceName
	if root == "" {
		root = aws.ToString(w.Source.RootDeviceName)
	}
	in.RootDeviceName = &root
	if !w.FromScratch {
		w.inherit(in)
	}
	if len(w.BlockDeviceMappings) > 0 {
		for _, m := range w.Image.Devices() {
			if m.DeviceName != root {
				in.BlockDeviceMappings = append(in.BlockDeviceMappings, m.EC2())
				continue
			}
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, image.FromSnapshot(m, snapshot.ID))
		}
	} else {
		for _, m := range w.Source.BlockDeviceMappings {
			if m.Ebs != nil {
				ebs := *m.Ebs
				ebs.Encrypted, ebs.KmsKeyId = nil, nil
				m.Ebs = &ebs
			}
			if aws.ToString(m.DeviceName) == aws.ToString(w.Source.RootDeviceName) {
				m.DeviceName, m.Ebs.SnapshotId = &root, &snapshot.ID
			}
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m)
		}
	}
	for _, m := range in.BlockDeviceMappings {
		if aws.ToString(m.DeviceName) != root || m.Ebs == nil {
			continue
		}
		if size := int32(w.RootVolumeSize); size > aws.ToInt32(m.Ebs.VolumeSize) { // validated
			m.Ebs.VolumeSize = &size
		}
	}
	return w.Images.Register(ctx, in, w.Labels, []string{snapshot.Resource.Key})
}

// inherit sets attributes from the source image that the options do not set.
func (w *work) inherit(in *ec2.RegisterImageInput) {
	if !w.Src.Set(&w.Architecture) {
		in.Architecture = w.Source.Architecture
	}
	if w.VirtualizationType == "" {
		in.VirtualizationType = aws.String(string(w.Source.VirtualizationType))
	}
	if w.BootMode == "" {
		in.BootMode = w.Source.BootMode
	}
	if w.TPMSupport == "" {
		in.TpmSupport = w.Source.TpmSupport
	}
	if w.ENASupport == nil && aws.ToBool(w.Source.EnaSupport) {
		in.EnaSupport = w.Source.EnaSupport
	}
	if in.SriovNetSupport == nil {
		in.SriovNetSupport = w.Source.SriovNetSupport
	}
}

// selection returns the selection of the source image; nil if the build starts from
// scratch.
func (o *Options) selection() *sourceami.Selection {
	if o.FromScratch {
		return nil
	}
	return &o.Selection
}
