package access_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"bake/builder/amazon/internal/access"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// Components that are restricted to an account and region work there whatever their options are,
// and their resources are found there again.
func TestWithin(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	key := s.Credentials()[0]
	const other, role = "987654321098", "arn:aws:iam::987654321098:role/bake-build"
	trust := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":"sts:AssumeRole"}]}`
	if _, err := iam.NewFromConfig(s.Config("other", "us-east-1")).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("bake-build"), AssumeRolePolicyDocument: &trust}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var asked []string
	at := access.Cloud{
		Name: "test", Endpoint: s.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: "us-east-1",
		Within: &access.Within{Account: other, Region: "eu-west-1", Role: role, Session: "bake-1"},
		Wait: func(_ context.Context, service, region string) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, service+" "+region)
			return nil
		},
	}
	o := access.Defaults()
	o.Region = "us-east-1"
	session, err := access.Open(t.Context(), &o, nil, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := session.Caller(t.Context()); err != nil || who != "arn:aws:sts::987654321098:assumed-role/bake-build/bake-1" {
		t.Errorf("the caller is %s, %v", who, err)
	}
	if session.Account != other || session.Region != "eu-west-1" {
		t.Errorf("it is in %s, %s", session.Account, session.Region)
	}
	if _, err := session.EC2("eu-west-1").DescribeImages(t.Context(), &ec2.DescribeImagesInput{}); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"sts eu-west-1", "ec2 eu-west-1"} {
		if !slices.Contains(asked, want) {
			t.Errorf("nobody was asked about %s: %q", want, asked)
		}
	}
	again, err := access.Reopen(t.Context(), session.With("eu-central-1"), "eu-central-1", at)
	if err != nil || again.Account != other || again.Region != "eu-central-1" {
		t.Errorf("what is in eu-central-1 is looked for in %+v, %v", again, err)
	}
	// A role that only the role of the cell may assume is assumed from that role.
	distributors := strings.Replace(trust, "123456789012", other, 1)
	if _, err := iam.NewFromConfig(s.Config("default", "us-east-1")).CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String("receive"), AssumeRolePolicyDocument: &distributors}); err != nil {
		t.Fatal(err)
	}
	received, err := session.As(t.Context(), access.AssumeRole{RoleARN: "arn:aws:iam::123456789012:role/receive", SessionName: "bake"})
	if err != nil {
		t.Fatal(err)
	}
	again, err = access.Reopen(t.Context(), received.With("eu-central-1"), "eu-central-1", at)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := again.Caller(t.Context()); err != nil || who != "arn:aws:sts::123456789012:assumed-role/receive/bake" {
		t.Errorf("who looks for what was distributed is %s, %v", who, err)
	}
	if there := at.In("sa-east-1"); there.Within.Region != "sa-east-1" || at.Within.Region != "eu-west-1" {
		t.Error("a cloud for another region changes the first")
	}
	at.Wait = func(context.Context, string, string) error { return errors.New("no more calls") }
	if _, err := access.Open(t.Context(), &o, nil, at, nil); err == nil || !strings.Contains(err.Error(), "no more calls") {
		t.Errorf("the error of a call that may not be made is %v", err)
	}
	at.Wait, at.Within = nil, &access.Within{Account: other, Region: "eu-west-1"}
	for _, skip := range []bool{false, true} {
		o.SkipCredentialValidation = skip
		if _, err := access.Open(t.Context(), &o, nil, at, nil); err == nil || !strings.Contains(err.Error(), "account 987654321098 is meant, but these credentials are for account 123456789012") {
			t.Errorf("credentials of another account: %v", err)
		}
	}
}
