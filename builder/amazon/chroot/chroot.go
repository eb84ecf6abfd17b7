// Package chroot is the builder amazon-chroot: on an EC2 instance, it attaches a
// volume to that instance itself, provisions what is in it by chroot, and makes an
// image of it. Nothing is launched.
package chroot

import (
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
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/ownership"
	"bake/communicator/chroot"
	"bake/component"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazon.chroot"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	return FactoryOn(func(s *access.Session, env []string) Host { return thisHost(s.InstanceID, env) })(cloud)
}

// FactoryOn makes the builder for another machine than this one.
func FactoryOn(host func(s *access.Session, env []string) Host) func(access.Cloud) component.Factory[builder.Builder] {
	return func(cloud access.Cloud) component.Factory[builder.Builder] {
		return component.Define("amazon-chroot", Defaults, func(o *Options, src *schema.Source) builder.Builder {
			return &onVolume{Options: o, src: src, cloud: cloud, host: host}
		}).Exporting(amazonbuild.Exports())
	}
}

type onVolume struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
	host  func(*access.Session, []string) Host
}

// work is one build under way.
type work struct {
	*onVolume
	*amazonbuild.Flow
	Host
	context gotemplate.Context

	instance types.Instance // that bake runs on
	source   types.Image    // zero if from_scratch
	volume   string
	device   string // of the volume on this machine
	mounted  string // where the volume is mounted
	undo     []func(context.Context) error
}

