// Package sts is the Security Token Service: it tells callers who they are, lends
// them roles, and decodes the messages of refused calls.
package sts

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"bake/cloud/authorization"
	"bake/cloud/wire"
)

// Role is a role that can be taken on.
type Role struct {
	ARN, ID, Name string
	Trust         string // the policy that says who may
	MaxSession    int    // seconds
}

// Service has the actions as methods.
type Service struct {
	Sessions *Sessions
	Now      func() time.Time
	Role     func(arn string) (Role, bool) // of any account
}

// Endpoint returns the handler of the service's requests.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("sts")
	if err != nil {
		return nil, err
	}
	return wire.New(model, s.actions())
}

// GetCallerIdentity names the session, or else the account's root user.
func (s *Service) GetCallerIdentity(ctx context.Context, _ *sts.GetCallerIdentityInput) (*sts.GetCallerIdentityOutput, error) {
	c := wire.CallerFrom(ctx)
	arn, user := c.Principal()
	return &sts.GetCallerIdentityOutput{Account: &c.Account, Arn: &arn, UserId: &user}, nil
}

var (
	sessionName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[\w+=,.@-]{2,64}$`) })
	roleARN     = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^arn:[a-z-]+:iam::\d{12}:role/.+$`) })
)

// How long any session may last, in seconds.
const shortest, longest = 900, 43200

// AssumeRole lends the caller a role that trusts it. Session policies and tags are
// taken and count for nothing, since no policy is enforced.
func (s *Service) AssumeRole(ctx context.Context, in *sts.AssumeRoleInput) (*sts.AssumeRoleOutput, error) {
	c := wire.CallerFrom(ctx)
	invalid := func(format string, args ...any) error {
		return wire.Errorf("ValidationError", format, args...)
	}
	name := aws.ToString(in.RoleSessionName)
	if !sessionName().MatchString(name) {
		return nil, invalid("1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	}
	caller, _ := c.Principal()
	arn := aws.ToString(in.RoleArn)
	if !roleARN().MatchString(arn) {
		return nil, invalid("%s is invalid", arn)
	}
	seconds := 3600
	if in.DurationSeconds != nil {
		seconds = int(*in.DurationSeconds)
	}
	if seconds < shortest || seconds > longest {
		return nil, invalid("1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: it must be from %d to %d", seconds, shortest, longest)
	}
	role, ok := s.Role(arn)
	if !ok || !trusts(role.Trust, c.Account, caller, aws.ToString(in.ExternalId)) {
		return nil, &wire.Error{Code: "AccessDenied", Status: http.StatusForbidden,
			Message: fmt.Sprintf("User: %s is not authorized to perform: sts:AssumeRole on resource: %s", caller, arn)}
	}
	if seconds > role.MaxSession {
		return nil, invalid("The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	if p := aws.ToString(in.Policy); p != "" && !json.Valid([]byte(p)) {
		return nil, wire.Errorf("MalformedPolicyDocument", "This policy contains invalid Json")
	}
	session := NewSession(role, name, s.Now().Add(time.Duration(seconds)*time.Second))
	made := s.Sessions.Issue(session)
	return &sts.AssumeRoleOutput{
		AssumedRoleUser: &types.AssumedRoleUser{Arn: &session.ARN, AssumedRoleId: &session.UserID},
		Credentials: &types.Credentials{AccessKeyId: &made.AccessKeyID, SecretAccessKey: &made.SecretAccessKey,
			SessionToken: &made.Token, Expiration: &session.Expires},
	}, nil
}

// NewSession is role, taken on under a name.
func NewSession(role Role, name string, expires time.Time) Session {
	account := strings.Split(role.ARN, ":")[4]
	return Session{
		Account: account, ARN: "arn:aws:sts::" + account + ":assumed-role/" + role.Name + "/" + name,
		UserID: role.ID + ":" + name, Expires: expires.UTC().Truncate(time.Second),
	}
}

// trusts reports whether a trust policy lets a caller take its role on. Of the
// conditions it knows StringEquals of sts:ExternalId; one that it does not know is
// not met.
func trusts(policy, account, caller, external string) bool {
	var document struct{ Statement statements }
	if err := json.Unmarshal([]byte(policy), &document); err != nil {
		return false
	}
	ok := false
	for _, st := range document.Statement {
		if !st.covers(account, caller, external) {
			continue
		}
		if st.Effect == "Deny" {
			return false
		}
		ok = ok || st.Effect == "Allow"
	}
	return ok
}

// statements are one statement or a list of them.
type statements []statement

func (s *statements) UnmarshalJSON(data []byte) error {
	var one statement
	if json.Unmarshal(data, &one) == nil {
		*s = statements{one}
		return nil
	}
	return json.Unmarshal(data, (*[]statement)(s))
}

type statement struct {
	Effect    string
	Principal principal
	Action    texts
	Condition map[string]map[string]texts
}

func (st statement) covers(account, caller, external string) bool {
	if !slices.ContainsFunc(st.Action, func(a string) bool {
		return a == "*" || strings.EqualFold(a, "sts:*") || strings.EqualFold(a, "sts:AssumeRole")
	}) {
		return false
	}
	for operator, keys := range st.Condition {
		for key, values := range keys {
			if operator != "StringEquals" || !strings.EqualFold(key, "sts:ExternalId") || !slices.Contains(values, external) {
				return false
			}
		}
	}
	return slices.ContainsFunc(st.Principal.AWS, func(p string) bool {
		return p == "*" || p == account || p == "arn:aws:iam::"+account+":root" || p == caller
	})
}

// principal is who a statement is about: "*", or lists by kind.
type principal struct{ AWS texts }

func (p *principal) UnmarshalJSON(data []byte) error {
	var all string
	if json.Unmarshal(data, &all) == nil {
		p.AWS = texts{all}
		return nil
	}
	var kinds struct{ AWS texts }
	err := json.Unmarshal(data, &kinds)
	p.AWS = kinds.AWS
	return err
}

// texts are one text or a list of them.
type texts []string

func (t *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(t))
}

// DecodeAuthorizationMessage says what a service meant with an encoded message.
func (s *Service) DecodeAuthorizationMessage(_ context.Context, in *sts.DecodeAuthorizationMessageInput) (*sts.DecodeAuthorizationMessageOutput, error) {
	text, err := authorization.Decode(aws.ToString(in.EncodedMessage))
	if err != nil {
		return nil, wire.Errorf("InvalidAuthorizationMessageException", "Message is not valid")
	}
	return &sts.DecodeAuthorizationMessageOutput{DecodedMessage: &text}, nil
}
