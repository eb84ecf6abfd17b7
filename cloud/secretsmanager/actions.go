package secretsmanager

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/secretsmanager"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

var namePattern = lazyregexp.New(`^[A-Za-z0-9/_+=.@!-]+$`)

// CreateSecret creates a secret, with its first version if a value is given.
func (s *state) CreateSecret(ctx context.Context, in *secretsmanager.CreateSecretInput) (*secretsmanager.CreateSecretOutput, error) {
	c := wire.CallerFrom(ctx)
	if !namePattern.Get().MatchString(*in.Name) {
		return nil, invalid("Invalid name. Must be a valid name containing alphanumeric characters, or any of the following: -/_+=.@!")
	}
	if len(in.AddReplicaRegions) > 0 {
		return nil, invalid("The embedded cloud does not replicate secrets to other regions.")
	}
	v := value{in.ClientRequestToken, in.SecretString, in.SecretBinary}
	now := s.opts.Now().UTC()
	row := &secret{Account: c.Account, Region: c.Region, Name: *in.Name, ARN: newARN(c, *in.Name), Description: in.Description, KmsKeyID: in.KmsKeyId,
		Tags: in.Tags, Created: now, Changed: now}
	if old, ok := s.secrets.Get(durable.NameID(c.Account, c.Region, *in.Name)); ok && !s.expired(old) {
		if old.Deleted != nil {
			return nil, wire.Errorf("InvalidRequestException", "You can't create this secret because a secret with this name is already scheduled for deletion.")
		}
		exists := slices.ContainsFunc(old.Versions, func(v version) bool { return v.ID == aws.ToString(in.ClientRequestToken) })
		if !exists {
			return nil, wire.Errorf("ResourceExistsException", "The operation failed because the secret %s already exists.", *in.Name)
		}
		row = clone(old) // the same request again
	}
	out := &secretsmanager.CreateSecretOutput{ARN: &row.ARN, Name: &row.Name}
	if v.given() {
		id, err := s.add(row, v, []string{current})
		if err != nil {
			return nil, err
		}
		out.VersionId = &id
	}
	return out, s.store(row)
}

// GetSecretValue returns the version that has the given id and label. Without an id, the
// label defaults to AWSCURRENT.
func (s *state) GetSecretValue(ctx context.Context, in *secretsmanager.GetSecretValueInput) (*secretsmanager.GetSecretValueOutput, error) {
	row, err := s.find(wire.CallerFrom(ctx), *in.SecretId, false)
	if err != nil {
		return nil, err
	}
	label := aws.ToString(in.VersionStage)
	var v *version
	if in.VersionId != nil {
		if i := slices.IndexFunc(row.Versions, func(v version) bool { return v.ID == *in.VersionId }); i >= 0 {
			v = &row.Versions[i]
		}
		if v == nil {
			return nil, wire.Errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for VersionId: %s", *in.VersionId)
		}
		if label != "" && !slices.Contains(v.Stages, label) {
			return nil, wire.Errorf("InvalidRequestException", "You provided a VersionStage that is not associated to the provided VersionId.")
		}
	} else {
		if label == "" {
			label = current
		}
		if v = row.stage(label); v == nil {
			return nil, wire.Errorf("ResourceNotFoundException", "Secrets Manager can't find the specified secret value for staging label: %s", label)
		}
	}
	plain, err := s.key.Unseal(v.Value, row.ARN)
	if err != nil {
		return nil, err
	}
	out := &secretsmanager.GetSecretValueOutput{ARN: &row.ARN, Name: &row.Name, VersionId: &v.ID, VersionStages: v.Stages, CreatedDate: &v.Created}
	if v.Binary {
		out.SecretBinary = plain
	} else {
		out.SecretString = aws.String(string(plain))
	}
	return out, nil
}

// PutSecretValue adds a version.
func (s *state) PutSecretValue(ctx context.Context, in *secretsmanager.PutSecretValueInput) (*secretsmanager.PutSecretValueOutput, error) {
	row, err := s.find(wire.CallerFrom(ctx), *in.SecretId, false)
	if err != nil {
		return nil, err
	}
	v := value{in.ClientRequestToken, in.SecretString, in.SecretBinary}
	if !v.given() {
		return nil, invalid("You must provide either SecretString or SecretBinary.")
	}
	labels := in.VersionStages
	if len(labels) == 0 || row.stage(current) == nil && !slices.Contains(labels, current) {
		labels = append(labels, current) // the first version is always the current one
	}
	id, err := s.add(row, v, labels)
	if err != nil {
		return nil, err
	}
	return &secretsmanager.PutSecretValueOutput{ARN: &row.ARN, Name: &row.Name, VersionId: &id, VersionStages: row.stages()[id]}, s.store(row)
}

// UpdateSecret changes the given fields; a given value becomes the current version.
func (s *state) UpdateSecret(ctx context.Context, in *secretsmanager.UpdateSecretInput) (*secretsmanager.UpdateSecretOutput, error) {
	row, err := s.find(wire.CallerFrom(ctx), *in.SecretId, false)
	if err != nil {
		return nil, err
	}
	if in.Description != nil {
		row.Description = in.Description
	}
	if in.KmsKeyId != nil {
		row.KmsKeyID = in.KmsKeyId
	}
	out := &secretsmanager.UpdateSecretOutput{ARN: &row.ARN, Name: &row.Name}
	if v := (value{in.ClientRequestToken, in.SecretString, in.SecretBinary}); v.given() {
		id, err := s.add(row, v, []string{current})
		if err != nil {
			return nil, err
		}
		out.VersionId = &id
	}
	row.Changed = s.opts.Now().UTC()
	return out, s.store(row)
}

