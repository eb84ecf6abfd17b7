package ec2

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// settings are the settings of an account in a region. The zero value is that of a new
// account; on EC2, a new account also blocks public images.
type settings struct {
	Account, Region string
	ImagesBlocked   bool                                 // public sharing of images
	SnapshotsPublic types.SnapshotBlockPublicAccessState // empty means unblocked
	Encrypt         bool                                 // encrypt every new volume and snapshot
	Key             string                               // ARN of the default key; empty means the AWS managed key
	Allowed         string                               // state of the allowed images settings; empty means disabled
	Criteria        []types.ImageCriterion
}

func settingsID(account, region string) string { return account + "." + region }

// settingsOf returns the settings of an account in a region.
func (s *state) settingsOf(account, region string) settings {
	if row, ok := s.settings.Get(settingsID(account, region)); ok {
		return *row
	}
	return settings{}
}

// set changes the caller's settings.
func (s *state) set(ctx context.Context, change func(*settings)) error {
	c := wire.CallerFrom(ctx)
	return s.settings.Change(settingsID(c.Account, c.Region), func(row *settings) error {
		row.Account, row.Region = c.Account, c.Region
		change(row)
		return nil
	})
}

// mine returns the caller's settings.
func (s *state) mine(ctx context.Context) settings {
	c := wire.CallerFrom(ctx)
	return s.settingsOf(c.Account, c.Region)
}

const unblocked = "unblocked"

// GetImageBlockPublicAccessState returns whether sharing images publicly is blocked.
func (s *state) GetImageBlockPublicAccessState(ctx context.Context, _ *ec2.GetImageBlockPublicAccessStateInput) (*ec2.GetImageBlockPublicAccessStateOutput, error) {
	state := unblocked
	if s.mine(ctx).ImagesBlocked {
		state = string(types.ImageBlockPublicAccessEnabledStateBlockNewSharing)
	}
	return &ec2.GetImageBlockPublicAccessStateOutput{ImageBlockPublicAccessState: &state, ManagedBy: types.ManagedByAccount}, nil
}

// EnableImageBlockPublicAccess blocks public sharing of images. Images that are already
// public stay public.
func (s *state) EnableImageBlockPublicAccess(ctx context.Context, in *ec2.EnableImageBlockPublicAccessInput) (*ec2.EnableImageBlockPublicAccessOutput, error) {
	return &ec2.EnableImageBlockPublicAccessOutput{ImageBlockPublicAccessState: in.ImageBlockPublicAccessState}, s.set(ctx, func(row *settings) { row.ImagesBlocked = true })
}

// DisableImageBlockPublicAccess allows public sharing of images.
func (s *state) DisableImageBlockPublicAccess(ctx context.Context, _ *ec2.DisableImageBlockPublicAccessInput) (*ec2.DisableImageBlockPublicAccessOutput, error) {
	return &ec2.DisableImageBlockPublicAccessOutput{ImageBlockPublicAccessState: types.ImageBlockPublicAccessDisabledStateUnblocked}, s.set(ctx, func(row *settings) { row.ImagesBlocked = false })
}

// GetSnapshotBlockPublicAccessState returns whether sharing snapshots publicly is blocked.
func (s *state) GetSnapshotBlockPublicAccessState(ctx context.Context, _ *ec2.GetSnapshotBlockPublicAccessStateInput) (*ec2.GetSnapshotBlockPublicAccessStateOutput, error) {
	state := cmp.Or(s.mine(ctx).SnapshotsPublic, types.SnapshotBlockPublicAccessStateUnblocked)
	return &ec2.GetSnapshotBlockPublicAccessStateOutput{State: state, ManagedBy: types.ManagedByAccount}, nil
}