// Build implements [builder.Builder].
func (b *onVolume) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (_ *builder.Artifact, err error) {
	f, err := amazonbuild.Open(ctx, s, b.src, b.cloud, &b.Access.Options, nil)
	if err != nil {
		return nil, err
	}
	w := &work{onVolume: b, Flow: f, Host: b.host(f.Session, s.Run.Env)}
	w.context = gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	images := f.Images(&b.Image.Options, &b.Region)
	if err := images.Check(ctx); err != nil {
		return nil, err
	}
	if err := w.look(ctx); err != nil {
		return nil, err
	}
	p := amazonbuild.Prepared{Texts: interpolate.New(s, b.src, f.Session.Region)}
	if !b.FromScratch {
		p.Texts = p.Texts.With(w.source)
	}
	labels, err := p.Labels(&b.Image.Options)
	if err != nil {
		return nil, err
	}
	tags, err := p.Texts.Tags(interpolate.Of(&b.RootVolumeTags, b.RootVolumeTag))
	if err != nil {
		return nil, err
	}
	if err := w.attach(ctx, tags); err != nil {
		return nil, err
	}
	data := interpolate.Data(w.source)
	data["BuildRegion"], data["ID"] = f.Session.Region, aws.ToString(w.instance.InstanceId)
	err = w.fill(ctx, provision, data)
	// Whatever happened, the volume is let go, even if the build is cancelled.
	err = errors.Join(err, w.leave(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, err
	}
	if err = step.Run(ctx, s, "detach the volume", func(ctx context.Context) error { return f.Detach(ctx, w.volume) }); err != nil {
		return nil, err
	}
	first, err := w.register(ctx, images, labels)
	if err != nil {
		return nil, err
	}
	made, err := images.Distribute(ctx, first, labels)
	if len(made) == 0 {
		return nil, err
	}
	return image.Artifact(BuilderID, made, data), err
}

// look finds out what instance this is, and what image to start from.
func (w *work) look(ctx context.Context) error {
	client := access.EC2(w.Session, w.Session.Region)
	err := step.Run(ctx, w.Scope, "identify this instance", func(ctx context.Context) error {
		id, err := w.Instance(ctx)
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
	if err != nil || w.FromScratch {
		return err
	}
	if w.source, err = w.Selection.Find(ctx, w.Scope, w.Session, w.Src, types.DeviceTypeEbs); err == nil && w.sourceRoot() == nil {
		err = fmt.Errorf("EC2 does not say which volume is the root of the source image %s", aws.ToString(w.source.ImageId))
	}
	return err
}

// sourceRoot is the mapping of the source image's root, or nil.
func (w *work) sourceRoot() *types.BlockDeviceMapping {
	for i, m := range w.source.BlockDeviceMappings {
		if m.Ebs != nil && aws.ToString(m.DeviceName) == aws.ToString(w.source.RootDeviceName) {
			return &w.source.BlockDeviceMappings[i]
		}
	}
	return nil
}

// attach makes the volume and attaches it to this instance.
func (w *work) attach(ctx context.Context, tags map[string]string) error {
	token := uuid.NewString()
	in := &ec2.CreateVolumeInput{
		AvailabilityZone: w.instance.Placement.AvailabilityZone, ClientToken: &token, VolumeType: types.VolumeType(w.RootVolumeType),
		Encrypted: w.RootVolumeEncryptBoot, TagSpecifications: w.Owner.Specs(tags, types.ResourceTypeVolume),
	}
	if w.RootVolumeKMSKeyID != "" {
		in.KmsKeyId = &w.RootVolumeKMSKeyID
	}
	size := int32(w.RootVolumeSize) //nolint:gosec // validated
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
	return w.alone(ctx, func() (err error) {
		w.device = w.DevicePath
		if w.device == "" {
			if w.device, err = w.freeDevice(); err != nil {
				return err
			}
		}
		region := w.Session.Region
		want := w.Owner.Resource(ownership.Volume, "volume "+w.Owner.ID, region)
		w.volume, err = ownership.Acquire(ctx, w.Scope, "create the volume", want, func(ctx context.Context) (string, string, error) {
			out, err := access.Finish(ctx, access.EC2(w.Session, region).CreateVolume, in)
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

// wrapped is a command of this machine as the user wants it run.
func (w *work) wrapped(command string) (string, error) {
	text, err := w.context.Render(w.CommandWrapper, map[string]any{"Command": command})
	if err != nil {
		return "", w.Src.Errorf(&w.CommandWrapper, "Invalid {{ }} template", "%s.", err)
	}
	return text, nil
}

func (w *work) command(ctx context.Context, words ...string) error {
	for i := range words {
		words[i] = quote(words[i])
	}
	line, err := w.wrapped(strings.Join(words, " "))
	if err == nil {
		_, err = w.Run(ctx, line)
	}
	return err
}

func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=:,./@%") == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// commands runs those of an option.
func (w *work) commands(ctx context.Context, name string, option *[]string) error {
	if len(*option) == 0 {
		return nil
	}
	err := step.Run(ctx, w.Scope, name, func(ctx context.Context) error {
		for _, text := range *option {
			line, err := w.context.Render(text, map[string]any{"Device": w.device, "MountPath": w.mounted})
			if err != nil {
				return w.Src.Errorf(option, "Invalid {{ }} template", "%s.", err)
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
	return err
}

// fill mounts the volume and provisions what is in it. leave undoes the mounts.
func (w *work) fill(ctx context.Context, provision builder.Provision, data map[string]any) error {
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
	defer machine.Close()
	data["MountPath"], data["Device"] = w.mounted, w.device
	err := step.Run(ctx, w.Scope, "provision", func(ctx context.Context) error {
		return provision(ctx, builder.Machine{Communicator: machine, Data: maps.Clone(data)})
	})
	return err
}

func (w *work) mount(ctx context.Context) error {
	where, err := w.context.Render(w.MountPath, map[string]any{"Device": path.Base(w.device)})
	if err != nil {
		return w.Src.Errorf(&w.MountPath, "Invalid {{ }} template", "%s.", err)
	}
	if err := w.command(ctx, "mkdir", "-p", where); err != nil {
		return err
	}
	from := w.device
	hvm := w.VirtualizationType == "hvm" || !w.FromScratch && w.source.VirtualizationType == types.VirtualizationTypeHvm
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

// mountMore mounts what chroot_mounts list, and copies the files.
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

// leave removes the copied files and unmounts, the last first. It tries all.
func (w *work) leave(ctx context.Context) error {
	var errs []error
	for _, undo := range slices.Backward(w.undo) {
		errs = append(errs, undo(ctx))
	}
	w.undo = nil
	return errors.Join(errs...)
}

// register makes a snapshot of the volume and an image of it.
func (w *work) register(ctx context.Context, images *image.Maker, labels image.Labels) (image.Made, error) {
	snapshot, err := w.Snapshot(ctx, w.volume, w.device, "", image.SnapshotTags(labels))
	if err != nil {
		return image.Made{}, err
	}
	in := images.Request(w.Firmware)
	root := w.RootDeviceName
	if root == "" {
		root = aws.ToString(w.source.RootDeviceName)
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
		for _, m := range w.source.BlockDeviceMappings {
			if m.Ebs != nil {
				ebs := *m.Ebs
				ebs.Encrypted, ebs.KmsKeyId = nil, nil
				m.Ebs = &ebs
			}
			if aws.ToString(m.DeviceName) == aws.ToString(w.source.RootDeviceName) {
				m.DeviceName, m.Ebs.SnapshotId = &root, &snapshot.ID
			}
			in.BlockDeviceMappings = append(in.BlockDeviceMappings, m)
		}
	}
	for _, m := range in.BlockDeviceMappings {
		if aws.ToString(m.DeviceName) != root || m.Ebs == nil {
			continue
		}
		if size := int32(w.RootVolumeSize); size > aws.ToInt32(m.Ebs.VolumeSize) { //nolint:gosec // validated
			m.Ebs.VolumeSize = &size
		}
	}
	return images.Register(ctx, in, labels, []string{snapshot.Resource.Key})
}

// inherit takes over from the source image what the options do not say.
func (w *work) inherit(in *ec2.RegisterImageInput) {
	if !w.Src.Set(&w.Architecture) {
		in.Architecture = w.source.Architecture
	}
	if w.VirtualizationType == "" {
		in.VirtualizationType = aws.String(string(w.source.VirtualizationType))
	}
	if w.BootMode == "" {
		in.BootMode = w.source.BootMode
	}
	if w.TPMSupport == "" {
		in.TpmSupport = w.source.TpmSupport
	}
	if w.ENASupport == nil && aws.ToBool(w.source.EnaSupport) {
		in.EnaSupport = w.source.EnaSupport
	}
	if in.SriovNetSupport == nil {
		in.SriovNetSupport = w.source.SriovNetSupport
	}
}
