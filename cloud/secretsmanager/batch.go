package secretsmanager

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"math/big"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"bake/cloud/api/secretsmanager"
	"bake/cloud/wire"
)

// RestoreSecret cancels the deletion of a secret. It is no error if none is scheduled.
func (s *state) RestoreSecret(ctx context.Context, in *secretsmanager.RestoreSecretInput) (*secretsmanager.RestoreSecretOutput, error) {
	row, err := s.find(wire.CallerFrom(ctx), *in.SecretId, true)
	if err != nil {
		return nil, err
	}
	row.Deleted, row.Gone = nil, nil
	return &secretsmanager.RestoreSecretOutput{ARN: &row.ARN, Name: &row.Name}, s.store(row)
}

// BatchGetSecretValue returns the current values of the secrets that the request names or
// that match its filters. Values that cannot be read are listed as errors.
func (s *state) BatchGetSecretValue(ctx context.Context, in *secretsmanager.BatchGetSecretValueInput) (*secretsmanager.BatchGetSecretValueOutput, error) {
	if (len(in.SecretIdList) > 0) == (len(in.Filters) > 0) {
		return nil, invalid("Either 'SecretIdList' or 'Filters' must be provided, but not both.")
	}
	if len(in.SecretIdList) > 0 && (in.MaxResults != nil || in.NextToken != nil) {
		return nil, invalid("'MaxResults' and 'NextToken' are for 'Filters' only.")
	}
	out := &secretsmanager.BatchGetSecretValueOutput{Errors: []secretsmanager.APIErrorType{}, SecretValues: []secretsmanager.SecretValueEntry{}}
	ids := in.SecretIdList
	if len(in.Filters) > 0 {
		list, err := s.ListSecrets(ctx, &secretsmanager.ListSecretsInput{Filters: in.Filters, MaxResults: aws.Int32(cmp.Or(aws.ToInt32(in.MaxResults), 20)), NextToken: in.NextToken})
		if err != nil {
			return nil, err
		}
		out.NextToken = list.NextToken
		for _, row := range list.SecretList {
			ids = append(ids, *row.ARN)
		}
	}
	for _, id := range ids {
		v, err := s.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &id})
		if e, ok := errors.AsType[*wire.Error](err); ok {
			out.Errors = append(out.Errors, secretsmanager.APIErrorType{SecretId: &id, ErrorCode: &e.Code, Message: &e.Message})
			continue
		}
		if err != nil {
			return nil, err
		}
		out.SecretValues = append(out.SecretValues, secretsmanager.SecretValueEntry{ARN: v.ARN, Name: v.Name, VersionId: v.VersionId, VersionStages: v.VersionStages,
			CreatedDate: v.CreatedDate, SecretString: v.SecretString, SecretBinary: v.SecretBinary})
	}
	return out, nil
}

// maxPassword is the maximum length of a password.
const maxPassword = 4096

// GetRandomPassword returns a password of the kinds of characters that are not excluded.
func (s *state) GetRandomPassword(_ context.Context, in *secretsmanager.GetRandomPasswordInput) (*secretsmanager.GetRandomPasswordOutput, error) {
	var kinds []string
	for _, k := range []struct {
		not        *bool
		characters string
	}{
		{in.ExcludeLowercase, "abcdefghijklmnopqrstuvwxyz"}, {in.ExcludeUppercase, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}, {in.ExcludeNumbers, "0123456789"},
		{in.ExcludePunctuation, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"},
	} {
		if !aws.ToBool(k.not) {
			kinds = append(kinds, k.characters)
		}
	}
	if aws.ToBool(in.IncludeSpace) {
		kinds = append(kinds, " ")
	}
	for i := range kinds {
		kinds[i] = strings.Map(func(r rune) rune {
			if strings.ContainsRune(aws.ToString(in.ExcludeCharacters), r) {
				return -1
			}
			return r
		}, kinds[i])
	}
	kinds = slices.DeleteFunc(kinds, func(k string) bool { return k == "" })
	length := int(cmp.Or(aws.ToInt64(in.PasswordLength), 32))
	each := in.RequireEachIncludedType == nil || *in.RequireEachIncludedType
	switch {
	case len(kinds) == 0:
		return nil, invalid("The password can't be generated: all characters are excluded.")
	case length < 1 || length > maxPassword:
		return nil, invalid("The password length must be between 1 and %d.", maxPassword)
	case each && length < len(kinds):
		return nil, invalid("The password length %d is too short for one character of each of the %d included types.", length, len(kinds))
	}
	var password []byte
	if each {
		for _, k := range kinds {
			password = append(password, pick(k))
		}
	}
	all := strings.Join(kinds, "")
	for len(password) < length {
		password = append(password, pick(all))
	}
	shuffle(password)
	return &secretsmanager.GetRandomPasswordOutput{RandomPassword: aws.String(string(password))}, nil
}

func below(n int) int {
	i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
	if err != nil {
		panic(err) // crypto/rand never fails
	}
	return int(i.Int64())
}

func pick(characters string) byte { return characters[below(len(characters))] }

func shuffle(b []byte) {
	for i := len(b) - 1; i > 0; i-- {
		j := below(i + 1)
		b[i], b[j] = b[j], b[i]
	}
}