// EnableSnapshotBlockPublicAccess blocks public sharing of snapshots. With
// block-all-sharing, it also hides public snapshots.
func (s *state) EnableSnapshotBlockPublicAccess(ctx context.Context, in *ec2.EnableSnapshotBlockPublicAccessInput) (*ec2.EnableSnapshotBlockPublicAccessOutput, error) {
	if in.State == types.SnapshotBlockPublicAccessStateUnblocked {
		return nil, invalidValue("Value ( %s ) for parameter State is invalid. Use DisableSnapshotBlockPublicAccess.", in.State)
	}
	return &ec2.EnableSnapshotBlockPublicAccessOutput{State: in.State}, s.set(ctx, func(row *settings) { row.SnapshotsPublic = in.State })
}

// DisableSnapshotBlockPublicAccess allows public sharing of snapshots.
func (s *state) DisableSnapshotBlockPublicAccess(ctx context.Context, _ *ec2.DisableSnapshotBlockPublicAccessInput) (*ec2.DisableSnapshotBlockPublicAccessOutput, error) {
	return &ec2.DisableSnapshotBlockPublicAccessOutput{State: types.SnapshotBlockPublicAccessStateUnblocked}, s.set(ctx, func(row *settings) { row.SnapshotsPublic = "" })
}

// visible reports whether the account may create volumes from the snapshot.
func (s *state) visible(r *snapshot, account string) bool {
	return *r.OwnerId == account || slices.ContainsFunc(s.permissionsOf(r), func(p types.CreateVolumePermission) bool {
		public := p.Group == types.PermissionGroupAll && s.settingsOf(*r.OwnerId, r.Region).SnapshotsPublic != types.SnapshotBlockPublicAccessStateBlockAllSharing
		return public || aws.ToString(p.UserId) == account
	})
}

// encrypts reports whether everything that the caller creates is encrypted.
func (s *state) encrypts(c wire.Caller) bool { return s.settingsOf(c.Account, c.Region).Encrypt }

// ebsKey returns the ARN of the key that a request names or, if name is empty, of the
// caller's default key.
func (s *state) ebsKey(c wire.Caller, name string) string {
	return kmsKey(c, cmp.Or(name, s.settingsOf(c.Account, c.Region).Key))
}

// GetEbsEncryptionByDefault returns whether everything that the caller creates is
// encrypted.
func (s *state) GetEbsEncryptionByDefault(ctx context.Context, _ *ec2.GetEbsEncryptionByDefaultInput) (*ec2.GetEbsEncryptionByDefaultOutput, error) {
	out := &ec2.GetEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: aws.Bool(s.mine(ctx).Encrypt), SseType: types.SSETypeNone}
	if *out.EbsEncryptionByDefault {
		out.SseType = types.SSETypeSseKms
	}
	return out, nil
}

// EnableEbsEncryptionByDefault encrypts all volumes and copies that the caller creates
// from now on.
func (s *state) EnableEbsEncryptionByDefault(ctx context.Context, _ *ec2.EnableEbsEncryptionByDefaultInput) (*ec2.EnableEbsEncryptionByDefaultOutput, error) {
	return &ec2.EnableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: aws.Bool(true)}, s.set(ctx, func(row *settings) { row.Encrypt = true })
}

// DisableEbsEncryptionByDefault encrypts only what requests ask to encrypt.
func (s *state) DisableEbsEncryptionByDefault(ctx context.Context, _ *ec2.DisableEbsEncryptionByDefaultInput) (*ec2.DisableEbsEncryptionByDefaultOutput, error) {
	return &ec2.DisableEbsEncryptionByDefaultOutput{EbsEncryptionByDefault: aws.Bool(false)}, s.set(ctx, func(row *settings) { row.Encrypt = false })
}

// ebsAlias is the name of the AWS managed key for EBS.
const ebsAlias = "alias/aws/ebs"

// GetEbsDefaultKmsKeyId returns the key that is used if a request names none.
func (s *state) GetEbsDefaultKmsKeyId(ctx context.Context, _ *ec2.GetEbsDefaultKmsKeyIdInput) (*ec2.GetEbsDefaultKmsKeyIdOutput, error) {
	return &ec2.GetEbsDefaultKmsKeyIdOutput{KmsKeyId: aws.String(cmp.Or(s.mine(ctx).Key, ebsAlias))}, nil
}

