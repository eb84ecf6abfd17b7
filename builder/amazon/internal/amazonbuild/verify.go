package amazonbuild

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/policy"
	"bake/communicator/ssh"
	"bake/config/schema"
	"bake/step"
)

// Verifiable implements [builder.Verifiable].
func (q *sequence) Verifiable(boots []builder.Boot) error {
	switch {
	case q.Image == nil:
		return errors.New("the builder makes no image")
	case q.Launch == nil:
		if slices.ContainsFunc(boots, func(b builder.Boot) bool { return b.InstanceType == "" || b.User == "" }) {
			return errors.New("the builder launches no machine whose type and user the machines of the image could have: set instance_types and ssh_username in the verify block")
		}
	case q.Launch.Communicator != ssh.SSH:
		return fmt.Errorf("machines of the image are logged in to with SSH, but the communicator of the source is %q", q.Launch.Communicator)
	}
	return nil
}

// verified is the key under which a build records that its image passed verification.
const verified = "verified"

// shown calls the hook for the new image before the image is shared, and tags it, unless
// an earlier process of the run has done so. With an error, it returns the image if it is
// kept nevertheless.
func (q *sequence) shown(ctx context.Context, b *Build, first image.Made, calls builder.Hooks) (*builder.Artifact, error) {
	if done, _ := step.Recall[bool](b.Scope, verified); !done {
		if a, err := q.look(ctx, b, first, calls.ImageCreated); err != nil {
			return a, err
		}
	}
	if calls.ImageTags != nil {
		tags, err := calls.ImageTags(ctx)
		if err != nil {
			return nil, err
		}
		b.Labels.AddImageTags(tags)
	}
	_, err := step.Memo(ctx, b.Scope, "image tagged", func(ctx context.Context) (bool, error) {
		labels := b.Labels
		if calls.ImageCreated == nil { // the image has the tags already
			labels = labels.WithoutUserTags()
		}
		return true, b.Images.Label(ctx, first, labels)
	})
	return nil, err
}

// look calls see with the image.
func (q *sequence) look(ctx context.Context, b *Build, first image.Made, see func(context.Context, builder.Image) error) (*builder.Artifact, error) {
	if see == nil {
		return nil, nil
	}
	// An earlier process of the run, or an earlier attempt, may have left machines.
	if err := b.Scope.Discard(ctx, func(r step.Resource) bool { return b.guest(r) }); err != nil {
		return nil, err
	}
	err := see(ctx, builder.Image{ID: first.ID, Region: first.Region, Account: b.Session.Account, Name: b.Images.Name,
		Previous: func(ctx context.Context, tag, value string) (*builder.PreviousImage, error) {
			return b.previous(ctx, first.ID, tag, value)
		},
		Boot: func(ctx context.Context, with builder.Boot, use func(context.Context, builder.Machine) error) error {
			return q.boot(ctx, b, first, with, use)
		},
	})
	if err == nil {
		step.Record(b.Scope, verified, true)
		return nil, nil
	}
	rejected, ok := errors.AsType[*builder.RejectedError](err)
	if !ok || rejected.Action == builder.Delete || context.Cause(ctx) != nil {
		return nil, err
	}
	if aside := b.Images.Reject(ctx, first, rejected.Action == builder.Quarantine); aside != nil {
		return nil, errors.Join(err, aside)
	}
	return image.Artifact(q.id, []image.Made{first}, b.Data), err
}

// guest reports whether a resource of the build belongs to a machine that was launched from
// its image.
func (b *Build) guest(r step.Resource) bool {
	id := r.With[ownership.WithBuild]
	return id != "" && id != b.Owner.ID && slices.Contains(guests, r.Kind)
}

// guests are the kinds of resource for a machine that is launched from an image.
var guests = []string{ownership.KeyPair, ownership.SecurityGroup, ownership.Instance, ownership.InstanceProfile, ownership.Role}

// boot launches a machine from the image, calls use with it, and deletes it.
func (q *sequence) boot(ctx context.Context, b *Build, made image.Made, with builder.Boot, use func(context.Context, builder.Machine) error) (err error) {
	l := q.launcher(b, with)
	defer func() {
		if err != nil && b.Scope.Leaves != nil && b.Scope.Leaves() {
			return // the user wants to inspect it
		}
		gone := b.Scope.Discard(ctx, func(r step.Resource) bool { return r.With[ownership.WithBuild] == l.Owner.ID })
		err = errors.Join(err, gone)
	}()
	spec, err := q.guestSpec(ctx, b, l, made)
	if err != nil {
		return err
	}
	instance, err := l.Run(ctx, spec)
	if err != nil {
		return err
	}
	ctx, monitor := l.Watch(ctx, aws.ToString(instance.InstanceId))
	defer monitor.Close()
	machine, err := l.Connect(ctx, instance, spec.Key, spec.Groups)
	if err != nil {
		return monitor.Explain(ctx, err)
	}
	defer func() { _ = machine.Close() }() // the machine is about to be deleted; there is nothing to flush
	monitor.Reached()
	shutdownTimer := l.StartShutdownTimer(ctx, machine, spec.Image, false)
	defer shutdownTimer.Close()
	data := builder.MachineData(machine, builder.Facts{
		RunID: b.Scope.Run.ID, ID: aws.ToString(instance.InstanceId), Communicator: string(l.Communicator),
		PublicKey: spec.Key.Public, PrivateKey: spec.Key.Private,
	})
	data["BuildRegion"], data["SourceAMI"] = builder.Text(b.Session.Region), builder.Text(made.ID)
	return monitor.Explain(ctx, use(ctx, builder.Machine{Communicator: machine, Data: data}))
}

