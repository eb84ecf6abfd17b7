package ec2

import (
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// ModifyImageAttribute changes who may launch an image, its description or its
// IMDS support, in the form of one field for each or in that of Attribute,
// OperationType and values.
func (s *state) ModifyImageAttribute(ctx context.Context, in *ec2.ModifyImageAttributeInput) (*ec2.ModifyImageAttributeOutput, error) {
	return &ec2.ModifyImageAttributeOutput{}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		change, err := imageChange(in)
		if err != nil {
			return err
		}
		for _, p := range change.add {
			if !slices.ContainsFunc(img.LaunchPermissions, samePermission(p)) {
				img.LaunchPermissions = append(img.LaunchPermissions, p)
			}
		}
		for _, p := range change.remove {
			img.LaunchPermissions = slices.DeleteFunc(img.LaunchPermissions, samePermission(p))
		}
		img.Public = aws.Bool(slices.ContainsFunc(img.LaunchPermissions, func(p types.LaunchPermission) bool { return p.Group == types.PermissionGroupAll }))
		if change.description != nil {
			img.Description = change.description
		}
		if change.imds != nil {
			img.ImdsSupport = types.ImdsSupportValues(*change.imds)
		}
		return nil
	})
}

// attributeChange is what a ModifyImageAttribute asks for, whatever its form.
type attributeChange struct {
	add, remove       []types.LaunchPermission
	description, imds *string
}

func imageChange(in *ec2.ModifyImageAttributeInput) (attributeChange, error) {
	c, err := namedChange(in)
	if err != nil {
		return c, err
	}
	for _, p := range slices.Concat(c.add, c.remove) {
		if p.OrganizationArn != nil || p.OrganizationalUnitArn != nil {
			continue
		}
		if err := checkGrantee(aws.ToString(p.UserId), string(p.Group)); err != nil {
			return c, err
		}
	}
	if v := c.imds; v != nil && *v != string(types.ImdsSupportValuesV20) {
		return c, wire.Errorf("InvalidAMIAttributeItemValue", `Invalid attribute item value "%s" for imdsSupport item type.`, *v)
	}
	return c, nil
}

// namedChange is what a request says in either form.
func namedChange(in *ec2.ModifyImageAttributeInput) (c attributeChange, err error) {
	if len(in.ProductCodes) > 0 || aws.ToString(in.Attribute) == "productCodes" {
		return c, wire.Errorf("InvalidProductCode.NotFound", "The embedded cloud has no marketplace, and so no product codes.")
	}
	if in.Description != nil {
		c.description = in.Description.Value
	}
	if in.ImdsSupport != nil {
		c.imds = in.ImdsSupport.Value
	}
	if p := in.LaunchPermission; p != nil {
		c.add, c.remove = p.Add, p.Remove
	}
	switch attribute := aws.ToString(in.Attribute); attribute {
	case "":
		if c.description == nil && c.imds == nil && in.LaunchPermission == nil {
			return c, missing("Attribute")
		}
	case "description":
		if c.description == nil {
			c.description = in.Value
		}
	case "imdsSupport":
		if c.imds == nil {
			c.imds = in.Value
		}
	case "launchPermission":
		if in.LaunchPermission != nil {
			return c, nil
		}
		var all []types.LaunchPermission
		for _, user := range in.UserIds {
			all = append(all, types.LaunchPermission{UserId: &user})
		}
		for _, group := range in.UserGroups {
			all = append(all, types.LaunchPermission{Group: types.PermissionGroup(group)})
		}
		for _, arn := range in.OrganizationArns {
			all = append(all, types.LaunchPermission{OrganizationArn: &arn})
		}
		for _, arn := range in.OrganizationalUnitArns {
			all = append(all, types.LaunchPermission{OrganizationalUnitArn: &arn})
		}
		switch in.OperationType {
		case types.OperationTypeAdd:
			c.add = all
		case types.OperationTypeRemove:
			c.remove = all
		default:
			return c, missing("OperationType")
		}
	default:
		return c, invalidValue("Value (%s) for parameter attribute is invalid. It cannot be modified.", attribute)
	}
	return c, nil
}

func samePermission(a types.LaunchPermission) func(types.LaunchPermission) bool {
	return func(b types.LaunchPermission) bool {
		return a.Group == b.Group && aws.ToString(a.UserId) == aws.ToString(b.UserId) &&
			aws.ToString(a.OrganizationArn) == aws.ToString(b.OrganizationArn) && aws.ToString(a.OrganizationalUnitArn) == aws.ToString(b.OrganizationalUnitArn)
	}
}

func (s *state) ResetImageAttribute(ctx context.Context, in *ec2.ResetImageAttributeInput) (*ec2.ResetImageAttributeOutput, error) {
	return &ec2.ResetImageAttributeOutput{}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		img.LaunchPermissions, img.Public = nil, aws.Bool(false)
		return nil
	})
}