// ModifyEbsDefaultKmsKeyId sets the default key.
func (s *state) ModifyEbsDefaultKmsKeyId(ctx context.Context, in *ec2.ModifyEbsDefaultKmsKeyIdInput) (*ec2.ModifyEbsDefaultKmsKeyIdOutput, error) {
	if aws.ToString(in.KmsKeyId) == "" {
		return nil, missing("KmsKeyId")
	}
	key := kmsKey(wire.CallerFrom(ctx), *in.KmsKeyId)
	return &ec2.ModifyEbsDefaultKmsKeyIdOutput{KmsKeyId: &key}, s.set(ctx, func(row *settings) { row.Key = key })
}

// ResetEbsDefaultKmsKeyId makes the AWS managed key the default.
func (s *state) ResetEbsDefaultKmsKeyId(ctx context.Context, _ *ec2.ResetEbsDefaultKmsKeyIdInput) (*ec2.ResetEbsDefaultKmsKeyIdOutput, error) {
	return &ec2.ResetEbsDefaultKmsKeyIdOutput{KmsKeyId: aws.String(ebsAlias)}, s.set(ctx, func(row *settings) { row.Key = "" })
}

// Limits of the criteria for allowed images.
const (
	maxCriteria  = 10
	maxProviders = 200
	maxCriterion = 50 // names, watermarks or product codes in a criterion
)

// GetAllowedImagesSettings returns which images of other owners may be used.
func (s *state) GetAllowedImagesSettings(ctx context.Context, _ *ec2.GetAllowedImagesSettingsInput) (*ec2.GetAllowedImagesSettingsOutput, error) {
	mine := s.mine(ctx)
	return &ec2.GetAllowedImagesSettingsOutput{State: aws.String(cmp.Or(mine.Allowed, string(types.AllowedImagesSettingsDisabledStateDisabled))),
		ImageCriteria: append([]types.ImageCriterion{}, mine.Criteria...), ManagedBy: types.ManagedByAccount}, nil
}

// EnableAllowedImagesSettings enforces the criteria; in audit mode, images only show
// whether they meet them.
func (s *state) EnableAllowedImagesSettings(ctx context.Context, in *ec2.EnableAllowedImagesSettingsInput) (*ec2.EnableAllowedImagesSettingsOutput, error) {
	state := in.AllowedImagesSettingsState
	return &ec2.EnableAllowedImagesSettingsOutput{AllowedImagesSettingsState: state}, s.set(ctx, func(row *settings) { row.Allowed = string(state) })
}

// DisableAllowedImagesSettings allows all images. The criteria are kept.
func (s *state) DisableAllowedImagesSettings(ctx context.Context, _ *ec2.DisableAllowedImagesSettingsInput) (*ec2.DisableAllowedImagesSettingsOutput, error) {
	out := &ec2.DisableAllowedImagesSettingsOutput{AllowedImagesSettingsState: types.AllowedImagesSettingsDisabledStateDisabled}
	return out, s.set(ctx, func(row *settings) { row.Allowed = "" })
}

// ReplaceImageCriteriaInAllowedImagesSettings sets the criteria.
func (s *state) ReplaceImageCriteriaInAllowedImagesSettings(ctx context.Context, in *ec2.ReplaceImageCriteriaInAllowedImagesSettingsInput) (*ec2.ReplaceImageCriteriaInAllowedImagesSettingsOutput, error) {
	if len(in.ImageCriteria) > maxCriteria {
		return nil, invalidValue("%d image criteria were given; at most %d are allowed.", len(in.ImageCriteria), maxCriteria)
	}
	var criteria []types.ImageCriterion
	for _, c := range in.ImageCriteria {
		switch {
		case len(c.ImageProviders) > maxProviders, len(c.ImageNames) > maxCriterion, len(c.ImageWatermarks) > maxCriterion, len(c.MarketplaceProductCodes) > maxCriterion:
			return nil, invalidValue("An image criterion can have at most %d providers, and %d names, watermarks and product codes.", maxProviders, maxCriterion)
		case slices.Contains(c.ImageProviders, "none") && len(c.ImageProviders) > 1:
			return nil, wire.Errorf("InvalidParameterCombination", "The image provider none cannot be combined with others.")
		case c.ScanResultCondition != nil:
			return nil, wire.Errorf("Unsupported", "The embedded cloud does not scan images, so there are no scan results.")
		}
		var row types.ImageCriterion
		if err := recast(c, &row); err != nil {
			return nil, err
		}
		criteria = append(criteria, row)
	}
	return &ec2.ReplaceImageCriteriaInAllowedImagesSettingsOutput{ReturnValue: aws.Bool(true)}, s.set(ctx, func(row *settings) { row.Criteria = criteria })
}

