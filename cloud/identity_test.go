package cloud_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

const (
	trustEC2 = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
	mayLog   = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"logs:*","Resource":"*"}]}`
)

// account returns the credentials of a profile.
func account(t *testing.T, s *cloudtest.Server, profile string) aws.CredentialsProvider {
	t.Helper()
	for _, c := range s.Credentials() {
		if c.Profile == profile {
			return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, "")
		}
	}
	t.Fatalf("there is no profile %s", profile)
	return nil
}

func iamClient(t *testing.T, s *cloudtest.Server, profile string) *iam.Client {
	return iam.New(iam.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}, Credentials: account(t, s, profile)})
}

func stsClient(s *cloudtest.Server, c aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{Region: "eu-west-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}, Credentials: c})
}

// TestInstanceProfile creates a profile as a client does, launches an instance with it,
// uses the instance's credentials, and deletes everything.
func TestInstanceProfile(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	ctx, c, id := t.Context(), iamClient(t, s, "default"), s.EC2("default", "eu-west-1")
	name := aws.String("builders")
	run := func() (*ec2.RunInstancesOutput, error) {
		images, err := id.DescribeImages(ctx, &ec2.DescribeImagesInput{Owners: []string{"136693071363"}})
		if err != nil {
			t.Fatal(err)
		}
		return id.RunInstances(ctx, &ec2.RunInstancesInput{ImageId: images.Images[0].ImageId, InstanceType: "t3.micro", MinCount: aws.Int32(1), MaxCount: aws.Int32(1),
			IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: name}})
	}
	if _, err := run(); code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "iamInstanceProfile.name") {
		t.Errorf("without a profile: %v", err)
	}
	if _, err := c.CreateInstanceProfile(ctx, &iam.CreateInstanceProfileInput{InstanceProfileName: name}); err != nil {
		t.Fatal(err)
	}
	if _, err := run(); code(err) != "InvalidParameterValue" || !strings.Contains(err.Error(), "no associated IAM Roles") {
		t.Errorf("without a role: %v", err)
	}
	tag := []iamtypes.Tag{{Key: aws.String("k"), Value: aws.String("v")}}
	if _, err := c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: aws.String(trustEC2), Tags: tag}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: name, PolicyName: aws.String("p"), PolicyDocument: aws.String(mayLog)}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddRoleToInstanceProfile(ctx, &iam.AddRoleToInstanceProfileInput{InstanceProfileName: name, RoleName: name}); err != nil {
		t.Fatal(err)
	}
	got, err := c.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name})
	if err != nil || len(got.InstanceProfile.Roles) != 1 || *got.InstanceProfile.Arn != "arn:aws:iam::123456789012:instance-profile/builders" {
		t.Fatalf("%v: %+v", err, got)
	}
	document, err := url.QueryUnescape(*got.InstanceProfile.Roles[0].AssumeRolePolicyDocument)
	if err != nil || document != trustEC2 {
		t.Errorf("%v: the role trusts %s", err, document)
	}
	launched, err := run()
	if err != nil {
		t.Fatal(err)
	}
	instance := *launched.Instances[0].InstanceId
	eventually(t, instance+" boots", func() bool { return len(s.Driver.Specs()) == 1 })

	metadata := s.Driver.Specs()[0].Network.Metadata
	read := func(path string) string {
		w := httptest.NewRecorder()
		metadata.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/latest/meta-data/iam/"+path, nil))
		return w.Body.String()
	}
	if list := read("security-credentials/"); list != "builders" {
		t.Errorf("the roles are %q", list)
	}
	if info := read("info"); !strings.Contains(info, `"InstanceProfileArn": "arn:aws:iam::123456789012:instance-profile/builders"`) {
		t.Errorf("info: %s", info)
	}
	var lent struct {
		Code, Type, AccessKeyID, SecretAccessKey, Token string
		Expiration                                      time.Time
	}
	if err := json.Unmarshal([]byte(read("security-credentials/builders")), &lent); err != nil || lent.Code != "Success" || time.Until(lent.Expiration) < 5*time.Hour {
		t.Fatalf("%v: %+v", err, lent)
	}
	static := credentials.NewStaticCredentialsProvider(lent.AccessKeyID, lent.SecretAccessKey, lent.Token)
	who, err := stsClient(s, static).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Arn != "arn:aws:sts::123456789012:assumed-role/builders/"+instance {
		t.Errorf("%v: the credentials are of %v", err, who)
	}
	_, err = id.AssociateIamInstanceProfile(ctx, &ec2.AssociateIamInstanceProfileInput{InstanceId: &instance, IamInstanceProfile: &types.IamInstanceProfileSpecification{Name: name}})
	if code(err) != "IncorrectState" {
		t.Errorf("a second profile: %v", err)
	}
	if bonds, err := id.DescribeIamInstanceProfileAssociations(ctx, &ec2.DescribeIamInstanceProfileAssociationsInput{}); err != nil || len(bonds.IamInstanceProfileAssociations) != 1 {
		t.Errorf("%v: %+v", err, bonds)
	} else if _, err := id.DisassociateIamInstanceProfile(ctx, &ec2.DisassociateIamInstanceProfileInput{AssociationId: bonds.IamInstanceProfileAssociations[0].AssociationId}); err != nil {
		t.Error(err)
	}
	if left := read("security-credentials/builders"); !strings.Contains(left, "404") {
		t.Errorf("after the profile was taken away: %s", left)
	}

	_, err = c.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: name})
	wantCode(t, err, "DeleteConflict")
	_, err = c.RemoveRoleFromInstanceProfile(ctx, &iam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: name, RoleName: name})
	wantCode(t, err, "")
	_, err = c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
	wantCode(t, err, "DeleteConflict")
	_, err = c.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.String("p")})
	wantCode(t, err, "")
	_, err = c.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
	wantCode(t, err, "")
	_, err = c.DeleteInstanceProfile(ctx, &iam.DeleteInstanceProfileInput{InstanceProfileName: name})
	wantCode(t, err, "")
	_, err = c.GetInstanceProfile(ctx, &iam.GetInstanceProfileInput{InstanceProfileName: name})
	wantCode(t, err, "NoSuchEntity")
}

func wantCode(t *testing.T, err error, want string) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("the code is %q, want %q: %v", got, want, err)
	}
}

// TestIAMState checks that a directory in the format before [durable.Table] can be read,
// and that its empty values stay empty.
func TestIAMState(t *testing.T) {
	dir := t.TempDir()
	const old = `{"Roles": {"r": {"Arn": "arn:aws:iam::123456789012:role/r", "AssumeRolePolicyDocument": "{}", "CreateDate": "2026-01-02T03:04:05Z",
		"Path": "/", "RoleId": "AROAX", "RoleName": "r", "Description": null, "MaxSessionDuration": 3600, "PermissionsBoundary": null, "RoleLastUsed": null,
		"Tags": [{"Key": "a", "Value": ""}, {"Key": "b", "Value": "x"}], "Policies": null}}, "Profiles": {}}`
	if err := os.MkdirAll(filepath.Join(dir, "iam"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "iam", "123456789012.json"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // as found, and as rewritten
		serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
			ctx, c, name := t.Context(), iamClient(t, s, "default"), aws.String("r")
			first, err := c.ListRoleTags(ctx, &iam.ListRoleTagsInput{RoleName: name, MaxItems: aws.Int32(1)})
			if err != nil || len(first.Tags) != 1 || *first.Tags[0].Key != "a" || first.Tags[0].Value == nil || *first.Tags[0].Value != "" || !first.IsTruncated {
				t.Fatalf("tags: %+v, %v", first, err)
			}
			rest, err := c.ListRoleTags(ctx, &iam.ListRoleTagsInput{RoleName: name, Marker: first.Marker})
			if err != nil || len(rest.Tags) != 1 || *rest.Tags[0].Key != "b" || rest.IsTruncated {
				t.Errorf("the rest of the tags: %+v, %v", rest, err)
			}
			if _, err := c.ListRoles(ctx, &iam.ListRolesInput{Marker: first.Marker}); code(err) != "ValidationError" {
				t.Errorf("roles after a marker of tags: %v", err)
			}
			if _, err := c.TagRole(ctx, &iam.TagRoleInput{RoleName: name, Tags: []iamtypes.Tag{{Key: aws.String("a"), Value: aws.String("")}}}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestIAMRefuses lists requests that IAM rejects.
func TestIAMRefuses(t *testing.T) {
	dir := t.TempDir()
	s := cloudtest.Start(t, cloud.Options{Dir: dir})
	ctx, c := t.Context(), iamClient(t, s, "default")
	role := func(name, trust string, tags ...iamtypes.Tag) error {
		_, err := c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust, Tags: tags})
		return err
	}
	wantCode(t, role("a b", trustEC2), "ValidationError")
	wantCode(t, role(strings.Repeat("a", 65), trustEC2), "ValidationError")
	_, err := c.ListRoles(ctx, &iam.ListRolesInput{MaxItems: aws.Int32(0)})
	wantCode(t, err, "ValidationError")
	wantCode(t, role("a", "{"), "MalformedPolicyDocument")
	wantCode(t, role("a", mayLog), "MalformedPolicyDocument")
	wantCode(t, role("a", trustEC2, iamtypes.Tag{Key: aws.String("aws:x"), Value: aws.String("")}), "InvalidInput")
	wantCode(t, role("a", trustEC2), "")
	wantCode(t, role("a", trustEC2), "EntityAlreadyExists")
	policy := func(role, document string) error {
		_, err := c.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: &role, PolicyName: aws.String("p"), PolicyDocument: &document})
		return err
	}
	wantCode(t, policy("b", mayLog), "NoSuchEntity")
	wantCode(t, policy("a", trustEC2), "MalformedPolicyDocument")
	wantCode(t, policy("a", mayLog), "")
	if _, err := iamClient(t, s, "other").GetRole(ctx, &iam.GetRoleInput{RoleName: aws.String("a")}); code(err) != "NoSuchEntity" {
		t.Errorf("another account sees the role: %v", err)
	}
	if out, err := c.ListRoles(ctx, &iam.ListRolesInput{}); err != nil || len(out.Roles) != 1 {
		t.Errorf("%v: %+v", err, out)
	}
}

// TestAssumeRole assumes a role of the same account and one of another account.
func TestAssumeRole(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	ctx := t.Context()
	trust := func(more string) string {
		return `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::123456789012:root"},"Action":["sts:AssumeRole"]` + more + `}}`
	}
	_, err := iamClient(t, s, "other").CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("deploy"), AssumeRolePolicyDocument: aws.String(trust(`,"Condition":{"StringEquals":{"sts:ExternalId":"42"}}`))})
	wantCode(t, err, "")
	_, err = iamClient(t, s, "default").CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("own"), AssumeRolePolicyDocument: aws.String(trust(""))})
	wantCode(t, err, "")

	assume := func(c aws.CredentialsProvider, arn, external string, seconds int32) (*sts.AssumeRoleOutput, error) {
		return stsClient(s, c).AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: &arn, RoleSessionName: aws.String("bake"), DurationSeconds: &seconds, ExternalId: nilIfEmpty(external)})
	}
	me, other := account(t, s, "default"), "arn:aws:iam::987654321098:role/deploy"
	_, err = assume(me, other, "", 900)
	wantCode(t, err, "AccessDenied")
	_, err = assume(me, "arn:aws:iam::987654321098:role/none", "42", 900)
	wantCode(t, err, "AccessDenied")
	_, err = assume(account(t, s, "other"), other, "42", 900)
	wantCode(t, err, "AccessDenied")
	_, err = assume(me, "deploy", "42", 900)
	wantCode(t, err, "ValidationError")
	_, err = assume(me, "arn:aws:iam::987654321098:role/none", "42", 1)
	wantCode(t, err, "ValidationError")
	_, err = assume(me, other, "42", 43200)
	wantCode(t, err, "ValidationError")
	out, err := assume(me, other, "42", 900)
	if err != nil {
		t.Fatal(err)
	}
	session := credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, *out.Credentials.SessionToken)
	who, err := stsClient(s, session).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil || *who.Account != "987654321098" || *who.Arn != "arn:aws:sts::987654321098:assumed-role/deploy/bake" {
		t.Errorf("%v: %+v", err, who)
	}
	// Chaining: the first role's credentials cannot assume a role that does not trust it.
	_, err = assume(session, "arn:aws:iam::123456789012:role/own", "", 900)
	wantCode(t, err, "AccessDenied")
	// Both the secret key and the token must be right.
	_, err = stsClient(s, credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, "wrong", *out.Credentials.SessionToken)).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "SignatureDoesNotMatch")
	_, err = stsClient(s, credentials.NewStaticCredentialsProvider(*out.Credentials.AccessKeyId, *out.Credentials.SecretAccessKey, "")).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	wantCode(t, err, "InvalidClientTokenId")
}

func nilIfEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// TestRefusalIsDecoded checks that a call that a rule refuses for lack of permission
// returns the reason in an encoded message.
func TestRefusalIsDecoded(t *testing.T) {
	faults, err := cloudNewFaults(`{"rules": [{"action": "DescribeVpcs", "code": "UnauthorizedOperation"}, {"action": "ListRoles", "code": "AccessDenied", "status": 403}]}`)
	if err != nil {
		t.Fatal(err)
	}
	s := cloudtest.Start(t, cloud.Options{Faults: faults})
	_, err = s.EC2("default", "us-east-1").DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{})
	wantCode(t, err, "UnauthorizedOperation")
	_, encoded, ok := strings.Cut(err.Error(), "Encoded authorization failure message: ")
	if !ok {
		t.Fatalf("there is no encoded message: %v", err)
	}
	c := stsClient(s, account(t, s, "default"))
	out, err := c.DecodeAuthorizationMessage(t.Context(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: &encoded})
	if err != nil || !strings.Contains(*out.DecodedMessage, `"action":"ec2:DescribeVpcs"`) {
		t.Errorf("%v: %+v", err, out)
	}
	_, err = c.DecodeAuthorizationMessage(t.Context(), &sts.DecodeAuthorizationMessageInput{EncodedMessage: aws.String("AAAA")})
	wantCode(t, err, "InvalidAuthorizationMessageException")
	_, err = iamClient(t, s, "default").ListRoles(t.Context(), &iam.ListRolesInput{})
	wantCode(t, err, "AccessDenied")
}

func cloudNewFaults(text string) (*cloud.Faults, error) {
	f := &cloud.Faults{}
	return f, json.Unmarshal([]byte(text), f)
}
