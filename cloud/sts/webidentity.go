package sts

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bake/cloud/wire"
)

// Provider is a token issuer that an account has registered, see OpenID Connect Core 1.0.
type Provider struct {
	ARN, URL    string // URL has no scheme, which is https
	ClientIDs   []string
	Thumbprints []string // SHA-1 in lower case, of certificates to trust in addition to the host's
}

// unsigned is the action of callers that have a token and no credentials.
const unsigned = "AssumeRoleWithWebIdentity"

// signatures returns the allowed signature algorithms of tokens.
func signatures() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}
}

// claims are the claims of a token that are used.
type claims struct {
	jwt.Claims
	AuthorizedParty string `json:"azp"`
	Methods         texts  `json:"amr"`
}

// AssumeRoleWithWebIdentity issues credentials of a role to the holder of a token whose
// issuer the role trusts.
func (s *Service) AssumeRoleWithWebIdentity(ctx context.Context, in *sts.AssumeRoleWithWebIdentityInput) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	arn, name := aws.ToString(in.RoleArn), aws.ToString(in.RoleSessionName)
	seconds, err := checkRequest(arn, name, in.DurationSeconds, in.Policy)
	if err != nil {
		return nil, err
	}
	if in.ProviderId != nil {
		return nil, wire.Errorf("ValidationError", "ProviderId is for OAuth 2.0 tokens, which the embedded cloud does not support.")
	}
	account := strings.Split(arn, ":")[4]
	token, provider, err := s.verify(ctx, account, aws.ToString(in.WebIdentityToken))
	if err != nil {
		return nil, err
	}
	role, ok := s.Role(arn)
	if !ok || !trusts(role.Trust, token.asking(provider)) {
		return nil, &wire.Error{Code: "AccessDenied", Message: "Not authorized to perform sts:AssumeRoleWithWebIdentity", Status: http.StatusForbidden}
	}
	if seconds > role.MaxSession {
		return nil, wire.Errorf("ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
	}
	session := NewSession(role, name, s.Now().Add(time.Duration(seconds)*time.Second))
	made := s.Sessions.Issue(session)
	audience := token.audience()
	return &sts.AssumeRoleWithWebIdentityOutput{
		AssumedRoleUser: &types.AssumedRoleUser{Arn: &session.ARN, AssumedRoleId: &session.UserID},
		Credentials:     made.shown(session), SubjectFromWebIdentityToken: &token.Subject, Provider: &provider.ARN, Audience: &audience,
	}, nil
}

func (c claims) audience() string {
	if c.AuthorizedParty != "" {
		return c.AuthorizedParty
	}
	return c.Audience[0] // verify has checked that there is one
}

// asking returns the holder of the token as trust policies see it.
func (c claims) asking(p Provider) asking {
	at := strings.ToLower(p.URL)
	keys := map[string][]string{at + ":aud": {c.audience()}, at + ":sub": {c.Subject}, at + ":amr": c.Methods, at + ":oaud": nil}
	if c.AuthorizedParty != "" { // takes the place of the audience
		keys[at+":oaud"] = c.Audience
	}
	return asking{action: unsigned, federated: p.ARN, keys: keys}
}

func invalidToken(format string, args ...any) error {
	return wire.Errorf("InvalidIdentityToken", format, args...)
}

// verify returns the claims of a token if it is valid now and its issuer is registered in
// the account.
func (s *Service) verify(ctx context.Context, account, text string) (c claims, p Provider, err error) {
	token, err := jwt.ParseSigned(text, signatures())
	if err != nil {
		return c, p, invalidToken("The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)")
	}
	if err := token.UnsafeClaimsWithoutVerification(&c); err != nil {
		return c, p, invalidToken("The ID Token provided is not a valid JWT: its claims cannot be read.")
	}
	issuer, ok := strings.CutPrefix(c.Issuer, "https://")
	if ok {
		p, ok = s.Provider(account, strings.TrimSuffix(issuer, "/"))
	}
	switch {
	case !ok:
		return c, p, invalidToken("No OpenIDConnect provider found in your account for %s", c.Issuer)
	case c.Expiry == nil:
		return c, p, invalidToken("Missing a required claim: exp")
	case c.IssuedAt == nil:
		return c, p, invalidToken("Missing a required claim: iat")
	case c.Subject == "":
		return c, p, invalidToken("Missing a required claim: sub")
	case len(c.Audience) == 0:
		return c, p, invalidToken("Missing a required claim: aud")
	case !slices.Contains(p.ClientIDs, c.audience()):
		return c, p, invalidToken("Incorrect token audience")
	}
	keys, err := s.Issuers.keys(ctx, c.Issuer, p.Thumbprints)
	if err != nil {
		return c, p, wire.Errorf("IDPCommunicationError", "Couldn't retrieve verification key from your identity provider: %s", shown(err))
	}
	if !signedBy(token, keys) {
		return c, p, invalidToken("Couldn't verify the signature of the token with the keys of the identity provider")
	}
	now := s.Now()
	switch {
	case !now.Before(c.Expiry.Time()):
		return c, p, wire.Errorf("ExpiredTokenException", "Token expired: current date/time %d must be before the expiration date/time %d", now.Unix(), c.Expiry.Time().Unix())
	case c.NotBefore != nil && now.Add(leeway).Before(c.NotBefore.Time()), now.Add(leeway).Before(c.IssuedAt.Time()):
		return c, p, invalidToken("The token is not valid yet")
	}
	return c, p, nil
}

// leeway is the allowed clock difference.
const leeway = 5 * time.Minute

// signedBy reports whether a token is signed with the key that it names or, if it names
// none, with any of keys.
func signedBy(token *jwt.JSONWebToken, keys jose.JSONWebKeySet) bool {
	candidates := keys.Keys
	if id := token.Headers[0].KeyID; id != "" {
		candidates = keys.Key(id)
	}
	return slices.ContainsFunc(candidates, func(k jose.JSONWebKey) bool {
		return k.IsPublic() && token.Claims(k.Key, &claims{}) == nil
	})
}

// checkRequest checks the common parameters of requests for roles, and returns the
// requested duration in seconds.
func checkRequest(arn, name string, duration *int32, policy *string) (seconds int, err error) {
	seconds = int(aws.ToInt32(duration))
	if duration == nil {
		seconds = 3600
	}
	switch {
	case !sessionName.Get().MatchString(name):
		return 0, wire.Errorf("ValidationError", "1 validation error detected: Value '%s' at 'roleSessionName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]*", name)
	case !roleARN.Get().MatchString(arn):
		return 0, wire.Errorf("ValidationError", "%s is invalid", arn)
	case seconds < shortest || seconds > longest:
		return 0, wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'durationSeconds' failed to satisfy constraint: it must be from %d to %d", seconds, shortest, longest)
	}
	return seconds, checkPolicy(policy)
}
