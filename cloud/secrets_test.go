package cloud_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sm "github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// secretValue returns the text of a secret, or the code of the error.
func secretValue(t *testing.T, client *sm.Client, in sm.GetSecretValueInput) string {
	t.Helper()
	out, err := client.GetSecretValue(t.Context(), &in)
	if err != nil {
		return code(err)
	}
	if out.SecretBinary != nil {
		return "binary " + string(out.SecretBinary)
	}
	return *out.SecretString
}

func TestSecrets(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := sm.NewFromConfig(s.Config("default", "us-east-1"))
	ctx := t.Context()
	name := aws.String("app/db")
	made, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: name, SecretString: aws.String("one"), Description: aws.String("of the app")})
	if err != nil || !strings.HasPrefix(*made.ARN, "arn:aws:secretsmanager:us-east-1:123456789012:secret:app/db-") {
		t.Fatalf("%+v, %v", made, err)
	}
	second, err := client.PutSecretValue(ctx, &sm.PutSecretValueInput{SecretId: name, SecretString: aws.String("two")})
	if err != nil || len(second.VersionStages) != 1 || second.VersionStages[0] != "AWSCURRENT" {
		t.Fatalf("%+v, %v", second, err)
	}
	third, err := client.UpdateSecret(ctx, &sm.UpdateSecretInput{SecretId: made.ARN, SecretBinary: []byte("\xff\x00"), Description: aws.String("of the app, in bytes")})
	if err != nil {
		t.Fatal(err)
	}
	pending, err := client.PutSecretValue(ctx, &sm.PutSecretValueInput{SecretId: name, SecretString: aws.String("four"), VersionStages: []string{"AWSPENDING"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		in   sm.GetSecretValueInput
		want string
	}{
		{sm.GetSecretValueInput{SecretId: name}, "binary \xff\x00"},
		{sm.GetSecretValueInput{SecretId: made.ARN}, "binary \xff\x00"},
		{sm.GetSecretValueInput{SecretId: aws.String((*made.ARN)[:len(*made.ARN)-7])}, "binary \xff\x00"},
		{sm.GetSecretValueInput{SecretId: name, VersionStage: aws.String("AWSPREVIOUS")}, "two"},
		{sm.GetSecretValueInput{SecretId: name, VersionStage: aws.String("AWSPENDING")}, "four"},
		{sm.GetSecretValueInput{SecretId: name, VersionId: made.VersionId}, "one"},
		{sm.GetSecretValueInput{SecretId: name, VersionId: pending.VersionId, VersionStage: aws.String("AWSCURRENT")}, "InvalidRequestException"},
		{sm.GetSecretValueInput{SecretId: name, VersionStage: aws.String("nope")}, "ResourceNotFoundException"},
		{sm.GetSecretValueInput{SecretId: name, VersionId: aws.String(strings.Repeat("0", 32))}, "ResourceNotFoundException"},
		{sm.GetSecretValueInput{SecretId: aws.String("absent")}, "ResourceNotFoundException"},
	} {
		if got := secretValue(t, client, test.in); got != test.want {
			t.Errorf("%s %s %s: %q, want %q", *test.in.SecretId, aws.ToString(test.in.VersionId), aws.ToString(test.in.VersionStage), got, test.want)
		}
	}
	if got := secretValue(t, sm.NewFromConfig(s.Config("other", "us-east-1")), sm.GetSecretValueInput{SecretId: name}); got != "ResourceNotFoundException" {
		t.Errorf("another account sees %s", got)
	}
	about, err := client.DescribeSecret(ctx, &sm.DescribeSecretInput{SecretId: name})
	if err != nil || *about.Description != "of the app, in bytes" || len(about.VersionIdsToStages) != 3 || about.VersionIdsToStages[*third.VersionId][0] != "AWSCURRENT" {
		t.Errorf("%+v, %v", about, err)
	}

	// Repeating the request changes nothing; another request with its token is refused.
	again := &sm.PutSecretValueInput{SecretId: name, SecretString: aws.String("four"), ClientRequestToken: pending.VersionId}
	if out, err := client.PutSecretValue(ctx, again); err != nil || *out.VersionId != *pending.VersionId {
		t.Errorf("%+v, %v", out, err)
	}
	again.SecretString = aws.String("five")
	if _, err := client.PutSecretValue(ctx, again); code(err) != "ResourceExistsException" {
		t.Errorf("another value for a version: %v", err)
	}
}

func TestSecretErrors(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client := sm.NewFromConfig(s.Config("default", "us-east-1"))
	ctx := t.Context()
	if _, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("empty")}); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		want string
		call func() error
	}{
		"exists": {"ResourceExistsException", func() error {
			_, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("empty")})
			return err
		}},
		"bad name": {"InvalidParameterException", func() error {
			_, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("a b")})
			return err
		}},
		"no value": {"ResourceNotFoundException", func() error {
			_, err := client.GetSecretValue(ctx, &sm.GetSecretValueInput{SecretId: aws.String("empty")})
			return err
		}},
		"put none": {"InvalidParameterException", func() error {
			_, err := client.PutSecretValue(ctx, &sm.PutSecretValueInput{SecretId: aws.String("empty")})
			return err
		}},
		"replicate": {"InvalidParameterException", func() error {
			_, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("r"), AddReplicaRegions: []types.ReplicaRegionType{{Region: aws.String("eu-west-1")}}})
			return err
		}},
		"both": {"InvalidParameterException", func() error {
			_, err := client.PutSecretValue(ctx, &sm.PutSecretValueInput{SecretId: aws.String("empty"), SecretString: aws.String("a"), SecretBinary: []byte("b")})
			return err
		}},
		"window": {"InvalidParameterException", func() error {
			_, err := client.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: aws.String("empty"), RecoveryWindowInDays: aws.Int64(3)})
			return err
		}},
		"delete": {"ResourceNotFoundException", func() error {
			_, err := client.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: aws.String("absent")})
			return err
		}},
		"region": {"InvalidParameterValue", func() error {
			_, err := sm.NewFromConfig(s.Config("default", "mars-1")).ListSecrets(ctx, nil)
			return err
		}},
		"filters": {"InvalidParameterException", func() error {
			_, err := client.ListSecrets(ctx, &sm.ListSecretsInput{Filters: []types.Filter{{Key: "owning-service", Values: []string{"x"}}}})
			return err
		}},
	} {
		if err := test.call(); code(err) != test.want {
			t.Errorf("%s: %v, want %s", name, err, test.want)
		}
	}
}

