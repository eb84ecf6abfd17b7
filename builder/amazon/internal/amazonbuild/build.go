package amazonbuild

import (
	"context"
	"errors"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/interpolate"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/ownership"
	"bake/communicator"
	"bake/config/schema"
	"bake/internal/gotemplate"
	"bake/step"
)

// Build is one build in progress.
type Build struct {
	ID      string // marks the artifact
	Session *access.Session
	Owner   *ownership.Owner
	Scope   *step.Scope
	Src     *schema.Source

	ResolveSource func(context.Context, builder.LaunchSource) (string, error) // of [builder.Hooks]; nil: the source image is launched
	Machines      *launch.Launcher                                            // makes the instance; nil if nothing is launched
	Images        *image.Maker                                                // makes the images; nil if there will be none

	// These are known once the build is prepared.
	Source types.Image       // the source image; zero if there is none
	Texts  *interpolate.Text // renders the texts that refer to Source
	Spec   launch.Spec       // of the launch of the instance
	Labels image.Labels      // of the images

	// These are known once the machine is up.
	Instance types.Instance // its description at the start
	Data     builder.Data   // values of build.*
}

// open connects to AWS, or to the cloud that replaces it.
func open(ctx context.Context, s *step.Scope, q *sequence) (*Build, error) {
	session, err := step.Do(ctx, s, "connect to AWS", func(ctx context.Context) (*access.Session, error) {
		cloud := q.cloud
		cloud.Warn = s.Warn
		return access.Open(ctx, q.Access, q.src, cloud, s.Run.Env)
	})
	if err != nil {
		return nil, err
	}
	s.Handle(ownership.Prefix, destroy.For(session))
	id, _ := step.Memo(ctx, s, "owner", func(context.Context) (string, error) { return ownership.NewID(), nil })
	owner := &ownership.Owner{Session: session, Run: s.Run.ID, ID: id}
	b := &Build{ID: q.id, Session: session, Owner: owner, Scope: s, Src: q.src, Texts: interpolate.New(s, q.src, session.Region)}
	if q.Launch != nil {
		b.Machines = &launch.Launcher{Options: q.Launch, Src: q.src, Session: session, Owner: owner, Scope: s, Devices: q.Devices}
		b.Machines.ExpectKey()
	}
	if q.Image != nil {
		b.Images = &image.Maker{Options: q.Image, Src: q.src, Session: session, Owner: owner, Scope: s, BuildRegion: &q.Access.Region}
	}
	if q.Launch != nil && q.Image != nil {
		b.Machines.Keep = launch.Kept(q.src, q.Devices)
	}
	return b, nil
}

func (b *Build) client() *ec2.Client { return b.Session.EC2(b.Session.Region) }

// Render renders text, the value of the option at ptr, with data.
func (b *Build) Render(ptr any, text string, data map[string]any) (string, error) {
	s := b.Scope
	c := gotemplate.Context{BuildName: s.SourceName, BuildType: s.SourceType, Start: s.Run.Start, Version: s.Run.Version}
	text, err := c.Render(text, data)
	if err != nil {
		return "", b.Src.Errorf(ptr, "Invalid {{ }} template", "%s.", err)
	}
	return text, nil
}

// prepare finds the existing resources that the build needs, makes a dry run of the
// launch, and only then makes the key pair, the security group and the instance profile:
// problems are reported while there is nothing to delete. Both the search and the creation
// run concurrently.
func (b *Build) prepare(ctx context.Context, volumeTags interpolate.Tags, suits func(context.Context, types.Image) error) error {
	if err := b.find(ctx, volumeTags, suits); err != nil {
		return err
	}
	m, spec := b.Machines, &b.Spec
	if err := b.launching(ctx, func() error { return m.Preflight(ctx, *spec) }); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		spec.Key, err = m.KeyPair(ctx, spec.Tags)
		return err
	})
	if m.MakesGroup() {
		g.Go(func() (err error) {
			spec.Groups, err = m.Groups(ctx, spec.Place, spec.Tags)
			return err
		})
	}
	if m.MakesProfile() {
		g.Go(func() (err error) {
			spec.Profile, err = m.Profile(ctx, spec.Tags)
			return err
		})
	}
	return g.Wait()
}

