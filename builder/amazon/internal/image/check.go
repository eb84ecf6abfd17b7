package image

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"golang.org/x/sync/errgroup"

	"bake/builder"
	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ownership"
	"bake/config/schema"
	"bake/step"
)

// Maker makes the images of one build.
type Maker struct {
	*Options
	Src     *schema.Source
	Session *access.Session
	Owner   *ownership.Owner
	Scope   *step.Scope

	// BuildRegion is the address of the option that names the build region.
	BuildRegion *string

	// Finish, if not nil, is called with an image before it is shared.
	Finish func(ctx context.Context, made Made) error

	// Distribution is the distribution of the finished images, regardless of the options.
	Distribution builder.Distribution

	// None means that no image is made, so no name needs to be free.
	None bool
}

// force reports whether an existing image of the same name is replaced.
func (m *Maker) force() bool { return m.ForceDeregister || m.Scope.Run.Force }

// Targets returns the regions of the permanent images.
func (m *Maker) Targets() []string {
	regions := m.copies(m.Session.Region)
	if !m.SkipSaveBuildRegion {
		regions = append([]string{m.Session.Region}, regions...)
	}
	return regions
}

// copyTo returns the regions that the first image is copied to.
func (m *Maker) copyTo() []string {
	regions := m.copies(m.Session.Region)
	if m.temporary() && !m.SkipSaveBuildRegion {
		regions = append(regions, m.Session.Region)
	}
	return regions
}

// Check checks, before anything is made, whether the images can be made in their regions.
func (m *Maker) Check(ctx context.Context) error {
	if !m.SkipRegionValidation {
		err := step.Run(ctx, m.Scope, "check the regions", func(ctx context.Context) error {
			return m.checkRegions(ctx)
		})
		if err != nil {
			return err
		}
	}
	if m.None {
		return nil
	}
	return step.Run(ctx, m.Scope, "check that the name is free", func(ctx context.Context) error {
		g, ctx := errgroup.WithContext(ctx)
		for _, region := range m.Targets() {
			g.Go(func() error { return m.checkName(ctx, region) })
		}
		return g.Wait()
	})
}

func (m *Maker) checkRegions(ctx context.Context) error {
	enabled, err := m.Session.Regions(ctx, false)
	if access.Is(err, "InvalidParameterValue") && strings.Contains(err.Error(), "There is no region") {
		return access.Blame(err, m.Src.Errorf(m.BuildRegion, "Unknown region", "%s.", err))
	} else if err != nil {
		return err
	}
	check := func(ptr any, region string) error {
		if slices.Contains(enabled, region) {
			return nil
		}
		if all, err := m.Session.Regions(ctx, true); err == nil && slices.Contains(all, region) {
			return m.Src.Errorf(ptr, "The region is not enabled",
				"The account has not enabled the region %q. To enable it, which takes some minutes: aws account enable-region --region-name %s. Enabled regions: %s.", region, region, strings.Join(enabled, ", "))
		}
		return m.Src.Errorf(ptr, "Unknown region", "The account has no region %q. Its regions: %s.", region, strings.Join(enabled, ", "))
	}
	if err := check(m.BuildRegion, m.Session.Region); err != nil {
		return err
	}
	for _, r := range m.copies(m.Session.Region) {
		if err := check(&m.Regions, r); err != nil {
			return err
		}
	}
	return nil
}

func (m *Maker) checkName(ctx context.Context, region string) error {
	if other := access.Claim(m.Session, region+" image "+m.Name, m.Scope.Build); other != "" {
		return m.Src.Errorf(&m.Name, "Two builds create the same image",
			"The builds %s and %s both create an image named %q in %s, but image names are unique. Use different names, for example with {{build_name}}.", other, m.Scope.Build, m.Name, region)
	}
	images, err := m.named(ctx, region)
	if err != nil || len(images) == 0 {
		return err
	}
	if !m.force() {
		return m.nameTaken(region, "Image "+describe(images[0]))
	}
	if err := m.checkProtection(region, images); err != nil {
		return err
	}
	if err := m.checkQuarantine(region, images); err != nil {
		return err
	}
	return m.checkUse(ctx, region, images, false)
}

