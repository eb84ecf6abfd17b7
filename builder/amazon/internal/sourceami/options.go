package sourceami

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/config/schema"
	"bake/step"
)

// Selection is the image that a build starts from. Options embed it.
type Selection struct {
	// ID of the image to start from. If `source_ami_filter` is set as well, the image must
	// also match the filter.
	SourceAMI string `hcl:"source_ami,optional"`

	// Find the image to start from by filters. Exactly one image must match, unless
	// `most_recent` is set.
	SourceAMIFilter *ImageFilter `hcl:"source_ami_filter,block"`
}

// ImageFilter finds an image.
type ImageFilter struct {
	Filters

	// Accounts whose images are considered: account IDs, `self`, or an alias such as
	// `amazon`. Required unless `source_ami` is set, because anyone can publish an image
	// with any name.
	Owners []string `hcl:"owners,optional"`

	// Use the newest image if several match. Otherwise several matches are an error.
	MostRecent bool `hcl:"most_recent,optional"`

	// Include deprecated images of other accounts. Those of this account are always
	// included.
	IncludeDeprecated bool `hcl:"include_deprecated,optional"`
}

// Validate reports errors in the options. alternatives names the options that a template
// which selects no image can set instead, for messages. Structs that embed Selection call
// it.
func (s *Selection) Validate(c *schema.Checker, alternatives string) {
	switch f := s.SourceAMIFilter; {
	case f == nil:
		if s.SourceAMI == "" && c.Known(&s.SourceAMIFilter) {
			c.Errorf(&s.SourceAMI, "No source image", "Set %s.", alternatives)
		}
	case len(f.Owners) == 0 && s.SourceAMI == "" && c.Known(&f.Owners) && c.Known(&s.SourceAMI):
		c.Errorf(&s.SourceAMIFilter, "No owners", "Set owners in source_ami_filter: anyone can publish an image under any name.")
	}
}

// Find finds the image, as a step. Its root device must be of the type root.
func (s *Selection) Find(ctx context.Context, scope *step.Scope, session *access.Session, src *schema.Source, root types.DeviceType) (types.Image, error) {
	return step.Do(ctx, scope, "find the source image", func(ctx context.Context) (types.Image, error) {
		q := Query{ID: &s.SourceAMI, Blame: &s.SourceAMI}
		if f := s.SourceAMIFilter; f != nil {
			q = Query{ID: &s.SourceAMI, Filters: &f.Filters, Owners: f.Owners, MostRecent: f.MostRecent, IncludeDeprecated: f.IncludeDeprecated, Blame: &s.SourceAMIFilter}
		}
		image, err := q.Find(ctx, session, src)
		if err != nil {
			return image, err
		}
		if image.RootDeviceType != root {
			want := "has an EBS root"
			summary := "Not an EBS image"
			if root == types.DeviceTypeInstanceStore {
				want, summary = "has an instance store root", "Not an instance-store image"
			}
			return image, src.Errorf(q.Blame, summary, "The root device of %s is of type %q; this builder needs an image that %s.",
				aws.ToString(image.ImageId), image.RootDeviceType, want)
		}
		scope.Say(ctx, "Source image: %s (%s)", aws.ToString(image.ImageId), aws.ToString(image.Name))
		return image, nil
	})
}
