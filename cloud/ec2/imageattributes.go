package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// ModifyImageAttribute changes the launch permissions, description or IMDS support of an
// image. A request either uses a field for each, or Attribute, OperationType and values.
func (s *state) ModifyImageAttribute(ctx context.Context, in *ec2.ModifyImageAttributeInput) (*ec2.ModifyImageAttributeOutput, error) {
	return &ec2.ModifyImageAttributeOutput{}, s.changeImage(ctx, in.ImageId, func(img *image) error {
		change, err := imageChange(in)
		if err != nil {
			return err
		}
		if len(change.add) > 0 {
			if err := s.shareable(img, change.add); err != nil {
				return err
			}
		}
		for _, p := range change.add {
			if !slices.ContainsFunc(img.LaunchPermissions, samePermission(p)) {
				img.LaunchPermissions = append(img.LaunchPermissions, p)
			}
		}
		if n := len(img.LaunchPermissions); n > maxPermissions {
			return wire.Errorf("ResourceLimitExceeded", "The image '%s' would be shared with %d; the limit is %d.", *img.ImageId, n, maxPermissions)
		}
		for _, p := range change.remove {
			img.LaunchPermissions = slices.DeleteFunc(img.LaunchPermissions, samePermission(p))
		}
		img.setPublic(slices.ContainsFunc(img.LaunchPermissions, func(p types.LaunchPermission) bool { return p.Group == types.PermissionGroupAll }))
		if change.description != nil {
			img.Description = change.description
		}
		if change.imds != nil {
			img.ImdsSupport = types.ImdsSupportValues(*change.imds)
		}
		return nil
	})
}

// maxPermissions is the largest number of launch permissions of an image.
const maxPermissions = 1000

// shareable reports why an image cannot be shared with further accounts.
func (s *state) shareable(img *image, with []types.LaunchPermission) error {
	public := slices.ContainsFunc(with, func(p types.LaunchPermission) bool { return p.Group != "" })
	if public && s.settingsOf(*img.OwnerId, img.Region).ImagesBlocked {
		return wire.Errorf("OperationNotPermitted", "You can't publicly share this image because block public access for AMIs is enabled for this account.")
	}
	if public && len(img.ImageWatermarks) > 0 {
		return wire.Errorf("OperationNotPermitted", "The image '%s' has watermarks and cannot be made public.", *img.ImageId)
	}
	for _, id := range img.snapshotIDs() {
		snap, ok := s.snapshots.Get(id)
		switch {
		case !ok:
		case snap.defaultKey():
			return wire.Errorf("InvalidParameter", "Snapshots encrypted with the AWS Managed CMK can't be shared")
		case public && aws.ToBool(snap.Encrypted):
			return wire.Errorf("InvalidParameter", "Images with encrypted snapshots cannot be shared publicly")
		}
	}
	return nil
}

var organizationARN = lazyregexp.New(`^arn:aws[a-z-]*:organizations::\d{12}:(organization/o-[a-z0-9]{10,32}|ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32})$`)

// checkOrganization reports an ARN that is not the ARN of an organization or an
// organizational unit.
func checkOrganization(p types.LaunchPermission) error {
	for _, a := range []struct {
		arn        *string
		kind, item string
	}{{p.OrganizationArn, ":organization/", "organizationArn"}, {p.OrganizationalUnitArn, ":ou/", "organizationalUnitArn"}} {
		if a.arn != nil && (!organizationARN.Get().MatchString(*a.arn) || !strings.Contains(*a.arn, a.kind)) {
			return wire.Errorf("InvalidAMIAttributeItemValue", `Invalid attribute item value "%s" for %s item type.`, *a.arn, a.item)
		}
	}
	return nil
}

// attributeChange is the change that a ModifyImageAttribute request asks for in either
// form.
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
			if err := checkOrganization(p); err != nil {
				return c, err
			}
			continue
		}
		if err := checkGrantee(aws.ToString(p.UserId), string(p.Group)); err != nil {
			return c, err
		}
	}
	if err := checkDescription(c.description); err != nil {
		return c, err
	}
	if v := c.imds; v != nil && *v != string(types.ImdsSupportValuesV20) {
		return c, wire.Errorf("InvalidAMIAttributeItemValue", `Invalid attribute item value "%s" for imdsSupport item type.`, *v)
	}
	return c, nil
}

// namedChange returns the change that a request asks for in either form.
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
		img.LaunchPermissions = nil
		img.setPublic(false)
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
		return nil, wire.Errorf("AuthFailure", "Unauthorized attempt to access restricted resource")
	case types.ImageAttributeNameBootMode:
		out.BootMode = value(string(img.BootMode))
	case types.ImageAttributeNameImdsSupport:
		out.ImdsSupport = value(string(img.ImdsSupport))
	case types.ImageAttributeNameTpmSupport:
		out.TpmSupport = value(string(img.TpmSupport))
	case types.ImageAttributeNameSriovNetSupport:
		out.SriovNetSupport = value(aws.ToString(img.SriovNetSupport))
	case types.ImageAttributeNameDeregistrationProtection:
		out.DeregistrationProtection = value(img.protection(s.opts.Clock.Now()))
	case types.ImageAttributeNameLastLaunchedTime:
		out.LastLaunchedTime = value(s.lastLaunch(img))
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

// DisableImage disables an image: it cannot be launched any more, and it loses its launch
// permissions permanently.
func (s *state) DisableImage(ctx context.Context, in *ec2.DisableImageInput) (*ec2.DisableImageOutput, error) {
	err := s.changeState(ctx, in.ImageId, types.ImageStateAvailable, func(img *image) {
		img.State, img.LaunchPermissions, img.Public = types.ImageStateDisabled, nil, aws.Bool(false)
	})
	return &ec2.DisableImageOutput{Return: aws.Bool(true)}, err
}

// EnableImage makes a disabled image available again.
func (s *state) EnableImage(ctx context.Context, in *ec2.EnableImageInput) (*ec2.EnableImageOutput, error) {
	img, err := s.ownImage(wire.CallerFrom(ctx), in.ImageId)
	if err != nil {
		return nil, err
	}
	for _, id := range img.snapshotIDs() {
		if err := s.checkImageTier(id); err != nil {
			return nil, err
		}
	}
	err = s.changeState(ctx, in.ImageId, types.ImageStateDisabled, func(img *image) { img.State = types.ImageStateAvailable })
	return &ec2.EnableImageOutput{Return: aws.Bool(true)}, err
}

// changeState changes one of the caller's images that is in state from.
func (s *state) changeState(ctx context.Context, id *string, from types.ImageState, change func(*image)) error {
	return s.changeImage(ctx, id, func(img *image) error {
		if img.State != from {
			return wire.Errorf("InvalidAMIID.Unavailable", "The image ID '%s' is not %s: it is %s.", *img.ImageId, from, img.State)
		}
		change(img)
		return nil
	})
}