// VerifyPermissions implements [bake/builder/amazon.Verifying].
func (q *sequence) VerifyPermissions(boots []builder.Boot, quarantines bool) (needs []policy.Need) {
	here := policy.In(q.Access.KnownRegion(q.src))
	for _, boot := range boots {
		o, src := q.guest(boot)
		needs = append(needs, o.Permissions(src, here, nil)...)
	}
	if q.Image == nil {
		return nil
	}
	needs = append(needs, q.Image.FlawPermissions(q.src, q.Access.KnownRegion(q.src))...)
	needs = append(needs, here.Own("CreateTags", "image", "snapshot"))
	if len(boots) > 0 {
		needs = append(needs, here.Own("RunInstances", "image"))
	}
	if quarantines {
		needs = append(needs, here.Own("DisableImage", "image"))
	}
	return needs
}

// guest returns the options for a machine that is launched from the image: those options of
// the build's own machine that define where it runs, but not those that define its content.
func (q *sequence) guest(with builder.Boot) (o *launch.Options, src *schema.Source) {
	if q.Launch != nil {
		o, src = schema.Copy(q.src, q.Launch)
	} else { // the template defines no machine
		defaults := launch.Defaults()
		o = &defaults
		src, _ = schema.Decode(schema.Input{Body: hcl.EmptyBody(), Context: &hcl.EvalContext{}}, o)
	}
	o.UserData, o.UserDataFile = "", ""
	o.SpotPrice, o.SpotInstanceTypes, o.SpotAllocationStrategy = "", nil, ""
	o.SSHKeyPairName, o.TemporaryKeyPairName, o.PrivateKeyFile, o.CertificateFile, o.Password, o.AgentAuth = "", "", "", "", "", false
	o.SecurityGroupID, o.SecurityGroupIDs, o.SecurityGroupFilter = "", nil, nil
	if o.SSHInterface != launch.SessionManager { // which needs an instance profile
		o.IAMInstanceProfile, o.TemporaryIAMInstanceProfilePolicyDocument = "", nil
	}
	o.EnableNitroEnclave, o.DisableStopInstance, o.ShutdownBehavior = false, false, "terminate"
	o.TemporaryKeyPairType = "ed25519"
	if with.InstanceType != "" {
		o.InstanceType = with.InstanceType
	}
	if with.User != "" {
		o.Username = with.User
	}
	m := launch.MetadataOptions{}
	m.SetDefaults()
	m.HTTPTokens = "required"
	o.MetadataOptions = &m
	return o, src
}

// launcher returns the launcher of a machine that is launched from the image.
func (q *sequence) launcher(b *Build, with builder.Boot) *launch.Launcher {
	o, src := q.guest(with)
	l := &launch.Launcher{
		Options: o, Src: src, Session: b.Session, Scope: b.Scope,
		Owner: &ownership.Owner{Session: b.Session, Run: b.Owner.Run, ID: ownership.NewID()},
	}
	if b.Machines != nil {
		l.InstanceStore = b.Machines.InstanceStore
	}
	return l
}

// guestSpec returns the launch specification of a machine that is launched from the image.
func (q *sequence) guestSpec(ctx context.Context, b *Build, l *launch.Launcher, made image.Made) (launch.Spec, error) {
	spec := launch.Spec{Tags: b.Spec.Tags, VolumeTags: b.Spec.VolumeTags}
	out, err := access.Call(ctx, b.client().DescribeImages, &ec2.DescribeImagesInput{ImageIds: []string{made.ID}})
	if err != nil {
		return spec, err
	}
	if len(out.Images) == 0 {
		return spec, fmt.Errorf("there is no image %s in %s any more", made.ID, made.Region)
	}
	spec.Image = out.Images[0]
	if spec.Image.Platform == types.PlatformValuesWindows {
		return spec, errors.New("machines of Windows images cannot be looked at")
	}
	if spec.Place, err = l.Place(ctx); err != nil {
		return spec, err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		spec.Key, err = l.KeyPair(ctx, spec.Tags)
		return err
	})
	g.Go(func() (err error) {
		spec.Groups, err = l.Groups(ctx, spec.Place, spec.Tags)
		return err
	})
	g.Go(func() (err error) {
		spec.Profile, err = l.Profile(ctx, spec.Tags)
		return err
	})
	return spec, g.Wait()
}