// allowed reports whether an image meets the caller's criteria, and whether these are
// enforced. An account's own images are always allowed.
func (s *state) allowed(c wire.Caller, img types.Image) (ok, enforced bool) {
	mine := s.settingsOf(c.Account, c.Region)
	enforced = mine.Allowed == string(types.AllowedImagesSettingsEnabledStateEnabled)
	ok = aws.ToString(img.OwnerId) == c.Account || slices.ContainsFunc(mine.Criteria, func(criterion types.ImageCriterion) bool {
		return meets(img, criterion, s.opts.Clock.Now())
	})
	return ok, enforced
}

// imageAllowed returns the ImageAllowed field of an image; nil while the settings are disabled.
func (s *state) imageAllowed(c wire.Caller, img types.Image) *bool {
	if s.settingsOf(c.Account, c.Region).Allowed == "" {
		return nil
	}
	ok, _ := s.allowed(c, img)
	return &ok
}

// meets reports whether an image meets all conditions of a criterion. No image here has
// product codes.
func meets(img types.Image, c types.ImageCriterion, now time.Time) bool {
	within := func(text *string, days *int32) bool {
		at, err := time.Parse(timeForm, aws.ToString(text))
		return err != nil || days == nil || now.Before(at.AddDate(0, 0, int(*days)))
	}
	switch {
	case len(c.ImageProviders) > 0 && !slices.Contains(c.ImageProviders, *img.OwnerId) && (img.ImageOwnerAlias == nil || !slices.Contains(c.ImageProviders, *img.ImageOwnerAlias)),
		len(c.ImageNames) > 0 && !slices.ContainsFunc(c.ImageNames, func(pattern string) bool { return match(pattern, aws.ToString(img.Name)) }),
		len(c.ImageWatermarks) > 0 && !slices.ContainsFunc(c.ImageWatermarks, func(w types.ImageWatermarkFilterResponse) bool { return hasWatermark(img, w, now) }),
		len(c.MarketplaceProductCodes) > 0,
		c.CreationDateCondition != nil && !within(img.CreationDate, c.CreationDateCondition.MaximumDaysSinceCreated),
		c.DeprecationTimeCondition != nil && !within(img.DeprecationTime, c.DeprecationTimeCondition.MaximumDaysSinceDeprecated):
		return false
	}
	return true
}

// hasWatermark reports whether one of an image's watermarks satisfies a criterion.
func hasWatermark(img types.Image, want types.ImageWatermarkFilterResponse, now time.Time) bool {
	young := func(at *time.Time, days *int32) bool { return days == nil || now.Before(at.AddDate(0, 0, int(*days))) }
	return slices.ContainsFunc(img.ImageWatermarks, func(w types.ImageWatermark) bool {
		return (want.WatermarkKey == nil || match(*want.WatermarkKey, *w.WatermarkKey)) &&
			(want.SourceImageRegion == nil || *want.SourceImageRegion == *w.SourceImageRegion) &&
			young(w.WatermarkCreationTime, want.MaximumDaysSinceWatermarkCreated) && young(w.SourceImageCreationTime, want.MaximumDaysSinceSourceImageCreated)
	})
}
