package destroy

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/step"
)

// Tagged lists everything in the session's region that carries the tag of a run, in the
// order of deletion. An empty run means all runs. Resources that are deleted together with
// another one are not listed. Each has its creation time, if that is known.
func Tagged(ctx context.Context, session *access.Session, run string) ([]step.Resource, error) {
	f := &finder{session: session, run: run, client: session.EC2(session.Region), filters: []types.Filter{{Name: new("tag-key"), Values: []string{ownership.RunTag}}}}
	if run != "" {
		f.filters = []types.Filter{{Name: new("tag:" + ownership.RunTag), Values: []string{run}}}
	}
	for _, find := range []func(context.Context) error{f.instances, f.imports, f.images, f.snapshots, f.volumes, f.interfaces, f.groups, f.keyPairs, f.templates, f.profiles} {
		if err := find(ctx); err != nil {
			return nil, err
		}
	}
	f.date()
	return f.found, nil
}

// date sets the creation times that the cloud does not report: the latest creation time of
// any resource of the same build, or the start of the build.
func (f *finder) date() {
	newest := map[string]time.Time{}
	for _, r := range f.found {
		build := r.With[ownership.WithBuild]
		if at, err := time.Parse(time.RFC3339, r.With[ownership.WithCreated]); err == nil && at.After(newest[build]) {
			newest[build] = at
		}
	}
	for _, r := range f.found {
		if r.With[ownership.WithCreated] != "" {
			continue
		}
		build := r.With[ownership.WithBuild]
		at := ownership.Since(build)
		if newest[build].After(at) {
			at = newest[build]
		}
		if !at.IsZero() {
			r.With[ownership.WithCreated] = at.UTC().Format(time.RFC3339)
		}
	}
}

type finder struct {
	session *access.Session
	client  *ec2.Client
	run     string // empty: any
	filters []types.Filter
	found   []step.Resource

	included []string // ids that go with one in found
}

// add adds a resource. created is nil if the cloud does not report it.
func (f *finder) add(kind string, id *string, tags []types.Tag, name *string, created *time.Time) {
	with := f.session.With(f.session.Region)
	for k, v := range map[string]string{
		ownership.WithRun:   ownership.Value(tags, ownership.RunTag),
		ownership.WithBuild: ownership.Value(tags, ownership.BuildTag),
		ownership.WithName:  aws.ToString(name),
	} {
		if v != "" {
			with[k] = v
		}
	}
	if created != nil {
		with[ownership.WithCreated] = created.UTC().Format(time.RFC3339)
	}
	f.found = append(f.found, step.Resource{Kind: kind, Key: aws.ToString(id), ID: aws.ToString(id), Where: f.session.Region, With: with})
}

func (f *finder) instances(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeInstances, &ec2.DescribeInstancesInput{Filters: f.filters})
	if err != nil {
		return err
	}
	for _, r := range out.Reservations {
		for _, i := range r.Instances {
			if i.State != nil && i.State.Name == types.InstanceStateNameTerminated {
				continue
			}
			f.add(ownership.Instance, i.InstanceId, i.Tags, nil, i.LaunchTime)
			for _, bdm := range i.BlockDeviceMappings {
				if bdm.Ebs != nil {
					f.included = append(f.included, aws.ToString(bdm.Ebs.VolumeId))
				}
			}
		}
	}
	return nil
}

// imports lists the tasks that are in progress, or whose image was not handed over.
func (f *finder) imports(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeImportImageTasks, &ec2.DescribeImportImageTasksInput{})
	if err != nil {
		return err
	}
	for _, t := range out.ImportImageTasks {
		run := ownership.Value(t.Tags, ownership.RunTag)
		if over := aws.ToString(t.Status) == "deleted"; !over && run != "" && (f.run == "" || f.run == run) {
			f.add(ownership.ImportTask, t.ImportTaskId, t.Tags, nil, nil)
			f.included = append(f.included, aws.ToString(t.ImageId))
		}
	}
	return nil
}

func (f *finder) images(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeImages, &ec2.DescribeImagesInput{Owners: []string{"self"}, Filters: f.filters, IncludeDeprecated: new(true)})
	if err != nil {
		return err
	}
	for _, i := range out.Images {
		f.add(ownership.Image, i.ImageId, i.Tags, i.Name, imageCreated(i))
		f.included = append(f.included, SnapshotIDs(i)...)
	}
	return nil
}

// imageCreated returns the creation time of an image, or nil if it cannot be parsed.
func imageCreated(i types.Image) *time.Time {
	at, err := time.Parse(time.RFC3339, aws.ToString(i.CreationDate))
	if err != nil {
		return nil
	}
	return &at
}

func (f *finder) snapshots(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeSnapshots, &ec2.DescribeSnapshotsInput{OwnerIds: []string{"self"}, Filters: f.filters})
	if err != nil {
		return err
	}
	for _, s := range out.Snapshots {
		if !slices.Contains(f.included, aws.ToString(s.SnapshotId)) {
			f.add(ownership.Snapshot, s.SnapshotId, s.Tags, nil, s.StartTime)
		}
	}
	return nil
}

func (f *finder) volumes(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeVolumes, &ec2.DescribeVolumesInput{Filters: f.filters})
	if err != nil {
		return err
	}
	for _, v := range out.Volumes {
		if v.State != types.VolumeStateDeleting && !slices.Contains(f.included, aws.ToString(v.VolumeId)) {
			f.add(ownership.Volume, v.VolumeId, v.Tags, nil, v.CreateTime)
		}
	}
	return nil
}

// interfaces lists the unattached network interfaces: the others are deleted with their
// instance.
func (f *finder) interfaces(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeNetworkInterfaces, &ec2.DescribeNetworkInterfacesInput{Filters: f.filters})
	if err != nil {
		return err
	}
	for _, n := range out.NetworkInterfaces {
		if n.Status == types.NetworkInterfaceStatusAvailable {
			f.add(ownership.NetworkInterface, n.NetworkInterfaceId, n.TagSet, nil, nil)
		}
	}
	return nil
}

func (f *finder) groups(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: f.filters})
	if err != nil {
		return err
	}
	for _, g := range out.SecurityGroups {
		f.add(ownership.SecurityGroup, g.GroupId, g.Tags, g.GroupName, nil)
	}
	return nil
}

func (f *finder) keyPairs(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeKeyPairs, &ec2.DescribeKeyPairsInput{Filters: f.filters})
	if err != nil {
		return err
	}
	for _, k := range out.KeyPairs {
		f.add(ownership.KeyPair, k.KeyPairId, k.Tags, k.KeyName, k.CreateTime)
	}
	return nil
}

func (f *finder) templates(ctx context.Context) error {
	out, err := access.Call(ctx, f.client.DescribeLaunchTemplates, &ec2.DescribeLaunchTemplatesInput{Filters: f.filters})
	if access.Is(err, "InvalidAction") {
		return nil // not every implementation of EC2 has launch templates
	}
	if err != nil {
		return err
	}
	for _, t := range out.LaunchTemplates {
		f.add(ownership.LaunchTemplate, t.LaunchTemplateId, t.Tags, t.LaunchTemplateName, t.CreateTime)
	}
	return nil
}
