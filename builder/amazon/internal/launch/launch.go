package launch

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/device"
	"bake/builder/amazon/internal/ownership"
	"bake/builder/amazon/internal/sourceami"
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

	// Devices are the volumes of the instance, beside or instead of those of the
	// source image; each is an option.
	Devices     []*device.Mapping
	NoEphemeral bool // keep the names of instance store volumes free

	// InstanceStore says that the source image is one that starts from an instance
	// store, and not from EBS.
	InstanceStore bool

	// Keep are the names of devices whose volumes outlive the instance, whatever
	// becomes of the build.
	Keep []string
}

func (l *Launcher) client() *ec2.Client { return access.EC2(l.Session, l.Session.Region) }

// SourceImage finds the image to start from.
func (l *Launcher) SourceImage(ctx context.Context) (types.Image, error) {
	return step.Do(ctx, l.Scope, "find the source image", func(ctx context.Context) (types.Image, error) {
		q := sourceami.Query{ID: l.SourceAMI}
		blame := any(&l.SourceAMI)
		if f := l.SourceAMIFilter; f != nil {
			q.Filters, q.Owners, q.MostRecent, q.IncludeDeprecated = f.Filters, f.Owners, f.MostRecent, f.IncludeDeprecated
			blame = &l.SourceAMIFilter
		}
		image, err := sourceami.Find(ctx, l.client(), q)
		if err != nil {
			return image, l.blameSource(ctx, blame, err)
		}
		switch ebs := image.RootDeviceType == types.DeviceTypeEbs; {
		case l.InstanceStore && ebs:
			return image, l.Src.Errorf(blame, "Not an instance-store image", "The root device of %s is of type %q; this builder needs an image that starts from an instance store.",
				aws.ToString(image.ImageId), image.RootDeviceType)
		case !l.InstanceStore && !ebs:
			return image, l.Src.Errorf(blame, "Not an EBS image", "The root device of %s is of type %q; this builder needs an image that starts from EBS.",
				aws.ToString(image.ImageId), image.RootDeviceType)
		}
		l.Scope.Say(ctx, "Source image: %s (%s)", aws.ToString(image.ImageId), aws.ToString(image.Name))
		return image, nil
	})
}

func (l *Launcher) blameSource(ctx context.Context, blame any, err error) error {
	region, offer := l.Session.Region, ""
	if l.Session.Cloud.Endpoint != "" && (errors.Is(err, sourceami.ErrID) || errors.Is(err, sourceami.ErrNone)) {
		offer = sourceami.Offer(ctx, l.client())
	}
	var many *sourceami.ManyError
	switch {
	case errors.Is(err, sourceami.ErrID):
		return l.Src.Errorf(&l.SourceAMI, "No such image", "There is no image %q in %s, or it is not shared with this account.%s", l.SourceAMI, region, offer)
	case errors.Is(err, sourceami.ErrNone) && l.SourceAMI != "":
		return l.Src.Errorf(blame, "No such image", "The image %s in %s does not match the filters.%s", l.SourceAMI, region, offer)
	case errors.Is(err, sourceami.ErrNone):
		return l.Src.Errorf(blame, "No such image", "No image of these owners matches these filters in %s.%s", region, offer)
	case errors.As(err, &many):
		return l.Src.Errorf(blame, "Several images match", "In %s %s. Narrow the filters down, or set most_recent = true to take the newest.", region, many)
	case l.SourceAMIFilter != nil:
		return l.SourceAMIFilter.Blame(l.Src, err)
	}
	return err
}
