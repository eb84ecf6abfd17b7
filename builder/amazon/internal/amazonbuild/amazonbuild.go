// Package amazonbuild is the way that builders with a machine of their own share: from
// the session to the instance that is provisioned and has stopped.
package amazonbuild

import (
	"context"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/uuid"
	"github.com/zclconf/go-cty/cty"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/ownership"
	"bake/communicator"
	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/step"
)

// Exports are the values of build.* that the builders have in common.
func Exports() map[string]cty.Type {
	return map[string]cty.Type{
		"BuildRegion": cty.String, "SourceAMI": cty.String, "SourceAMIName": cty.String,
		"SourceAMICreationDate": cty.String, "SourceAMIOwner": cty.String, "SourceAMIOwnerName": cty.String,
	}
}

// Flow is one build on its way.
type Flow struct {
	Session *access.Session
	Owner   *ownership.Owner
	Scope   *step.Scope
	Src     *schema.Source

	// Machines makes the build's instance; the builder sets its Devices.
	Machines *launch.Launcher

	// Finish, if not nil, does what is left to do on the machine after it was
	// provisioned and the temporary key taken from it.
	Finish func(ctx context.Context, machine communicator.Communicator) error

	// Suits, if not nil, reports a source image that the build cannot start from.
	Suits func(types.Image) error
}

// Open connects to AWS, or to the cloud that stands in for it. l is nil for a
// builder that launches nothing.
func Open(ctx context.Context, s *step.Scope, src *schema.Source, cloud access.Cloud, a *access.Options, l *launch.Options) (*Flow, error) {
	session, err := step.Do(ctx, s, "connect to AWS", func(ctx context.Context) (*access.Session, error) {
		session, err := access.Open(ctx, a, src, cloud, s.Run.Env)
		if err == nil {
			session.Warn = s.Warn
		}
		return session, err
	})
	if err != nil {
		return nil, err
	}
	s.Handle(ownership.Prefix, destroy.For(session))
	owner := &ownership.Owner{Session: session, Run: s.Run.ID, ID: uuid.NewString()}
	return &Flow{
		Session: session, Owner: owner, Scope: s, Src: src,
		Machines: &launch.Launcher{Options: l, Src: src, Session: session, Owner: owner, Scope: s},
	}, nil
}

// Images returns the maker of the build's images. region is the option that
// names the build region.
func (f *Flow) Images(o *image.Options, region *string) *image.Maker {
	return &image.Maker{Options: o, Src: f.Src, Session: f.Session, Owner: f.Owner, Scope: f.Scope, BuildRegion: region}
}

// Prepared is what a machine is launched with, and what renders the texts that
// speak of its source image.
type Prepared struct {
	launch.Spec
	Texts *interpolate.Text
}

// Prepare finds what there must be, asks EC2 whether it would launch the machine,
// and only then makes the key pair, the security group and the instance profile:
// what cannot work is said while there is nothing to take down. What is found and
// what is made is so side by side. volumeTags are those of the instance's volumes.
func (f *Flow) Prepare(ctx context.Context, volumeTags interpolate.Tags) (Prepared, error) {
	p, err := f.find(ctx, volumeTags)
	if err != nil {
		return p, err
	}
	if err := f.Machines.Preflight(ctx, p.Spec); err != nil {
		return p, err
	}
	m := f.Machines
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		p.Key, err = m.KeyPair(ctx, p.Tags)
		return err
	})
	if m.MakesGroup() {
		g.Go(func() (err error) {
			p.Groups, err = m.Groups(ctx, p.Place, p.Tags)
			return err
		})
	}
	if m.MakesProfile() {
		g.Go(func() (err error) {
			p.Profile, err = m.Profile(ctx, p.Tags)
			return err
		})
	}
	err = g.Wait()
	return p, err
}

// find looks up what the options name, and changes nothing.
func (f *Flow) find(ctx context.Context, volumeTags interpolate.Tags) (Prepared, error) {
	var p Prepared
	m := f.Machines
	p.Key.Name = m.SSHKeyPairName
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if p.Image, err = m.SourceImage(ctx); err != nil {
			return err
		}
		if f.Suits != nil {
			if err := f.Suits(p.Image); err != nil {
				return err
			}
		}
		p.Texts = interpolate.New(f.Scope, f.Src, f.Session.Region).With(p.Image)
		if p.Tags, err = p.Texts.Tags(m.LateRunTags()); err != nil {
			return err
		}
		if p.VolumeTags, err = p.Texts.Tags(volumeTags); err != nil {
			return err
		}
		if p.SpotTags, err = p.Texts.Tags(interpolate.Of(&m.SpotTags, m.SpotTag)); err != nil {
			return err
		}
		p.FleetTags, err = p.Texts.Tags(interpolate.Of(&m.FleetTags, m.FleetTag))
		return err
	})
	g.Go(func() (err error) {
		if p.Place, err = m.Place(ctx); err != nil || m.MakesGroup() {
			return err
		}
		p.Groups, err = m.Groups(ctx, p.Place, nil)
		return err
	})
	if !m.MakesProfile() {
		g.Go(func() (err error) {
			p.Profile, err = m.Profile(ctx, nil)
			return err
		})
	}
	err := g.Wait()
	return p, err
}

// Labels renders the texts of images.
func (p *Prepared) Labels(o *image.Options) (l image.Labels, err error) {
	l.RunTags = p.Tags
	if l.Tags, err = p.Texts.Tags(interpolate.Of(&o.Tags, o.Tag)); err != nil {
		return l, err
	}
	if l.Snapshot, err = p.Texts.Tags(interpolate.Of(&o.SnapshotTags, o.SnapshotTag)); err != nil {
		return l, err
	}
	l.Description, err = p.Texts.String(&o.Description)
	return l, err
}

// Work launches the machine and provisions it. It returns the instance as it was
// when it had started, and the values of build.*.
func (f *Flow) Work(ctx context.Context, p Prepared, provision builder.Provision) (types.Instance, map[string]any, error) {
	instance, err := f.Machines.Run(ctx, p.Spec)
	if err != nil {
		return instance, nil, err
	}
	ctx, vigil := f.Machines.Watch(ctx, aws.ToString(instance.InstanceId))
	defer vigil.Close()
	machine, err := f.Machines.Connect(ctx, instance, p.Key, p.Groups)
	if err != nil {
		return instance, nil, vigil.Explain(ctx, err)
	}
	defer machine.Close() // it is about to go away; there is nothing to flush
	vigil.Reached()
	data := f.data(aws.ToString(instance.InstanceId), machine, p)
	err = step.Run(ctx, f.Scope, "provision", func(ctx context.Context) error {
		return vigil.Explain(ctx, provision(ctx, builder.Machine{Communicator: machine, Data: data}))
	})
	if err == nil {
		err = f.Machines.ClearKey(ctx, machine, p.Key)
	}
	if err == nil && f.Finish != nil {
		err = f.Finish(ctx, machine)
	}
	return instance, data, err
}

// data are the values of build.*.
func (f *Flow) data(id string, m communicator.Communicator, p Prepared) map[string]any {
	data := ssh.Data(&f.Machines.Options.Options, m, ssh.Facts{RunID: f.Scope.Run.ID, ID: id, PublicKey: p.Key.Public, PrivateKey: p.Key.Private})
	maps.Copy(data, interpolate.Data(p.Image))
	data["BuildRegion"] = f.Session.Region
	return data
}
