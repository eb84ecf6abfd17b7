package cloud

import (
	"errors"
	"net/http"
	"time"

	"bake/cloud/ec2"
	"bake/cloud/sts"
	"bake/cloud/wire"
)

// identify returns the caller that a request claims to be signed by, and the secret to verify the
// signature with.
func (c *Cloud) identify(r *http.Request, scope wire.Scope) (caller wire.Caller, secret string, err error) {
	caller = wire.Caller{Region: scope.Region, AccessKey: scope.AccessKey}
	if sts.Temporary(scope.AccessKey) {
		secret, session, err := c.sessions.Open(scope.AccessKey, r.Header.Get("X-Amz-Security-Token"), time.Now())
		if e, ok := errors.AsType[*wire.Error](err); ok && e.Code == "InvalidClientTokenId" {
			err = c.unknownKey(scope.Service)
		}
		caller.Account, caller.SessionARN, caller.SessionID = session.Account, session.ARN, session.UserID
		return caller, secret, err
	}
	key, ok := c.accounts.find(scope.AccessKey)
	if !ok {
		return caller, "", c.unknownKey(scope.Service)
	}
	caller.Account = key.Account
	return caller, key.SecretAccessKey, nil
}

// unknownKey returns a service's error for an access key that does not exist.
func (c *Cloud) unknownKey(service string) error {
	const invalid = "The security token included in the request is invalid."
	if service == "s3" {
		return &wire.Error{Code: "InvalidAccessKeyId", Message: "The AWS Access Key Id you provided does not exist in our records.", Status: http.StatusForbidden}
	}
	switch c.services[service].Model.Protocol {
	case "ec2":
		return &wire.Error{Code: "AuthFailure", Message: "AWS was not able to validate the provided access credentials", Status: http.StatusUnauthorized}
	case "json":
		return wire.Errorf("UnrecognizedClientException", invalid)
	}
	return &wire.Error{Code: "InvalidClientTokenId", Message: invalid, Status: http.StatusForbidden}
}

// role returns an IAM role as STS needs it.
func (c *Cloud) role(arn string) (sts.Role, bool) {
	r, ok := c.iam.Role(arn)
	return sts.Role(r), ok
}

// provider returns an IAM OpenID Connect provider as STS needs it.
func (c *Cloud) provider(account, url string) (sts.Provider, bool) {
	p, ok := c.iam.Provider(account, url)
	return sts.Provider(p), ok
}

// profiles gives EC2 access to IAM's instance profiles.
type profiles struct{ *Cloud }

func (p profiles) Find(account, name, arn string) (ec2.Profile, bool) {
	found, ok := p.iam.Profile(account, name, arn)
	return ec2.Profile{ARN: found.ARN, ID: found.ID, Role: found.Role.Name}, ok
}

func (p profiles) IssueCredentials(account, arn, instance string) (ec2.Credentials, bool) {
	found, ok := p.iam.Profile(account, "", arn)
	if !ok || found.Role.Name == "" {
		return ec2.Credentials{}, false
	}
	// The credentials stay the same for an hour; EC2 does not change them at every request either.
	made := time.Now().UTC().Truncate(time.Hour)
	expires := made.Add(6 * time.Hour)
	key := p.sessions.Issue(sts.NewSession(sts.Role(found.Role), instance, expires))
	return ec2.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.SecretAccessKey, Token: key.Token, Made: made, Expires: expires}, true
}
