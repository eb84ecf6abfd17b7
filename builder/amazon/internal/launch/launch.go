package launch

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/ownership"
	"bake/config/schema"
	"bake/step"
)

// Launcher makes the machine of one build.
type Launcher struct {
	*Options
	Src     *schema.Source
	Session *access.Session
	Owner   *ownership.Owner
	Scope   *step.Scope

	// Devices are the volumes of the instance, in addition to or instead of those of the
	// source image; each is an option.
	Devices     []*device.Mapping
	NoEphemeral bool // keep the names of instance store volumes free

	// InstanceStore means that the source image has an instance store root, and not an EBS
	// root.
	InstanceStore bool

	// Keep are the names of devices whose volumes outlive the instance, even if the build
	// fails.
	Keep []string

	// replacesProfile means that the profile of the options is not there, and that the machine
	// gets a temporary one with what Session Manager needs; see Profile.
	replacesProfile bool

	// AwaitFirstBoot is that of [builder.Hooks].
	AwaitFirstBoot func(context.Context, builder.Machine) error
}

func (l *Launcher) client() *ec2.Client { return l.Session.EC2(l.Session.Region) }

// SourceImage finds the image from which the machine is launched.
func (l *Launcher) SourceImage(ctx context.Context) (types.Image, error) {
	root := types.DeviceTypeEbs
	if l.InstanceStore {
		root = types.DeviceTypeInstanceStore
	}
	return l.Selection.Find(ctx, l.Scope, l.Session, l.Src, root)
}

// State returns the state of an instance. If the instance no longer exists, it returns an
// error, and the state only if EC2 reports one.
func (l *Launcher) State(ctx context.Context, id string) (types.InstanceStateName, error) {
	out, err := access.Call(ctx, l.client().DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
	if err != nil && !access.NotFound(err) {
		return "", err
	}
	if err == nil && len(out.Reservations) > 0 && len(out.Reservations[0].Instances) > 0 {
		i := out.Reservations[0].Instances[0]
		if i.State == nil {
			return types.InstanceStateNamePending, nil
		}
		if i.State.Name != types.InstanceStateNameShuttingDown && i.State.Name != types.InstanceStateNameTerminated {
			return i.State.Name, nil
		}
		return i.State.Name, fmt.Errorf("instance %s is %s: %s", id, i.State.Name, reason(i))
	}
	return types.InstanceStateNameTerminated, fmt.Errorf("there is no instance %s in %s any more, or the credentials are not those of the account that it is in", id, l.Session.Region)
}
