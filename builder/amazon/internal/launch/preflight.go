package launch

import (
	"context"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder/amazon/internal/access"
	"bake/step"
)

// Preflight makes a dry run of the launch: it checks the credentials' permissions and the
// compatibility of the options. spec contains what is known before any resource is made. A
// launch with a temporary instance profile has a separate dry run later, when the profile
// exists. A spot instance is launched by a fleet, whose dry run needs a launch template.
func (l *Launcher) Preflight(ctx context.Context, spec Spec) error {
	if l.Spot() || l.MakesProfile() {
		return nil
	}
	return step.Run(ctx, l.Scope, "check the launch with a dry run", func(ctx context.Context) error {
		userData, err := l.userData()
		if err != nil {
			return l.blameUserData(err)
		}
		err = l.dryRun(ctx, l.request(spec, userData))
		if l.MakesGroup() && access.Is(err, "UnauthorizedOperation") && strings.Contains(err.Error(), ":security-group/") {
			err = nil // the error is about the default group, which the dry run uses in place of the group that will be made
		}
		return l.blameRun(err)
	})
}

// dryRun returns why EC2 would refuse the launch in, or nil. It ignores a lack of capacity,
// which is temporary and does not affect all zones.
func (l *Launcher) dryRun(ctx context.Context, in *ec2.RunInstancesInput) error {
	dry := *in
	dry.DryRun = aws.Bool(true)
	out, err := access.Finish(ctx, l.client().RunInstances, &dry)
	switch {
	case err == nil:
		return l.undo(ctx, out)
	case access.Is(err, "DryRunOperation"), noCapacity(err):
		return nil
	}
	return err
}

// undo terminates instances launched by an endpoint that ignores the dry-run flag.
func (l *Launcher) undo(ctx context.Context, out *ec2.RunInstancesOutput) error {
	var ids []string
	for _, i := range out.Instances {
		ids = append(ids, aws.ToString(i.InstanceId))
	}
	if len(ids) == 0 {
		return nil
	}
	l.Scope.Warn(ctx, "The endpoint does not support dry runs: it launched %v, which is now being terminated.", ids)
	_, err := access.Finish(context.WithoutCancel(ctx), l.client().TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: ids})
	return err
}
