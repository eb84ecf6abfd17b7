package ebs_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/builder"
	"bake/communicator"
)

// TestInstanceGone: an instance that ends while it is provisioned ends the build at
// once, with the reason that EC2 gives, whether a provisioner waits for the machine
// or has lost it.
func TestInstanceGone(t *testing.T) {
	for name, fail := range map[string]func(context.Context) error{
		"a provisioner waits": func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		},
		"the connection is lost": func(context.Context) error { return fmt.Errorf("script: %w", communicator.ErrDisconnected) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b := w.Bake(t)
			b.Provision = func(ctx context.Context, m builder.Machine) error {
				_, err := w.Client("us-east-1").TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{m.Data["ID"].Text}})
				if err != nil {
					t.Error(err)
				}
				return fail(ctx)
			}
			_, err := b.Build(t.Context(), plain(`ami_name = "web"`))
			if err == nil || !strings.HasPrefix(err.Error(), "provision: instance i-") || !strings.Contains(err.Error(), "Client.UserInitiatedShutdown") {
				t.Errorf("the error does not say that the instance has ended: %v", err)
			}
			if err := b.Scope.Close(t.Context(), context.Background()); err != nil {
				t.Error(err)
			}
			if left := w.Holdings(); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
		})
	}
}