// DeleteSecret marks a secret for deletion, or deletes it at once. In the latter case, it
// is no error if the secret does not exist.
func (s *state) DeleteSecret(ctx context.Context, in *secretsmanager.DeleteSecretInput) (*secretsmanager.DeleteSecretOutput, error) {
	c := wire.CallerFrom(ctx)
	now := s.opts.Now().UTC()
	force := aws.ToBool(in.ForceDeleteWithoutRecovery)
	days := int64(30)
	if in.RecoveryWindowInDays != nil {
		days = *in.RecoveryWindowInDays
		if force {
			return nil, invalid("You can't use ForceDeleteWithoutRecovery in conjunction with RecoveryWindowInDays.")
		}
		if days < 7 || days > 30 {
			return nil, invalid("The RecoveryWindowInDays value must be between 7 and 30 days (inclusive).")
		}
	}
	row, err := s.find(c, *in.SecretId, force)
	if err != nil && force {
		return &secretsmanager.DeleteSecretOutput{Name: in.SecretId, DeletionDate: &now}, nil
	}
	if err != nil {
		return nil, err
	}
	out := &secretsmanager.DeleteSecretOutput{ARN: &row.ARN, Name: &row.Name, DeletionDate: &now}
	if force {
		return out, s.secrets.Drop(durable.NameID(c.Account, c.Region, row.Name))
	}
	out.DeletionDate = aws.Time(now.Add(time.Duration(days) * 24 * time.Hour))
	row.Deleted, row.Gone = &now, out.DeletionDate
	return out, s.store(row)
}

// DescribeSecret returns everything about a secret except its values.
func (s *state) DescribeSecret(ctx context.Context, in *secretsmanager.DescribeSecretInput) (*secretsmanager.DescribeSecretOutput, error) {
	row, err := s.find(wire.CallerFrom(ctx), *in.SecretId, true)
	if err != nil {
		return nil, err
	}
	return &secretsmanager.DescribeSecretOutput{ARN: &row.ARN, Name: &row.Name, Description: row.Description, KmsKeyId: row.KmsKeyID, Tags: row.tags(),
		CreatedDate: &row.Created, LastChangedDate: &row.Changed, DeletedDate: row.Deleted, VersionIdsToStages: row.stages()}, nil
}

// ListSecrets lists secrets without their values, sorted by name.
func (s *state) ListSecrets(ctx context.Context, in *secretsmanager.ListSecretsInput) (*secretsmanager.ListSecretsOutput, error) {
	c := wire.CallerFrom(ctx)
	for _, f := range in.Filters {
		if f.Key == secretsmanager.FilterNameStringTypePrimaryRegion || f.Key == secretsmanager.FilterNameStringTypeOwningService {
			return nil, invalid("The embedded cloud has no filter %s.", f.Key)
		}
	}
	var rows []*secret
	for _, row := range s.secrets.Rows {
		visible := row.Account == c.Account && row.Region == c.Region && !s.expired(row) && (row.Deleted == nil || aws.ToBool(in.IncludePlannedDeletion))
		if visible && !slices.ContainsFunc(in.Filters, func(f secretsmanager.Filter) bool { return !row.matches(f) }) {
			rows = append(rows, row)
		}
	}
	order := strings.Compare
	if in.SortOrder == secretsmanager.SortOrderTypeDesc {
		order = func(a, b string) int { return strings.Compare(b, a) }
	}
	sort.Slice(rows, func(i, j int) bool { return order(rows[i].Name, rows[j].Name) < 0 })
	size := int(cmp.Or(aws.ToInt32(in.MaxResults), 100))
	rows, next, ok := wire.Page("secrets", rows, func(r *secret) string { return r.Name }, order, size, in.NextToken)
	if !ok {
		return nil, wire.Errorf("InvalidNextTokenException", "The NextToken value is invalid.")
	}
	out := &secretsmanager.ListSecretsOutput{SecretList: []secretsmanager.SecretListEntry{}, NextToken: next}
	for _, row := range rows {
		out.SecretList = append(out.SecretList, secretsmanager.SecretListEntry{ARN: &row.ARN, Name: &row.Name, Description: row.Description, KmsKeyId: row.KmsKeyID,
			Tags: row.tags(), CreatedDate: &row.Created, LastChangedDate: &row.Changed, DeletedDate: row.Deleted, SecretVersionsToStages: row.stages()})
	}
	return out, nil
}

// matches reports whether a filter matches: its values are prefixes, one of which must
// match; a prefix after an exclamation mark must not match.
func (row *secret) matches(f secretsmanager.Filter) bool {
	key := func(t secretsmanager.Tag) string { return aws.ToString(t.Key) }
	text := func(t secretsmanager.Tag) string { return aws.ToString(t.Value) }
	fits := func(want string) bool {
		lower := strings.HasPrefix(strings.ToLower(aws.ToString(row.Description)), strings.ToLower(want))
		switch f.Key {
		case secretsmanager.FilterNameStringTypeName:
			return strings.HasPrefix(row.Name, want)
		case secretsmanager.FilterNameStringTypeDescription:
			return lower
		case secretsmanager.FilterNameStringTypeTagKey:
			return row.hasTag(key, want)
		case secretsmanager.FilterNameStringTypeTagValue:
			return row.hasTag(text, want)
		}
		return strings.HasPrefix(row.Name, want) || lower || row.hasTag(key, want) || row.hasTag(text, want)
	}
	return slices.ContainsFunc(f.Values, func(want string) bool {
		rest, negated := strings.CutPrefix(want, "!")
		return fits(rest) != negated
	})
}