func TestSecretDeletion(t *testing.T) {
	clock := &settable{at: time.Now()}
	s := cloudtest.Start(t, cloud.Options{Clock: clock})
	client := sm.NewFromConfig(s.Config("default", "us-east-1"))
	ctx := t.Context()
	for _, name := range []string{"a", "b", "c"} {
		in := &sm.CreateSecretInput{Name: &name, SecretString: &name, Tags: []types.Tag{{Key: aws.String("team"), Value: aws.String(name)}, {Key: aws.String("empty"), Value: aws.String("")}}}
		if _, err := client.CreateSecret(ctx, in); err != nil {
			t.Fatal(err)
		}
	}
	list := func(in sm.ListSecretsInput) string {
		var names []string
		for {
			out, err := client.ListSecrets(ctx, &in)
			if err != nil {
				return code(err)
			}
			for _, s := range out.SecretList {
				names = append(names, *s.Name)
			}
			if in.NextToken = out.NextToken; in.NextToken == nil {
				return strings.Join(names, " ")
			}
		}
	}
	described, err := client.DescribeSecret(ctx, &sm.DescribeSecretInput{SecretId: aws.String("a")})
	if err != nil || len(described.Tags) != 2 || described.Tags[1].Value == nil || *described.Tags[1].Value != "" {
		t.Errorf("an empty tag: %+v, %v", described, err)
	}
	if got := list(sm.ListSecretsInput{MaxResults: aws.Int32(1), SortOrder: types.SortOrderTypeDesc}); got != "c b a" {
		t.Errorf("all: %s", got)
	}
	if got := list(sm.ListSecretsInput{Filters: []types.Filter{{Key: "tag-value", Values: []string{"a", "c"}}, {Key: "name", Values: []string{"!c"}}}}); got != "a" {
		t.Errorf("filtered: %s", got)
	}
	out, err := client.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: aws.String("a"), RecoveryWindowInDays: aws.Int64(7)})
	if err != nil || out.DeletionDate.Sub(clock.at).Round(time.Hour) != 7*24*time.Hour {
		t.Fatalf("%+v, %v", out, err)
	}
	if got := secretValue(t, client, sm.GetSecretValueInput{SecretId: aws.String("a")}); got != "InvalidRequestException" {
		t.Errorf("marked for deletion: %s", got)
	}
	if _, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("a")}); code(err) != "InvalidRequestException" {
		t.Errorf("made again too early: %v", err)
	}
	if all, some := list(sm.ListSecretsInput{IncludePlannedDeletion: aws.Bool(true)}), list(sm.ListSecretsInput{}); all != "a b c" || some != "b c" {
		t.Errorf("listed: %s, %s", all, some)
	}
	clock.at = clock.at.Add(8 * 24 * time.Hour)
	if got := secretValue(t, client, sm.GetSecretValueInput{SecretId: aws.String("a")}); got != "ResourceNotFoundException" {
		t.Errorf("deleted: %s", got)
	}
	if _, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: aws.String("a")}); err != nil {
		t.Errorf("made again: %v", err)
	}
	force := &sm.DeleteSecretInput{SecretId: aws.String("b"), ForceDeleteWithoutRecovery: aws.Bool(true)}
	for range 2 {
		if _, err := client.DeleteSecret(ctx, force); err != nil {
			t.Error(err)
		}
	}
	if got := list(sm.ListSecretsInput{}); got != "a c" {
		t.Errorf("left: %s", got)
	}
}

