package amazonbuild

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon/internal/image"
	"bake/communicator"
	"bake/step"
)

// milestone is the state of a build whose machine has been provisioned, sufficient for
// resuming it in another process. It includes rendered texts, because some values
// change each time the template is read.
type milestone struct {
	Source     types.Image       `json:"source"`
	Instance   types.Instance    `json:"instance"`
	RunTags    map[string]string `json:"run_tags"`
	VolumeTags map[string]string `json:"volume_tags"`
	Name       string            `json:"name"` // of the image
	Labels     image.Labels      `json:"labels"`
	Data       builder.Data      `json:"data"`
	Key        string            `json:"key"` // name of the key pair
}

func (b *Build) milestone() milestone {
	m := milestone{Source: b.Source, Instance: b.Instance, RunTags: b.Spec.Tags, VolumeTags: b.Spec.VolumeTags, Labels: b.Labels, Data: b.Data.Public(), Key: b.Spec.Key.Name}
	if b.Images != nil {
		m.Name = b.Images.Name
	}
	return m
}

// restore restores the state m of b from an earlier process of the run. running reports
// whether the machine must run.
func (b *Build) restore(ctx context.Context, m milestone, running bool) error {
	b.Source, b.Instance, b.Labels, b.Data = m.Source, m.Instance, m.Labels, m.Data
	b.Spec.Image, b.Spec.Tags, b.Spec.VolumeTags = m.Source, m.RunTags, m.VolumeTags
	b.Texts = b.Texts.With(m.Source)
	if b.Images != nil {
		b.Images.Name = m.Name
	}
	if first, ok := step.Recall[image.Made](b.Scope, "first image"); ok { // the machine is no longer needed
		return step.Run(ctx, b.Scope, "find the image of the run", func(ctx context.Context) error {
			return b.Images.CheckExists(ctx, first)
		})
	}
	return step.Run(ctx, b.Scope, "find the machine of the run", func(ctx context.Context) error {
		id := aws.ToString(m.Instance.InstanceId)
		state, err := b.Machines.State(ctx, id)
		if err == nil && running && state != types.InstanceStateNameRunning && state != types.InstanceStateNamePending {
			err = fmt.Errorf("instance %s in %s is %s; start it to run its provisioners again", id, b.Session.Region, state)
		}
		if err != nil {
			err = fmt.Errorf("the build cannot go on: %w", err)
			if state != "" {
				err = step.Interrupted(ctx, b.Scope, err)
			}
			return err
		}
		b.Scope.Say(ctx, "Going on with instance %s", id)
		return nil
	})
}

// resumeProvisioning provisions the machine of state m, which an earlier process of the run
// has launched.
func (b *Build) resumeProvisioning(ctx context.Context, m milestone, provision builder.Provision, finish func(context.Context, communicator.Communicator) error) error {
	if err := b.restore(ctx, m, true); err != nil {
		return err
	}
	var err error
	if b.Spec.Key, err = b.Machines.KeptKey(m.Key, b.Scope.Key); err != nil {
		return err
	}
	return b.provision(ctx, provision, finish, true)
}
