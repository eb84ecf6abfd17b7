package fastlaunch

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/image"
	"bake/config/schema"
	"bake/step"
)

// Enabler enables fast launch for the images of one build.
type Enabler struct {
	*Options
	Src     *schema.Source
	Session *access.Session
	Scope   *step.Scope
}

// Enable enables fast launch for an image as the options require, and waits until EC2 has
// prepared the first instances. It is used as the Finish of an [image.Maker].
func (e *Enabler) Enable(ctx context.Context, made image.Made) error {
	want, ok := e.in(made.Region, e.Session.Region)
	if !ok {
		return nil
	}
	return step.Run(ctx, e.Scope, "enable fast launch in "+made.Region, func(ctx context.Context) error {
		client := e.Session.EC2(made.Region)
		template, err := e.template(ctx, client, want)
		if err != nil {
			return err
		}
		in := &ec2.EnableFastLaunchInput{ImageId: &made.ID, ResourceType: new(string(types.FastLaunchResourceTypeSnapshot)), LaunchTemplate: template}
		if n := e.MaxParallelLaunches; n > 0 {
			in.MaxParallelLaunches = new(int32(n)) // a small number
		}
		if n := e.TargetResourceCount; n > 0 {
			in.SnapshotConfiguration = &types.FastLaunchSnapshotConfigurationRequest{TargetResourceCount: new(int32(n))}
		}
		if err := e.enable(ctx, client, in); err != nil {
			return err
		}
		return e.await(ctx, client, made)
	})
}

// template finds the launch template, in its latest version if the options do not name one.
func (e *Enabler) template(ctx context.Context, client *ec2.Client, want Region) (*types.FastLaunchLaunchTemplateSpecificationRequest, error) {
	in := &ec2.DescribeLaunchTemplatesInput{}
	switch {
	case want.TemplateID != "":
		in.LaunchTemplateIds = []string{want.TemplateID}
	case want.TemplateName != "":
		in.LaunchTemplateNames = []string{want.TemplateName}
	default:
		return nil, nil
	}
	out, err := access.Call(ctx, client.DescribeLaunchTemplates, in)
	if err == nil && len(out.LaunchTemplates) == 0 || access.Is(err, "InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateName.NotFoundException", "InvalidLaunchTemplateId.VersionNotFound") {
		return nil, e.Src.Errorf(&e.Options.Enable, "No such launch template", "There is no launch template %q in %s.", want.TemplateID+want.TemplateName, want.Region)
	} else if err != nil {
		return nil, err
	}
	found := out.LaunchTemplates[0]
	version := int64(want.TemplateVersion)
	if version == 0 {
		version = aws.ToInt64(found.LatestVersionNumber)
	}
	return &types.FastLaunchLaunchTemplateSpecificationRequest{LaunchTemplateId: found.LaunchTemplateId, Version: new(strconv.FormatInt(version, 10))}, nil
}

// enable retries for a minute, until the image is visible in all of EC2.
func (e *Enabler) enable(ctx context.Context, client *ec2.Client, in *ec2.EnableFastLaunchInput) error {
	watch := e.Session.Watch(3*time.Second, time.Minute)
	return watch.Until(ctx, "image "+*in.ImageId+" to be ready for fast launch", func(ctx context.Context) (bool, error) {
		_, err := access.Call(ctx, client.EnableFastLaunch, in)
		if access.NotFound(err) {
			return false, nil
		}
		return err == nil, err
	})
}

func (e *Enabler) await(ctx context.Context, client *ec2.Client, made image.Made) error {
	watch := e.Session.Watch(15*time.Second, 500*15*time.Second)
	return watch.Until(ctx, "fast launch of "+made.ID+" in "+made.Region, func(ctx context.Context) (bool, error) {
		out, err := access.Call(ctx, client.DescribeFastLaunchImages, &ec2.DescribeFastLaunchImagesInput{ImageIds: []string{made.ID}})
		if err != nil || len(out.FastLaunchImages) == 0 {
			if access.NotFound(err) {
				err = nil
			}
			return false, err
		}
		f := out.FastLaunchImages[0]
		switch f.State {
		case types.FastLaunchStateCodeEnabled:
			return true, nil
		case types.FastLaunchStateCodeEnabling:
			return false, nil
		}
		why := strings.TrimSpace(aws.ToString(f.StateTransitionReason))
		return false, fmt.Errorf("fast launch of %s in %s is %s: %s", made.ID, made.Region, f.State, why)
	})
}
