// Package ebs is the builder amazon-ebs: it launches an instance, provisions it
// and makes an image of its EBS volumes.
package ebs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/late"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/owned"
	"bake/builder/amazon/internal/sourceami"
	"bake/communicator"
	"bake/communicator/ssh"
	"bake/component"
	"bake/config/schema"
	"bake/step"
)

// BuilderID marks the artifacts of this builder.
const BuilderID = "mitchellh.amazonebs"

// Factory makes the builder; cloud stands in for AWS.
func Factory(cloud access.Cloud) component.Factory[builder.Builder] {
	sources := []string{source, access.Source, launch.Source, image.Source, device.Source, sourceami.Source, late.GoSource, ssh.Source}
	return component.Define("amazon-ebs", sources, Defaults, func(o *Options, src *schema.Source) builder.Builder {
		return &ebs{Options: o, src: src, cloud: cloud}
	}).Exporting(map[string]cty.Type{
		"BuildRegion": cty.String, "SourceAMI": cty.String, "SourceAMIName": cty.String,
		"SourceAMICreationDate": cty.String, "SourceAMIOwner": cty.String, "SourceAMIOwnerName": cty.String,
	})
}

type ebs struct {
	*Options
	src   *schema.Source
	cloud access.Cloud
}

// Build implements [builder.Builder].
func (b *ebs) Build(ctx context.Context, s *step.Scope, provision builder.Provision) (*builder.Artifact, error) {
	session, err := step.Do(ctx, s, "connect to AWS", func(ctx context.Context) (*access.Session, error) {
		return access.Open(ctx, &b.Access.Options, b.src, b.cloud, s.Run.Env)
	})
	if err != nil {
		return nil, err
	}
	s.Handle(owned.Prefix, destroy.For(session))
	owner := &owned.Owner{Session: session, Run: s.Run.ID, ID: uuid.NewString()}
	machines := &launch.Launcher{Options: &b.Launch.Options, Src: b.src, Session: session, Owner: owner, Scope: s}
	images := &image.Maker{Options: &b.Image.Options, Src: b.src, Session: session, Owner: owner, Scope: s, BuildRegion: &b.Region}
	texts := late.New(s, b.src, session.Region)

	if err := images.Check(ctx); err != nil {
		return nil, err
	}
	base, err := b.prepare(ctx, machines, texts)
	if err != nil {
		return nil, err
	}
	instance, err := machines.Run(ctx, base.Spec)
	if err != nil {
		return nil, err
	}
	id := aws.ToString(instance.InstanceId)
	machine, err := machines.Connect(ctx, instance, base.Key, base.Groups)
	if err != nil {
		return nil, err
	}
	data := b.data(s, session.Region, id, machine, base)
	err = b.provision(ctx, s, machine, data, provision)
	if err == nil {
		err = machines.ClearKey(ctx, machine, base.Key)
	}
	machine.Close() // it is about to go away; there is nothing to flush
	if err != nil {
		return nil, err
	}
	if err := machines.Stop(ctx, id); err != nil {
		return nil, err
	}
	if b.SkipCreate {
		s.Say(ctx, "Making no image (skip_create_ami)")
		return nil, nil
	}
	if err := machines.ModifyInstance(ctx, id, b.SRIOVSupport, b.ENASupport); err != nil {
		return nil, err
	}
	made, err := b.makeImages(ctx, images, id, base.labels)
	if err != nil {
		return nil, err
	}
	if err := images.HandOver(ctx, made); err != nil {
		return nil, err
	}
	return artifact(made, data), nil
}

// prepared is what a machine is launched with, and what its images are labelled with.
type prepared struct {
	launch.Spec
	labels image.Labels
}

