package amazonbuild

import (
	"context"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/destroy"
	"bake/builder/amazon/internal/image"
	"bake/builder/amazon/internal/launch"
	"bake/builder/amazon/internal/ownership"
	"bake/config/schema"
	"bake/step"
)

// Guest describes a machine of an existing image, as opposed to one that a build has just
// made.
type Guest struct {
	builder.Boot
	Subnet    string           // "": in the default VPC
	Interface launch.Interface // for logging in; "": the public one, or the private one if there is none
}

// Run launches a machine from an image in the session's region, with a temporary key and
// security group. It calls use, and always deletes the machine, key and group.
func (g Guest) Run(ctx context.Context, s *step.Scope, session *access.Session, id string, use func(context.Context, builder.Machine) error) error {
	o := launch.Defaults()
	src, _ := schema.Decode(schema.Input{Body: hcl.EmptyBody(), Context: &hcl.EvalContext{}}, &o) // the empty body sets no options, as intended
	o.SubnetID, o.SSHInterface = g.Subnet, g.Interface
	s.Handle(ownership.Prefix, destroy.For(session))
	q := &sequence{Recipe: Recipe{Launch: &o}, src: src}
	b := &Build{Session: session, Owner: &ownership.Owner{Session: session, Run: s.Run.ID, ID: ownership.NewID()}, Scope: s, Src: src}
	return q.boot(ctx, b, image.Made{ID: id, Region: session.Region}, g.Boot, use)
}