// settable is a clock that stands still.
type settable struct{ at time.Time }

func (c *settable) Now() time.Time                                   { return c.at }
func (c *settable) Sleep(ctx context.Context, _ time.Duration) error { return ctx.Err() }

// TestSecretsAtRest checks that secret values survive a restart and are not readable in
// the cloud's directory.
func TestSecretsAtRest(t *testing.T) {
	dir := t.TempDir()
	const hush = "hush-hush-hush"
	var made *sm.CreateSecretOutput
	t.Run("store", func(t *testing.T) {
		s := cloudtest.Start(t, cloud.Options{Dir: dir})
		var err error
		made, err = sm.NewFromConfig(s.Config("default", "us-east-1")).CreateSecret(t.Context(), &sm.CreateSecretInput{Name: aws.String("n"), SecretString: aws.String(hush)})
		if err != nil {
			t.Fatal(err)
		}
		put(t, ssm.NewFromConfig(s.Config("default", "us-east-1")), ssm.PutParameterInput{Name: aws.String("n"), Value: aws.String(hush), Type: ssmtypes.ParameterTypeSecureString})
	})
	files := 0
	for _, kind := range []string{"ssm", "secretsmanager"} {
		err := filepath.WalkDir(filepath.Join(dir, kind), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			files++
			data, err := os.ReadFile(path)
			if bytes.Contains(data, []byte(hush)) {
				t.Errorf("%s holds the secret", path)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files != 4 {
		t.Errorf("%d files, want two keys, a secret and a parameter", files)
	}
	s := cloudtest.Start(t, cloud.Options{Dir: dir})
	if got := secretValue(t, sm.NewFromConfig(s.Config("default", "us-east-1")), sm.GetSecretValueInput{SecretId: made.ARN}); got != hush {
		t.Errorf("after a restart the secret is %q", got)
	}
	if got := get(t, ssm.NewFromConfig(s.Config("default", "us-east-1")), "n", true); got != hush {
		t.Errorf("after a restart the parameter is %q", got)
	}
}

// TestSecretsAtOnce reads several secrets, restores one and generates passwords.
func TestSecretsAtOnce(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := sm.NewFromConfig(s.Config("default", "us-east-1")), t.Context()
	for _, name := range []string{"app/a", "app/b", "other"} {
		if _, err := client.CreateSecret(ctx, &sm.CreateSecretInput{Name: &name, SecretString: aws.String("of " + name)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.DeleteSecret(ctx, &sm.DeleteSecretInput{SecretId: aws.String("other")}); err != nil {
		t.Fatal(err)
	}
	batch := func(in sm.BatchGetSecretValueInput) string {
		out, err := client.BatchGetSecretValue(ctx, &in)
		if err != nil {
			return code(err)
		}
		text := ""
		for _, v := range out.SecretValues {
			text += *v.SecretString + " " + v.VersionStages[0] + ";"
		}
		for _, e := range out.Errors {
			text += *e.SecretId + " " + *e.ErrorCode + ";"
		}
		return text
	}
	named := []types.Filter{{Key: types.FilterNameStringTypeName, Values: []string{"app/"}}}
	for _, test := range []struct {
		in   sm.BatchGetSecretValueInput
		want string
	}{
		{sm.BatchGetSecretValueInput{SecretIdList: []string{"app/b", "other", "absent"}}, "of app/b AWSCURRENT;other InvalidRequestException;absent ResourceNotFoundException;"},
		{sm.BatchGetSecretValueInput{Filters: named}, "of app/a AWSCURRENT;of app/b AWSCURRENT;"},
		{sm.BatchGetSecretValueInput{Filters: named, MaxResults: aws.Int32(1)}, "of app/a AWSCURRENT;"},
		{sm.BatchGetSecretValueInput{}, "InvalidParameterException"},
		{sm.BatchGetSecretValueInput{Filters: named, SecretIdList: []string{"app/a"}}, "InvalidParameterException"},
	} {
		if got := batch(test.in); got != test.want {
			t.Errorf("%+v: %s", test.in, got)
		}
	}
	if _, err := client.RestoreSecret(ctx, &sm.RestoreSecretInput{SecretId: aws.String("other")}); err != nil {
		t.Fatal(err)
	}
	if got := secretValue(t, client, sm.GetSecretValueInput{SecretId: aws.String("other")}); got != "of other" {
		t.Errorf("restored: %s", got)
	}
	if _, err := client.RestoreSecret(ctx, &sm.RestoreSecretInput{SecretId: aws.String("absent")}); code(err) != "ResourceNotFoundException" {
		t.Errorf("restoring what there is not: %v", err)
	}

	for range 20 {
		out, err := client.GetRandomPassword(ctx, &sm.GetRandomPasswordInput{PasswordLength: aws.Int64(4), ExcludePunctuation: aws.Bool(true), ExcludeCharacters: aws.String("abc0"), IncludeSpace: aws.Bool(true)})
		if err != nil {
			t.Fatal(err)
		}
		p := *out.RandomPassword
		if len(p) != 4 || strings.ContainsAny(p, "abc0") || !strings.ContainsAny(p, "123456789") || !strings.Contains(p, " ") || p == strings.ToLower(p) || p == strings.ToUpper(p) {
			t.Errorf("the password is %q", p)
		}
	}
	if out, err := client.GetRandomPassword(ctx, &sm.GetRandomPasswordInput{}); err != nil || len(*out.RandomPassword) != 32 {
		t.Errorf("%v, %+v", err, out)
	}
	all := aws.Bool(true)
	for _, in := range []sm.GetRandomPasswordInput{{PasswordLength: aws.Int64(3)}, {ExcludeLowercase: all, ExcludeUppercase: all, ExcludeNumbers: all, ExcludePunctuation: all}} {
		if _, err := client.GetRandomPassword(ctx, &in); code(err) != "InvalidParameterException" {
			t.Errorf("%+v: %v", in, err)
		}
	}
}