// prepare finds the source image, makes the key pair, and finds or makes the
// security groups, side by side: none needs the other. Only tags that speak of
// the source image wait for it.
func (b *ebs) prepare(ctx context.Context, machines *launch.Launcher, texts *late.Text) (prepared, error) {
	var p prepared
	g, ctx := errgroup.WithContext(ctx)
	source := sync.OnceValues(func() (types.Image, error) { return machines.SourceImage(ctx) })
	runTags := sync.OnceValues(func() (map[string]string, error) {
		tags := late.Of(&b.RunTags, b.RunTag)
		t := texts
		if tags.NeedSource() {
			base, err := source()
			if err != nil {
				return nil, err
			}
			t = texts.With(base)
		}
		return t.Tags(tags)
	})
	g.Go(func() (err error) {
		if p.Image, err = source(); err != nil {
			return err
		}
		if err := b.render(&p, texts.With(p.Image)); err != nil {
			return err
		}
		p.Tags, err = runTags()
		p.labels.RunTags = p.Tags
		return err
	})
	g.Go(func() error {
		tags, err := runTags()
		if err != nil {
			return err
		}
		p.Key, err = machines.KeyPair(ctx, tags)
		return err
	})
	g.Go(func() (err error) {
		if p.Place, err = machines.Place(ctx); err != nil {
			return err
		}
		tags, err := runTags()
		if err != nil {
			return err
		}
		p.Groups, err = machines.Groups(ctx, p.Place, tags)
		return err
	})
	g.Go(func() error { return machines.CheckProfile(ctx) })
	err := g.Wait()
	if v := b.VirtualizationType; err == nil && v != "" && v != string(p.Image.VirtualizationType) {
		machines.Scope.Warn(ctx, "ami_virtualization_type is %s, but the source image is %s, and so will the image be", v, p.Image.VirtualizationType)
	}
	return p, err
}

// render renders the texts that need the source image.
func (b *ebs) render(p *prepared, t *late.Text) (err error) {
	if p.VolumeTags, err = t.Tags(late.OfNamed(&b.RunVolumeTags, b.RunVolumeTag)); err != nil {
		return err
	}
	if p.labels.Tags, err = t.Tags(late.Of(&b.Image.Tags, b.Image.Tag)); err != nil {
		return err
	}
	if p.labels.Snapshot, err = t.Tags(late.Of(&b.SnapshotTags, b.SnapshotTag)); err != nil {
		return err
	}
	p.labels.Description, err = t.String(&b.Description)
	return err
}

func (b *ebs) provision(ctx context.Context, s *step.Scope, m communicator.Communicator, data map[string]any, provision builder.Provision) error {
	_, err := step.Do(ctx, s, "provision", func(ctx context.Context) (struct{}, error) {
		return struct{}{}, provision(ctx, builder.Machine{Communicator: m, Data: data})
	})
	return err
}

// makeImages makes the image in the build region, and then all copies side by
// side. Each is shared as soon as it is there. It returns those that stay.
func (b *ebs) makeImages(ctx context.Context, images *image.Maker, instance string, labels image.Labels) ([]image.Made, error) {
	first, err := images.Create(ctx, instance, labels)
	if err != nil {
		return nil, err
	}
	var (
		mu   sync.Mutex
		made []image.Made
	)
	finish := func(ctx context.Context, m image.Made) error {
		mu.Lock()
		made = append(made, m)
		mu.Unlock()
		return images.Share(ctx, m)
	}
	g, ctx := errgroup.WithContext(ctx)
	if !b.Temporary() {
		g.Go(func() error { return finish(ctx, first) })
	}
	for _, region := range images.CopyTo() {
		g.Go(func() error {
			m, err := images.Copy(ctx, first, region, labels)
			if err != nil {
				return err
			}
			return finish(ctx, m)
		})
	}
	err = g.Wait()
	return made, err
}

// data are the values of build.*.
func (b *ebs) data(s *step.Scope, region, id string, m communicator.Communicator, p prepared) map[string]any {
	data := ssh.Data(&b.Launch.Options.Options, m, ssh.Facts{RunID: s.Run.ID, ID: id, PublicKey: p.Key.Public, PrivateKey: p.Key.Private})
	maps.Copy(data, late.Data(p.Image))
	data["BuildRegion"] = region
	return data
}

// artifact describes the images.
func artifact(made []image.Made, data map[string]any) *builder.Artifact {
	slices.SortFunc(made, func(a, b image.Made) int { return strings.Compare(a.Region, b.Region) })
	a := &builder.Artifact{BuilderID: BuilderID, Images: map[string]string{}, Data: maps.Clone(data)}
	for _, secret := range []string{"Password", "SSHPrivateKey"} {
		delete(a.Data, secret) // artifacts are written to files
	}
	var ids, lines []string
	for _, m := range made {
		a.Images[m.Region] = m.ID
		a.Resources = append(a.Resources, m.Resource)
		ids = append(ids, m.Region+":"+m.ID)
		lines = append(lines, m.Region+": "+m.ID+"\n")
	}
	a.ID = strings.Join(ids, ",")
	a.Text = fmt.Sprintf("AMIs were created:\n%s", strings.Join(lines, ""))
	return a
}