func (s *state) DescribeImageAttribute(ctx context.Context, in *ec2.DescribeImageAttributeInput) (*ec2.DescribeImageAttributeOutput, error) {
	img, err := s.ownImage(wire.CallerFrom(ctx), in.ImageId)
	if err != nil {
		return nil, err
	}
	value := func(v string) *types.AttributeValue { return &types.AttributeValue{Value: notEmpty(&v)} }
	out := &ec2.DescribeImageAttributeOutput{ImageId: img.ImageId}
	switch in.Attribute {
	case types.ImageAttributeNameDescription:
		out.Description = value(aws.ToString(img.Description))
	case types.ImageAttributeNameLaunchPermission:
		out.LaunchPermissions = append([]types.LaunchPermission{}, img.LaunchPermissions...)
	case types.ImageAttributeNameBlockDeviceMapping:
		out.BlockDeviceMappings = append([]types.BlockDeviceMapping{}, img.BlockDeviceMappings...)
	case types.ImageAttributeNameBootMode:
		out.BootMode = value(string(img.BootMode))
	case types.ImageAttributeNameImdsSupport:
		out.ImdsSupport = value(string(img.ImdsSupport))
	case types.ImageAttributeNameTpmSupport:
		out.TpmSupport = value(string(img.TpmSupport))
	case types.ImageAttributeNameSriovNetSupport:
		out.SriovNetSupport = value(aws.ToString(img.SriovNetSupport))
	case types.ImageAttributeNameDeregistrationProtection:
		out.DeregistrationProtection = value(aws.ToString(img.DeregistrationProtection))
	case types.ImageAttributeNameLastLaunchedTime:
		out.LastLaunchedTime = value(s.lastLaunch(*img.ImageId))
	case types.ImageAttributeNameKernel:
		out.KernelId = value("")
	case types.ImageAttributeNameRamdisk:
		out.RamdiskId = value("")
	case types.ImageAttributeNameProductCodes:
		out.ProductCodes = []types.ProductCode{}
	default:
		return nil, invalidValue("Value (%s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
	}
	return out, nil
}

// lastLaunch is when the newest of the image's instances was launched, of those that
// can still be seen.
func (s *state) lastLaunch(image string) string {
	var last time.Time
	for _, in := range s.instances.Rows {
		if *in.ImageId == image && in.LaunchTime.After(last) {
			last = *in.LaunchTime
		}
	}
	if last.IsZero() {
		return ""
	}
	return last.UTC().Format(timeForm)
}

func (s *state) EnableImageDeprecation(ctx context.Context, in *ec2.EnableImageDeprecationInput) (*ec2.EnableImageDeprecationOutput, error) {
	return &ec2.EnableImageDeprecationOutput{Return: aws.Bool(true)}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		at := aws.ToTime(in.DeprecateAt)
		if !at.After(s.opts.Clock.Now()) {
			return invalidValue("The deprecation time %s is not in the future.", at.UTC().Format(timeForm))
		}
		img.DeprecationTime = aws.String(at.UTC().Round(time.Minute).Format(timeForm))
		return nil
	})
}

func (s *state) DisableImageDeprecation(ctx context.Context, in *ec2.DisableImageDeprecationInput) (*ec2.DisableImageDeprecationOutput, error) {
	return &ec2.DisableImageDeprecationOutput{Return: aws.Bool(true)}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		img.DeprecationTime = nil
		return nil
	})
}

// DisableImage takes an image out of use: nobody can launch it, and it loses its
// launch permissions for good.
func (s *state) DisableImage(ctx context.Context, in *ec2.DisableImageInput) (*ec2.DisableImageOutput, error) {
	err := s.changeState(ctx, in.ImageId, types.ImageStateAvailable, func(img *image) {
		img.State, img.LaunchPermissions, img.Public = types.ImageStateDisabled, nil, aws.Bool(false)
	})
	return &ec2.DisableImageOutput{Return: aws.Bool(true)}, err
}

// EnableImage makes a disabled image available again.
func (s *state) EnableImage(ctx context.Context, in *ec2.EnableImageInput) (*ec2.EnableImageOutput, error) {
	err := s.changeState(ctx, in.ImageId, types.ImageStateDisabled, func(img *image) { img.State = types.ImageStateAvailable })
	return &ec2.EnableImageOutput{Return: aws.Bool(true)}, err
}

// changeState changes an image of the caller's that is in the state from.
func (s *state) changeState(ctx context.Context, id *string, from types.ImageState, change func(*image)) error {
	return s.changeImage(ctx, id, func(img *image) error {
		if img.State != from {
			return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not %s: it is %s.", *img.ImageId, from, img.State)
		}
		change(img)
		return nil
	})
}

func (s *state) EnableImageDeregistrationProtection(ctx context.Context, in *ec2.EnableImageDeregistrationProtectionInput) (*ec2.EnableImageDeregistrationProtectionOutput, error) {
	state := "enabled-without-cooldown"
	if aws.ToBool(in.WithCooldown) {
		state = "enabled-with-cooldown"
	}
	return &ec2.EnableImageDeregistrationProtectionOutput{Return: aws.String("true")}, s.protect(ctx, in.ImageId, state)
}

// DisableImageDeregistrationProtection lifts the protection at once, that with a
// cooldown of 24 hours too.
func (s *state) DisableImageDeregistrationProtection(ctx context.Context, in *ec2.DisableImageDeregistrationProtectionInput) (*ec2.DisableImageDeregistrationProtectionOutput, error) {
	return &ec2.DisableImageDeregistrationProtectionOutput{Return: aws.String("true")}, s.protect(ctx, in.ImageId, "disabled")
}

// protect changes the deregistration protection of an image of the caller's.
func (s *state) protect(ctx context.Context, id *string, protection string) error {
	return s.changeImage(ctx, id, func(img *image) error {
		img.DeregistrationProtection = &protection
		return nil
	})
}
