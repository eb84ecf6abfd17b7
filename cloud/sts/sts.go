// Package sts is the Security Token Service: it identifies callers, issues credentials of
// roles, and decodes the messages of refused calls.
package sts

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"bake/cloud/authorization"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

// Role is a role that can be assumed.
type Role struct {
	ARN, ID, Name string
	Trust         string // the trust policy: who may assume the role
	MaxSession    int    // seconds
}

// Service implements the actions as methods.
type Service struct {
	Sessions *Sessions
	Now      func() time.Time
	Role     func(arn string) (Role, bool) // finds a role of any account
	Provider func(account, url string) (Provider, bool)
	Issuers  Issuers
}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("sts")
	if err != nil {
		return nil, err
	}
	service, err := wire.New(model, s.actions())
	if err == nil {
		service.Unsigned = []string{unsigned}
	}
	return service, err
}

// GetCallerIdentity returns the caller's session or, without one, the account's root user.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	c := wire.CallerFrom(ctx)
	arn, user := c.Principal()
	return &sts.GetCallerIdentityOutput{Account: &c.Account, Arn: &arn, UserId: &user}, nil
}

var (
	sessionName = lazyregexp.New(`^[\w+=,.@-]{2,64}$`)
	roleARN     = lazyregexp.New(`^arn:[a-z-]+:iam::\d{12}:role/.+$`)
)

// The limits of a session's duration, in seconds.
const shortest, longest = 900, 43200

// AssumeRole issues credentials of a role that trusts the caller. Session policies and
// tags are accepted and ignored, since no policy is enforced.
func (s *Service) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	c := wire.CallerFrom(ctx)
	arn, name := aws.ToString(in.RoleArn), aws.ToString(in.RoleSessionName)
	seconds, err := checkRequest(arn, name, in.DurationSeconds, in.Policy)
	if err != nil {
		return nil, err
	}
	caller, _ := c.Principal()
	role, ok := s.Role(arn)
	who := asking{action: "AssumeRole", account: c.Account, arn: caller, keys: map[string][]string{"sts:externalid": nil}}
	if in.ExternalId != nil {
		who.keys["sts:externalid"] = []string{*in.ExternalId}
	}
	if !ok || !trusts(role.Trust, who) {
		return nil, &wire.Error{Code: "AccessDenied", Status: http.StatusForbidden,
			Message: fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller, arn)}
	}
	if seconds > role.MaxSession {
		return nil, wire.Errorf("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	session := NewSession(role, name, s.Now().Add(time.Duration(seconds)*time.Second))
	made := s.Sessions.Issue(session)
	return &sts.AssumeRoleOutput{
		AssumedRoleUser: &types.AssumedRoleUser{Arn: &session.ARN, AssumedRoleId: &session.UserID},
		Credentials:     made.shown(session),
	}, nil
}

func (c Credentials) shown(session Session) *types.Credentials {
	return &types.Credentials{AccessKeyId: &c.AccessKeyID, SecretAccessKey: &c.SecretAccessKey, SessionToken: &c.Token, Expiration: &session.Expires}
}

func checkPolicy(policy *string) error {
	if p := aws.ToString(policy); p != "" && !json.Valid([]byte(p)) {
		return wire.Errorf("MalformedPolicyDocument", "This policy contains invalid Json")
	}
	return nil
}

// NewSession returns a session of role with that session name.
func NewSession(role Role, name string, expires time.Time) Session {
	account := strings.Split(role.ARN, ":")[4]
	return Session{
		Account: account, ARN: "arn:aws:sts::" + account + ":assumed-role/" + role.Name + "/" + name,
		UserID: role.ID + ":" + name, Expires: expires.UTC().Truncate(time.Second),
	}
}

// DecodeAuthorizationMessage decodes the encoded message of a refused call.
func (s *Service) DecodeAuthorizationMessage(_ context.Context, in *sts.DecodeAuthorizationMessageInput) (*sts.DecodeAuthorizationMessageOutput, error) {
	text, err := authorization.Decode(aws.ToString(in.EncodedMessage))
	if err != nil {
		return nil, wire.Errorf("InvalidAuthorizationMessageException", "Message is not valid")
	}
	return &sts.DecodeAuthorizationMessageOutput{DecodedMessage: &text}, nil
}
