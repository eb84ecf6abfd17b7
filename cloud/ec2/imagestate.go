package ec2

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud/wire"
)

// launched records that an instance of the image is being launched.
func (s *state) launched(id string) error {
	if _, stored := s.images.Get(id); !stored {
		return nil // a publication
	}
	now := s.now()
	return s.images.Edit(id, func(img *image) {
		if n := len(img.Launches); n > 1 && now.Sub(img.Launches[n-2]) < time.Hour {
			img.Launches = slices.Clone(img.Launches[:n-1])
		}
		img.Launches = append(slices.Clip(img.Launches), now)
		for len(img.Launches) > 1 && !now.Before(img.Launches[1].Add(s.delays().Usage)) {
			img.Launches = img.Launches[1:]
		}
	})
}

// lastLaunch returns the time of the image's last launch that is known by now; empty if
// there is none.
func (s *state) lastLaunch(img *image) string {
	known := s.opts.Clock.Now().Add(-s.delays().Usage)
	for _, at := range slices.Backward(img.Launches) {
		if !at.After(known) {
			return at.UTC().Format(timeForm)
		}
	}
	return ""
}

// The longest times until deprecation: from now for any image, from its creation for a
// public one.
const (
	deprecationYears       = 10
	publicDeprecationYears = 2
)

// setPublic makes an image public or private. A public image is deprecated two years after
// its creation at the latest.
func (img *image) setPublic(public bool) {
	img.Public = &public
	if latest := img.latestDeprecation(); public && (img.DeprecationTime == nil || img.deprecationTime().After(latest)) {
		img.DeprecationTime = aws.String(latest.Format(timeForm))
	}
}

func (img *image) deprecationTime() time.Time {
	at, _ := time.Parse(timeForm, aws.ToString(img.DeprecationTime))
	return at
}

// latestDeprecation returns the latest time at which a public image is deprecated.
func (img *image) latestDeprecation() time.Time {
	created, _ := time.Parse(timeForm, aws.ToString(img.CreationDate))
	return created.AddDate(publicDeprecationYears, 0, 0).Truncate(time.Minute)
}

// EnableImageDeprecation sets when an image is deprecated, rounded to a minute.
func (s *state) EnableImageDeprecation(ctx context.Context, in *ec2.EnableImageDeprecationInput) (*ec2.EnableImageDeprecationOutput, error) {
	return &ec2.EnableImageDeprecationOutput{Return: aws.Bool(true)}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		at, now := aws.ToTime(in.DeprecateAt).UTC(), s.opts.Clock.Now()
		switch {
		case !at.After(now):
			return invalidValue("The deprecation time %s is not in the future.", at.Format(timeForm))
		case at.After(now.AddDate(deprecationYears, 0, 0)):
			return invalidValue("The deprecation time %s is more than %d years from now.", at.Format(timeForm), deprecationYears)
		case aws.ToBool(img.Public) && at.After(img.latestDeprecation()):
			return invalidValue("The deprecation time %s is more than %d years from the creation of the image, which is public.", at.Format(timeForm), publicDeprecationYears)
		}
		img.DeprecationTime = aws.String(at.Round(time.Minute).Format(timeForm))
		return nil
	})
}

// DisableImageDeprecation cancels the deprecation of an image, which must not be public.
func (s *state) DisableImageDeprecation(ctx context.Context, in *ec2.DisableImageDeprecationInput) (*ec2.DisableImageDeprecationOutput, error) {
	return &ec2.DisableImageDeprecationOutput{Return: aws.Bool(true)}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		if aws.ToBool(img.Public) {
			return wire.Errorf("OperationNotPermitted", "The deprecation of the image '%s' cannot be canceled while it is public.", *img.ImageId)
		}
		img.DeprecationTime = nil
		return nil
	})
}

// Deregistration protection, as DescribeImages shows it.
const (
	unprotected = "disabled"
	protected   = "enabled-without-cooldown"
	coolingOff  = "enabled-with-cooldown" // followed by cooling when disabled
	cooling     = "disabled after "       // followed by a time
	cooldown    = 24 * time.Hour
)

// protection returns the image's deregistration protection now.
func (img *image) protection(now time.Time) string {
	state := aws.ToString(img.DeregistrationProtection)
	if text, ok := strings.CutPrefix(state, cooling); ok {
		if until, err := time.Parse(timeForm, text); err == nil && !now.Before(until) {
			return unprotected
		}
	}
	if state == "" {
		return unprotected
	}
	return state
}

// EnableImageDeregistrationProtection protects an image.
func (s *state) EnableImageDeregistrationProtection(ctx context.Context, in *ec2.EnableImageDeregistrationProtectionInput) (*ec2.EnableImageDeregistrationProtectionOutput, error) {
	return &ec2.EnableImageDeregistrationProtectionOutput{Return: aws.String("true")}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		img.DeregistrationProtection = aws.String(protected)
		if aws.ToBool(in.WithCooldown) {
			img.DeregistrationProtection = aws.String(coolingOff)
		}
		return nil
	})
}

// DisableImageDeregistrationProtection removes the protection at once or, if it was
// enabled with a cooldown, 24 hours later.
func (s *state) DisableImageDeregistrationProtection(ctx context.Context, in *ec2.DisableImageDeregistrationProtectionInput) (*ec2.DisableImageDeregistrationProtectionOutput, error) {
	return &ec2.DisableImageDeregistrationProtectionOutput{Return: aws.String("true")}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		now := s.opts.Clock.Now()
		switch state := img.protection(now); {
		case strings.HasPrefix(state, cooling):
		case state == coolingOff:
			img.DeregistrationProtection = aws.String(cooling + now.Add(cooldown).UTC().Format(timeForm))
		default:
			img.DeregistrationProtection = aws.String(unprotected)
		}
		return nil
	})
}