// checkUse returns an error for an image that would be replaced but must stay. For other
// images, it reports their users unless late is set: running machines continue, but no
// more can be launched.
func (m *Maker) checkUse(ctx context.Context, region string, images []types.Image, late bool) error {
	if m.Session.Cloud.Users == nil {
		return nil
	}
	uses := m.Session.Cloud.Users(ctx, m.Session, region, images, late)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	for _, u := range uses {
		if u.Must && u.Unknown {
			return m.Src.Errorf(m.forcedBy(), "Whether the image to replace must stay is not known",
				"Image %s in %s has the name %q and is not replaced: %s. Let the credentials do ssm:DescribeParameters and ssm:GetParameters in %s, as bake policy has it, and see that Systems Manager can be reached from here; or choose another name, such as one that contains a time.", u.Image, region, m.Name, u.By, region)
		}
		if u.Must {
			return m.Src.Errorf(m.forcedBy(), "The image to replace must stay",
				"Image %s in %s has the name %q and is not replaced: %s. Choose another name, such as one that contains a time, or have it needed no more.", u.Image, region, m.Name, u.By)
		}
		if u.Unknown {
			m.Scope.Warn(ctx, "Of image %s in %s, which is to be replaced, %s", u.Image, region, u.By)
			continue
		}
		m.Scope.Warn(ctx, "Image %s in %s, which is to be replaced, is used by %s", u.Image, region, u.By)
	}
	return nil
}

// forcedBy returns the address of the option that makes images be replaced or, if the flag
// requests it, of the name option.
func (m *Maker) forcedBy() any {
	if m.ForceDeregister {
		return &m.ForceDeregister
	}
	return &m.Name
}

// checkProtection returns an error for an image that would be replaced but is protected.
func (m *Maker) checkProtection(region string, images []types.Image) error {
	for _, i := range images {
		if p := aws.ToString(i.DeregistrationProtection); p != "" && p != "disabled" {
			return m.Src.Errorf(m.forcedBy(), "The image to replace is protected",
				"Image %s in %s has the name %q and is protected from being deregistered (%s). Choose another name, or turn the protection off first: aws ec2 disable-image-deregistration-protection --region %s --image-id %s; with a cooldown it ends 24 hours later.",
				aws.ToString(i.ImageId), region, m.Name, p, region, aws.ToString(i.ImageId))
		}
	}
	return nil
}

// checkQuarantine returns an error for an image that would be replaced but is in
// quarantine: its data are kept for inspection, and it can be released again.
func (m *Maker) checkQuarantine(region string, images []types.Image) error {
	for _, i := range images {
		if slices.ContainsFunc(i.Tags, func(t types.Tag) bool { return aws.ToString(t.Key) == ownership.QuarantineTag }) {
			id := aws.ToString(i.ImageId)
			return m.Src.Errorf(m.forcedBy(), "The image to replace is in quarantine",
				"Image %s in %s has the name %q and the tag %s, because its verification has failed, and is not replaced. Choose another name, or let it go first: bake images rm %s -region %s.",
				id, region, m.Name, ownership.QuarantineTag, id, region)
		}
	}
	return nil
}

// describe describes an image, with its state if that is not the usual one.
func describe(i types.Image) string {
	if i.State == "" || i.State == types.ImageStateAvailable {
		return aws.ToString(i.ImageId)
	}
	return fmt.Sprintf("%s (%s)", aws.ToString(i.ImageId), i.State)
}

func (m *Maker) nameTaken(region, other string) error {
	return m.Src.Errorf(&m.Name, "The image name is taken",
		"%s in %s already has the name %q. Choose another, such as one that contains a time, or replace the image with force_deregister = true or -force.", other, region, m.Name)
}

// named lists the account's existing images that have the name of the new image.
func (m *Maker) named(ctx context.Context, region string) ([]types.Image, error) {
	out, err := access.Call(ctx, m.Session.EC2(region).DescribeImages, &ec2.DescribeImagesInput{
		Owners:          []string{"self"},
		Filters:         []types.Filter{{Name: new("name"), Values: []string{m.Name}}},
		IncludeDisabled: new(true), // they still occupy their names
	})
	if err != nil {
		return nil, err
	}
	return out.Images, nil
}
