// Package ebsvolume is the builder amazon-ebsvolume: an instance prepares volumes,
// which stay, or snapshots of them.
package ebsvolume

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/amazonbuild"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/ownership"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazon.ebsvolume"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	return component.Define("amazon-ebsvolume", Defaults, func(o *Options, src *schema.Source) builder.Builder {
		return &volumes{Options: o, src: src, cloud: cloud}
	}).Exporting(amazonbuild.Exports())
}

type volumes struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// Build implements [builder.Builder].
func (b *volumes) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (*builder.Artifact, error) {
	f, err := amazonbuild.Open(ctx, s, b.src, b.cloud, &b.Access.Options, &b.Launch.Options)
	if err != nil {
		return nil, err
	}
	f.Machines.Devices = b.devices()
	base, err := f.Prepare(ctx, interpolate.Of(&b.RunVolumeTags, b.RunVolumeTag))
	if err != nil {
		return nil, err
	}
	instance, data, err := f.Work(ctx, base, provision)
	if err != nil {
		return nil, err
	}
	made, err := b.tag(ctx, f, base, instance)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(instance.InstanceId)
	if err := f.Machines.Stop(ctx, id); err != nil {
		return nil, err
	}
	if err := f.Machines.ModifyInstance(ctx, id, b.SRIOVSupport, b.ENASupport); err != nil {
		return nil, err
	}
	if err := b.snapshot(ctx, f, base, made); err != nil {
		return nil, err
	}
	return b.handOver(ctx, f, base, made, data)
}

// product is one of the volumes and its snapshot.
type product struct {
	*Volume
	id       string
	tags     map[string]string
	snapshot amazonbuild.Snapshot
}

// stays reports whether the volume outlives the instance.
func (p product) stays() bool { return !p.DeleteOnTermination }

// tag gives the volumes their tags.
func (b *volumes) tag(ctx context.Context, f *amazonbuild.Flow, base amazonbuild.Prepared, instance types.Instance) ([]product, error) {
	return step.Do(ctx, f.Scope, "tag the volumes", func(ctx context.Context) ([]product, error) {
		ids := amazonbuild.Volumes(instance)
		var made []product
		for i := range b.Volumes {
			v := &b.Volumes[i]
			if v.NoDevice || v.VirtualName != "" {
				continue
			}
			p := product{Volume: v, id: ids[v.DeviceName]}
			if p.id == "" {
				return nil, b.src.Errorf(&v.DeviceName, "No volume", "The instance has no volume at %s.", v.DeviceName)
			}
			var err error
			if p.tags, err = base.Texts.Tags(interpolate.Of(&v.Tags, v.Tag)); err != nil {
				return nil, err
			}
			made = append(made, p)
			if len(p.tags) == 0 {
				continue
			}
			if _, err := access.Call(ctx, b.client(f).CreateTags, &ec2.CreateTagsInput{Resources: []string{p.id}, Tags: ownership.Tags(p.tags)}); err != nil {
				return nil, err
			}
		}
		return made, nil
	})
}

func (b *volumes) client(f *amazonbuild.Flow) *ec2.Client {
	return access.EC2(f.Session, f.Session.Region)
}

// snapshot makes the snapshots that are asked for, side by side, and shares them.
func (b *volumes) snapshot(ctx context.Context, f *amazonbuild.Flow, base amazonbuild.Prepared, made []product) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range made {
		p := &made[i]
		if !p.SnapshotVolume {
			continue
		}
		g.Go(func() error {
			tags, err := base.Texts.Tags(interpolate.Of(&p.SnapshotTags, p.SnapshotTag))
			if err != nil {
				return err
			}
			if p.snapshot, err = f.Snapshot(ctx, p.id, p.DeviceName, p.SnapshotDescription, tags); err != nil {
				return err
			}
			share := image.SnapshotSharing(p.SnapshotUsers, p.SnapshotGroups, p.snapshot.ID)
			if share == nil {
				return nil
			}
			_, err = access.Call(ctx, b.client(f).ModifySnapshotAttribute, share)
			if access.Is(err, "InvalidUserID.Malformed", "InvalidAMIAttributeItemValue") {
				err = access.Blame(err, b.src.Errorf(&p.SnapshotUsers, "Invalid account ID", "%s.", err))
			}
			return err
		})
	}
	return g.Wait()
}

// handOver makes the volumes and snapshots the user's: they lose the tags of the
// build in one call. Until then the instance's deletion takes the volumes along;
// from then on until the last of them is kept, the ledger lists each.
func (b *volumes) handOver(ctx context.Context, f *amazonbuild.Flow, base amazonbuild.Prepared, made []product, data map[string]any) (*builder.Artifact, error) {
	var ids []string
	var all []step.Resource
	for _, p := range made {
		if p.stays() {
			want := f.Owner.Resource(ownership.Volume, "volume "+p.id, f.Session.Region, ownership.WithVolume, p.id)
			_, err := step.Acquire(ctx, f.Scope, "keep "+p.DeviceName, want, func(context.Context) (string, string, error) { return p.id, p.id, nil })
			if err != nil {
				return nil, err
			}
			want.ID = p.id
			all, ids = append(all, want), append(ids, p.id)
		}
		if p.snapshot.ID != "" {
			all, ids = append(all, p.snapshot.Resource), append(ids, p.snapshot.ID)
		}
	}
	err := step.Run(ctx, f.Scope, "remove bake's tags from the volumes", func(ctx context.Context) error {
		if len(ids) > 0 {
			if err := b.untag(ctx, f, base, made, ids); err != nil {
				return err
			}
		}
		for _, r := range all {
			if err := f.Scope.Keep(ctx, r.Key); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	a := image.Artifact(BuilderID, nil, data)
	a.Resources = all
	var names, lines []string
	for _, r := range all {
		names = append(names, f.Session.Region+":"+r.ID)
		lines = append(lines, f.Session.Region+": "+r.ID+"\n")
	}
	slices.Sort(names)
	slices.Sort(lines)
	a.ID, a.Text = strings.Join(names, ","), "EBS Volumes were created:\n\n"+strings.Join(lines, "")
	return a, nil
}

// untag takes the tags of the build away, and before them the run_volume_tags of
// volumes that stay, other than those that a volume has for itself.
func (b *volumes) untag(ctx context.Context, f *amazonbuild.Flow, base amazonbuild.Prepared, made []product, ids []string) error {
	for _, p := range made {
		var temporary []types.Tag
		for key := range base.VolumeTags {
			if _, own := p.tags[key]; !own {
				temporary = append(temporary, types.Tag{Key: &key})
			}
		}
		if !p.stays() || len(temporary) == 0 {
			continue
		}
		if _, err := access.Call(ctx, b.client(f).DeleteTags, &ec2.DeleteTagsInput{Resources: []string{p.id}, Tags: temporary}); err != nil {
			return err
		}
	}
	_, err := access.Call(ctx, b.client(f).DeleteTags, &ec2.DeleteTagsInput{
		Resources: ids, Tags: []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
	})
	return err
}
