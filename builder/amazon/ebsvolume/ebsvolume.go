// Package ebsvolume is the builder amazon-ebsvolume: it prepares volumes on an
// instance, and keeps the volumes, snapshots of them, or both.
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
	"bake/step"
)

// builderID is the builder ID in the artifacts of this builder.
const builderID = "mitchellh.amazon.ebsvolume"

// Factory returns the factory of the builder. cloud replaces AWS.
func Factory(cloud access.Cloud) amazonbuild.Factory {
	return amazonbuild.Define("amazon-ebsvolume", builderID, cloud, defaults, func(o *Options) amazonbuild.Recipe {
		return amazonbuild.Recipe{
			Access: &o.Access.Options, Launch: &o.Launch.Options,
			Devices: o.devices(), VolumeTags: interpolate.Of(&o.RunVolumeTags, o.RunVolumeTag),
			Hooks: o.hooks, Permissions: o.permissions,
		}
	})
}

func (o *Options) hooks(b *amazonbuild.Build) (amazonbuild.Hooks, error) {
	v := &volumes{Options: o, Build: b}
	return amazonbuild.Hooks{Stop: v.stop, Artifact: v.artifact}, nil
}

// volumes is one build.
type volumes struct {
	*Options
	*amazonbuild.Build
	made []product
}

// stop tags the volumes while they are in use, and stops the instance.
func (v *volumes) stop(ctx context.Context) (err error) {
	if v.made, err = v.tag(ctx); err != nil {
		return err
	}
	return v.Build.Stop(ctx)
}

func (v *volumes) artifact(ctx context.Context) (*builder.Artifact, error) {
	if err := v.Machines.ModifyInstance(ctx, aws.ToString(v.Instance.InstanceId), v.SRIOVSupport, v.ENASupport); err != nil {
		return nil, err
	}
	if err := v.snapshot(ctx); err != nil {
		return nil, err
	}
	return v.finalize(ctx)
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

// tag tags the volumes.
func (v *volumes) tag(ctx context.Context) ([]product, error) {
	return step.Do(ctx, v.Scope, "tag the volumes", func(ctx context.Context) ([]product, error) {
		ids := amazonbuild.Volumes(v.Instance)
		var made []product
		for i := range v.Volumes {
			one := &v.Volumes[i]
			if one.NoDevice || one.VirtualName != "" {
				continue
			}
			p := product{Volume: one, id: ids[one.DeviceName]}
			if p.id == "" {
				return nil, v.Src.Errorf(&one.DeviceName, "No volume", "The instance has no volume at %s.", one.DeviceName)
			}
			var err error
			if p.tags, err = v.Texts.Tags(interpolate.Of(&one.Tags, one.Tag)); err != nil {
				return nil, err
			}
			made = append(made, p)
			if len(p.tags) == 0 {
				continue
			}
			if _, err := access.Call(ctx, v.client().CreateTags, &ec2.CreateTagsInput{Resources: []string{p.id}, Tags: ownership.Tags(p.tags)}); err != nil {
				return nil, err
			}
		}
		return made, nil
	})
}

func (v *volumes) client() *ec2.Client { return v.Session.EC2(v.Session.Region) }

// snapshot makes the requested snapshots concurrently, and shares them.
func (v *volumes) snapshot(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for i := range v.made {
		p := &v.made[i]
		if !p.SnapshotVolume {
			continue
		}
		g.Go(func() error {
			tags, err := v.Texts.Tags(interpolate.Of(&p.SnapshotTags, p.SnapshotTag))
			if err != nil {
				return err
			}
			if p.snapshot, err = v.Snapshot(ctx, p.id, p.DeviceName, p.SnapshotDescription, tags); err != nil {
				return err
			}
			share := image.SnapshotSharing(p.SnapshotUsers, p.SnapshotGroups, p.snapshot.ID)
			if share == nil {
				return nil
			}
			_, err = access.Call(ctx, v.client().ModifySnapshotAttribute, share)
			if access.Is(err, "InvalidUserID.Malformed", "InvalidAMIAttributeItemValue") {
				err = access.Blame(err, v.Src.Errorf(&p.SnapshotUsers, "Invalid account ID", "%s.", err))
			}
			return err
		})
	}
	return g.Wait()
}

// finalize hands the volumes and snapshots over to the user: one call removes the tags of
// the build from all of them. Until then, deleting the instance deletes the volumes too;
// after that, the ledger lists each of them until the last is released.
func (v *volumes) finalize(ctx context.Context) (*builder.Artifact, error) {
	var ids []string
	var all []step.Resource
	for _, p := range v.made {
		if p.stays() {
			want := v.Owner.Resource(ownership.Volume, "volume "+p.id, v.Session.Region, ownership.WithVolume, p.id)
			_, err := step.Acquire(ctx, v.Scope, "keep "+p.DeviceName, want, func(context.Context) (string, string, error) { return p.id, p.id, nil })
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
	err := step.Run(ctx, v.Scope, "remove bake's tags from the volumes", func(ctx context.Context) error {
		if len(ids) > 0 {
			if err := v.untag(ctx, ids); err != nil {
				return err
			}
		}
		var keys []string
		for _, r := range all {
			keys = append(keys, r.Key)
		}
		return v.Scope.Keep(ctx, keys...)
	})
	if err != nil {
		return nil, err
	}
	a := image.Artifact(v.ID, nil, v.Data)
	a.Resources = all
	var names, lines []string
	for _, r := range all {
		names = append(names, v.Session.Region+":"+r.ID)
		lines = append(lines, v.Session.Region+": "+r.ID+"\n")
	}
	slices.Sort(names)
	slices.Sort(lines)
	a.ID, a.Text = strings.Join(names, ","), "EBS Volumes were created:\n\n"+strings.Join(lines, "")
	return a, nil
}

// untag removes the tags of the build. Before that, it removes the run_volume_tags of
// volumes that are kept, except tags that the volume defines itself.
func (v *volumes) untag(ctx context.Context, ids []string) error {
	for _, p := range v.made {
		var temporary []types.Tag
		for key := range v.Spec.VolumeTags {
			if _, own := p.tags[key]; !own {
				temporary = append(temporary, types.Tag{Key: &key})
			}
		}
		if !p.stays() || len(temporary) == 0 {
			continue
		}
		if _, err := access.Call(ctx, v.client().DeleteTags, &ec2.DeleteTagsInput{Resources: []string{p.id}, Tags: temporary}); err != nil {
			return err
		}
	}
	_, err := access.Call(ctx, v.client().DeleteTags, &ec2.DeleteTagsInput{
		Resources: ids, Tags: []types.Tag{{Key: new(ownership.RunTag)}, {Key: new(ownership.BuildTag)}},
	})
	return err
}