// find finds the resources that the options name, without changing anything.
func (b *Build) find(ctx context.Context, volumeTags interpolate.Tags, suits func(context.Context, types.Image) error) error {
	m, spec := b.Machines, &b.Spec
	spec.Key.Name = m.SSHKeyPairName
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		if b.Source.ImageId == nil { // otherwise it was looked up to see whether the build is needed
			if b.Source, err = m.SourceImage(ctx); err != nil {
				return err
			}
		}
		if err := suits(ctx, b.Source); err != nil {
			return err
		}
		b.Texts = b.Texts.With(b.Source)
		if err := b.start(ctx, ""); err != nil {
			return err
		}
		if spec.Tags, err = b.Texts.Tags(m.DeferredRunTags()); err != nil {
			return err
		}
		if spec.VolumeTags, err = b.Texts.Tags(volumeTags); err != nil {
			return err
		}
		if spec.SpotTags, err = b.Texts.Tags(interpolate.Of(&m.SpotTags, m.SpotTag)); err != nil {
			return err
		}
		spec.FleetTags, err = b.Texts.Tags(interpolate.Of(&m.FleetTags, m.FleetTag))
		return err
	})
	g.Go(func() (err error) {
		if spec.Place, err = m.Place(ctx); err != nil || m.MakesGroup() {
			return err
		}
		spec.Groups, err = m.Groups(ctx, spec.Place, nil)
		return err
	})
	if !m.MakesProfile() {
		g.Go(func() (err error) {
			spec.Profile, err = m.Profile(ctx, nil)
			return err
		})
	}
	return g.Wait()
}

// labels renders the texts of images.
func (b *Build) labels(o *image.Options) (l image.Labels, err error) {
	l.RunTags = b.Spec.Tags
	if l.Tags, err = b.Texts.Tags(interpolate.Of(&o.Tags, o.Tag)); err != nil {
		return l, err
	}
	if l.Snapshot, err = b.Texts.Tags(interpolate.Of(&o.SnapshotTags, o.SnapshotTag)); err != nil {
		return l, err
	}
	l.Description, err = b.Texts.String(&o.Description)
	return l, err
}

// work launches the instance and provisions it.
func (b *Build) work(ctx context.Context, provision builder.Provision, finish func(context.Context, communicator.Communicator) error) (err error) {
	err = b.launching(ctx, func() (err error) {
		b.Instance, err = b.Machines.Run(ctx, b.Spec)
		return err
	})
	if err != nil {
		return err
	}
	return b.provision(ctx, provision, finish, false)
}

// provision provisions the instance. With again, an earlier process of the run has already
// reached it.
func (b *Build) provision(ctx context.Context, provision builder.Provision, finish func(context.Context, communicator.Communicator) error, again bool) error {
	m, spec := b.Machines, b.Spec
	ctx, monitor := m.Watch(ctx, aws.ToString(b.Instance.InstanceId))
	defer monitor.Close()
	machine, err := m.Connect(ctx, b.Instance, spec.Key, spec.Groups)
	if err != nil {
		err = monitor.Explain(ctx, err)
		if again {
			err = step.Interrupted(ctx, b.Scope, err)
		}
		return err
	}
	defer func() { _ = machine.Close() }() // the machine is about to be deleted; there is nothing to flush
	monitor.Reached()
	shutdownTimer := m.StartShutdownTimer(ctx, machine, b.Source, again)
	defer shutdownTimer.Close()
	b.Data = b.values(machine)
	there := builder.Machine{Communicator: machine, Data: b.Data}
	step.Record(b.Scope, step.Reached, b.milestone())
	err = step.Run(ctx, b.Scope, "provision", func(ctx context.Context) error {
		err := provision(ctx, there)
		if errors.Is(err, step.ErrBoundary) {
			return err
		}
		return monitor.Explain(ctx, err)
	})
	if err != nil && !errors.Is(err, step.ErrBoundary) {
		if b.Scope.Leaves != nil && b.Scope.Leaves() {
			shutdownTimer.Left(ctx)
		}
	}
	if err != nil {
		return err
	}
	shutdownTimer.Cancel(ctx)
	if err := m.ClearKey(ctx, there, spec.Key); err != nil {
		return err
	}
	return finish(ctx, machine)
}

// values returns the values of build.*.
func (b *Build) values(m communicator.Communicator) builder.Data {
	key := b.Spec.Key
	data := builder.MachineData(m, builder.Facts{
		RunID: b.Scope.Run.ID, ID: aws.ToString(b.Instance.InstanceId), Communicator: string(b.Machines.Communicator),
		PublicKey: key.Public, PrivateKey: key.Private,
	})
	maps.Copy(data, interpolate.Data(b.Source))
	data["BuildRegion"] = builder.Text(b.Session.Region)
	return data
}

// Stop stops the instance.
func (b *Build) Stop(ctx context.Context) error {
	return b.Machines.Stop(ctx, aws.ToString(b.Instance.InstanceId))
}

// ModifyInstance sets the attributes that an image inherits from its instance, according to
// the image options.
func (b *Build) ModifyInstance(ctx context.Context) error {
	return b.Machines.ModifyInstance(ctx, aws.ToString(b.Instance.InstanceId), b.Images.SRIOVSupport, b.Images.ENASupport)
}

// create makes EC2 create the first image from the instance.
func (b *Build) create(ctx context.Context) (image.Made, error) {
	if err := b.ModifyInstance(ctx); err != nil {
		return image.Made{}, err
	}
	return b.Images.Create(ctx, aws.ToString(b.Instance.InstanceId), b.Labels)
}
