package cloud_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // thumbprints are SHA-1
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// issuer issues tokens, like that of a CI service.
type issuer struct {
	*httptest.Server
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	answer func(w http.ResponseWriter, r *http.Request) bool // replaces the right answer, if not nil
}

func newIssuer(t *testing.T) *issuer { return newIssuerAt(t, "127.0.0.1") }

// newIssuerAt starts an issuer at an address, with a certificate for 127.0.0.1.
func newIssuerAt(t *testing.T, address string) *issuer {
	t.Helper()
	i := &issuer{}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.answer != nil && i.answer(w, r):
		case r.URL.Path == "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		case r.URL.Path == "/keys":
			_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{ // the first two are of unknown kinds
				map[string]string{"kty": "OKP", "crv": "Ed448", "kid": "o", "x": "AA"}, "odd",
				jose.JSONWebKey{Key: i.rsa.Public(), KeyID: "r", Use: "sig"}, jose.JSONWebKey{Key: i.ec.Public(), KeyID: "e", Use: "sig"},
			}})
		default:
			http.NotFound(w, r)
		}
	}))
	_ = i.Listener.Close()
	if i.Listener, err = net.Listen("tcp", address+":0"); err != nil {
		t.Fatal(err)
	}
	i.StartTLS()
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) thumbprint() string {
	sum := sha1.Sum(i.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// claims returns the claims of a valid token, with changes.
func (i *issuer) claims(change map[string]any) map[string]any {
	c := map[string]any{"iss": i.URL, "aud": "sts.amazonaws.com", "sub": "repo:me/images:ref:refs/heads/main", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix()}
	maps.Copy(c, change)
	for k, v := range c {
		if v == nil {
			delete(c, k)
		}
	}
	return c
}

func signed(t *testing.T, algorithm jose.SignatureAlgorithm, key any, id string, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: algorithm, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", id))
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestWebIdentity assumes a role with tokens, like a job of a CI service.
func TestWebIdentity(t *testing.T) {
	s, i := cloudtest.Start(t, cloud.Options{}), newIssuer(t)
	ctx, c := t.Context(), iamClient(t, s, "default")
	made, err := c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &i.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{strings.ToUpper(i.thumbprint())}})
	if err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(i.URL, "https://")
	provider := *made.OpenIDConnectProviderArn
	if provider != "arn:aws:iam::123456789012:oidc-provider/"+host {
		t.Errorf("the provider is %s", provider)
	}
	role := func(name, condition string) string {
		out, err := c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(fmt.Sprintf(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":%q},"Action":"sts:AssumeRoleWithWebIdentity","Condition":%s}]}`, provider, strings.ReplaceAll(condition, "HOST", host)))})
		if err != nil {
			t.Fatal(err)
		}
		return *out.Role.Arn
	}
	good := role("ci", `{"StringEquals":{"HOST:aud":"sts.amazonaws.com"},"StringLike":{"HOST:sub":"repo:me/images:*"}}`)
	// This request is not signed.
	client := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}})
	assume := func(role, token string) (*sts.AssumeRoleWithWebIdentityOutput, error) {
		return client.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: &role, RoleSessionName: aws.String("job"), WebIdentityToken: &token})
	}
	rs := func(change map[string]any) string { return signed(t, jose.RS256, i.rsa, "r", i.claims(change)) }
	for name, token := range map[string]string{"RS256": rs(nil), "ES256": signed(t, jose.ES256, i.ec, "e", i.claims(nil)), "without a key's id": signed(t, jose.ES256, i.ec, "", i.claims(nil))} {
		out, err := assume(good, token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if *out.SubjectFromWebIdentityToken != "repo:me/images:ref:refs/heads/main" || *out.Audience != "sts.amazonaws.com" || *out.Provider != provider {
			t.Errorf("%s: %+v", name, out)
		}
		lent := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}, nil
		})})
		who, err := lent.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
		if err != nil || *who.Arn != "arn:aws:sts::123456789012:assumed-role/ci/job" {
			t.Errorf("%s: %v: %+v", name, err, who)
		}
	}

	stranger, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Split(rs(nil), ".")
	changed[1] = strings.Split(rs(map[string]any{"sub": "repo:me/images:root"}), ".")[1]
	none := strings.Split(rs(nil), ".")
	none[0] = "eyJhbGciOiJub25lIn0"
	public := signed(t, jose.HS256, []byte(strings.Repeat("k", 32)), "r", i.claims(nil))
	for name, test := range map[string]struct{ role, token, want string }{
		"another's subject":   {good, rs(map[string]any{"sub": "repo:you/images:ref:refs/heads/main"}), "AccessDenied"},
		"another condition":   {role("odd", `{"IpAddress":{"aws:SourceIp":"127.0.0.1"}}`), rs(nil), "AccessDenied"},
		"not that subject":    {role("not", `{"StringNotLike":{"HOST:sub":"repo:me/*"}}`), rs(nil), "AccessDenied"},
		"no such role":        {"arn:aws:iam::123456789012:role/absent", rs(nil), "AccessDenied"},
		"another's account":   {"arn:aws:iam::987654321098:role/ci", rs(nil), "InvalidIdentityToken"},
		"another audience":    {good, rs(map[string]any{"aud": "else"}), "InvalidIdentityToken"},
		"an unknown issuer":   {good, rs(map[string]any{"iss": "https://127.0.0.1:1"}), "InvalidIdentityToken"},
		"no subject":          {good, rs(map[string]any{"sub": nil}), "InvalidIdentityToken"},
		"no end":              {good, rs(map[string]any{"exp": nil}), "InvalidIdentityToken"},
		"expired":             {good, rs(map[string]any{"exp": time.Now().Add(-time.Second).Unix()}), "ExpiredTokenException"},
		"not valid yet":       {good, rs(map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "InvalidIdentityToken"},
		"a stranger's key":    {good, signed(t, jose.RS256, stranger, "r", i.claims(nil)), "InvalidIdentityToken"},
		"an unknown key":      {good, signed(t, jose.RS256, i.rsa, "x", i.claims(nil)), "InvalidIdentityToken"},
		"changed":             {good, strings.Join(changed, "."), "InvalidIdentityToken"},
		"without a signature": {good, strings.Join(none[:2], ".") + ".", "InvalidIdentityToken"},
		"with a shared key":   {good, public, "InvalidIdentityToken"},
		"no token":            {good, "token", "InvalidIdentityToken"},
	} {
		if _, err := assume(test.role, test.token); code(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}

	// The issuer's answers are verified.
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"an error": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "no", http.StatusBadGateway)
			return true
		},
		"a redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "/keys", http.StatusFound)
			return true
		},
		"no end": func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, strings.Repeat(" ", 2<<20))
			return true
		},
		"another issuer": func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprint(w, `{"issuer":"https://else","jwks_uri":"https://else/keys"}`)
			return true
		},
		"keys elsewhere": func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"file:///etc/passwd"}`, i.URL)
			return true
		},
		"much of it": func(w http.ResponseWriter, _ *http.Request) bool {
			fmt.Fprintf(w, `{"issuer":"%s\u001b[2J"}`, strings.Repeat("e", 10000))
			return true
		},
		"keys of nothing": func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/keys" },
	} {
		i.answer = answer
		if _, err := assume(good, rs(nil)); code(err) != "IDPCommunicationError" || len(err.Error()) > 1000 || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%s: %v", name, err)
		}
	}
	i.answer = nil

	// An issuer whose certificate is for another address.
	other := newIssuerAt(t, "127.0.0.2")
	if _, err := c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &other.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{other.thumbprint()}}); err != nil {
		t.Fatal(err)
	}
	if _, err := assume(good, signed(t, jose.RS256, other.rsa, "r", other.claims(nil))); code(err) != "IDPCommunicationError" || !strings.Contains(err.Error(), "127.0.0.2") {
		t.Errorf("a certificate of another address: %v", err)
	}

	// An issuer whose certificate is trusted neither by the host nor by a thumbprint is
	// not asked.
	if _, err := c.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &provider}); err != nil {
		t.Fatal(err)
	}
	if _, err := assume(good, rs(nil)); code(err) != "InvalidIdentityToken" {
		t.Errorf("a provider that is gone: %v", err)
	}
	if _, err := c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &i.URL, ClientIDList: []string{"sts.amazonaws.com"}, ThumbprintList: []string{strings.Repeat("0", 40)}}); err != nil {
		t.Fatal(err)
	}
	if _, err := assume(good, rs(nil)); code(err) != "IDPCommunicationError" || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
}

// TestUnsigned checks which actions may be requested without a signature.
func TestUnsigned(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	const named = "RoleArn=arn:aws:iam::123456789012:role/r&RoleSessionName=some&WebIdentityToken=token"
	for _, test := range []struct{ query, body, want string }{
		{"", "Action=AssumeRoleWithWebIdentity&" + named, "InvalidIdentityToken"},
		{"", named + "&Action=AssumeRoleWithWebIdentity", "InvalidIdentityToken"},
		{"", "Action=GetCallerIdentity", "MissingAuthenticationToken"},
		{"", "Action=GetCallerIdentity&Action=AssumeRoleWithWebIdentity&" + named, "MissingAuthenticationToken"},
		{"?Action=AssumeRole", "Action=AssumeRoleWithWebIdentity&" + named, "MissingAuthenticationToken"},
		{"", "Action=DescribeInstances&Version=2016-11-15", "MissingAuthenticationToken"},
	} {
		answer, err := http.Post(s.URL+"/"+test.query, "application/x-www-form-urlencoded", strings.NewReader(test.body))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		if err != nil || !strings.Contains(string(text), "<Code>"+test.want+"</Code>") {
			t.Errorf("%s %s: %s, %v", test.query, test.body, text, err)
		}
	}
}

// TestTrust evaluates policies with tokens of all kinds, and with callers that have
// credentials.
func TestTrust(t *testing.T) {
	s, i := cloudtest.Start(t, cloud.Options{}), newIssuer(t)
	ctx, c := t.Context(), iamClient(t, s, "default")
	if _, err := c.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{Url: &i.URL, ClientIDList: []string{"sts.amazonaws.com", "party"}, ThumbprintList: []string{i.thumbprint()}}); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(i.URL, "https://")
	n := 0
	role := func(statements string) *string {
		n++
		name := fmt.Sprintf("r%d", n)
		out, err := c.CreateRole(ctx, &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[` + strings.ReplaceAll(statements, "HOST", host) + `]}`)})
		if err != nil {
			t.Fatal(err)
		}
		return out.Role.Arn
	}
	nobody := sts.New(sts.Options{Region: "us-east-1", BaseEndpoint: &s.URL, Retryer: aws.NopRetryer{}})
	statement := func(effect, condition string) string {
		return `{"Effect":"` + effect + `","Principal":"*","Action":"sts:*","Condition":` + condition + `}`
	}
	const allow, never = `{"Effect":"Allow","Principal":"*","Action":"sts:*"}`, `{"StringEquals":{"HOST:sub":"nobody"}}`
	party := map[string]any{"azp": "party", "amr": "mfa"}
	for _, test := range []struct {
		policy string
		claims map[string]any
		want   string
	}{
		{statement("Allow", `{"StringNotEquals":{"HOST:sub":"else"}}`), nil, ""},
		{statement("Allow", `{"StringNotEquals":{"aws:SourceIp":"10.0.0.1"}}`), nil, "AccessDenied"},
		{statement("Allow", `{"StringEqualsIfExists":{"aws:SourceVpc":"vpc-1"}}`), nil, "AccessDenied"},
		{statement("Allow", `{"StringEqualsNot":{"HOST:sub":"else"}}`), nil, "AccessDenied"},
		{statement("Allow", `{"Odd:StringEquals":{"HOST:aud":"sts.amazonaws.com"}}`), nil, "AccessDenied"},
		{statement("Allow", `{"StringEqualsIfExists":{"HOST:oaud":"x"}}`), nil, ""},
		{allow + "," + statement("Deny", never), nil, ""},
		{allow + "," + statement("Deny", `{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/8"}}`), nil, "AccessDenied"},
		{allow + "," + statement("Deny", `{"StringEquals":{"aws:SourceVpc":"vpc-1"}}`), nil, "AccessDenied"},
		{allow + `,{"Effect":"Deny","Principal":"*","NotAction":"sts:AssumeRole"}`, nil, "AccessDenied"},
		{statement("Allow", `{"StringEquals":{"HOST:aud":"party","HOST:oaud":"sts.amazonaws.com"},"ForAnyValue:StringEquals":{"HOST:amr":"mfa"}}`), party, ""},
		{statement("Allow", `{"ForAnyValue:StringLike":{"HOST:amr":"m*"}}`), map[string]any{"amr": []string{"pwd", "mfa"}}, ""},
		{statement("Allow", `{"ForAnyValue:StringLike":{"HOST:amr":"m*"}}`), nil, "AccessDenied"},
		{statement("Allow", `{"ForAnyValue:StringLike":{"HOST:amr":"a\\*"}}`), map[string]any{"amr": []string{`a\b`}}, ""}, // in a policy, a backslash is literal
		{statement("Allow", `{"ForAnyValue:StringLike":{"HOST:amr":"a\\*"}}`), map[string]any{"amr": []string{"a*"}}, "AccessDenied"},
	} {
		token := signed(t, jose.RS256, i.rsa, "r", i.claims(test.claims))
		_, err := nobody.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{RoleArn: role(test.policy), RoleSessionName: aws.String("job"), WebIdentityToken: &token})
		if code(err) != test.want {
			t.Errorf("%s: %v", test.policy, err)
		}
	}
	signedBy := stsClient(s, account(t, s, "default"))
	for policy, want := range map[string]string{
		allow: "",
		statement("Allow", `{"StringNotEquals":{"sts:ExternalId":"x"}}`): "",
		statement("Allow", `{"StringEquals":{"sts:ExternalId":"x"}}`):    "AccessDenied",
		statement("Allow", `{"BoolIfExists":{"aws:Mfa":"true"}}`):        "AccessDenied",
	} {
		if _, err := signedBy.AssumeRole(ctx, &sts.AssumeRoleInput{RoleArn: role(policy), RoleSessionName: aws.String("some")}); code(err) != want {
			t.Errorf("%s: %v", policy, err)
		}
	}
}

// TestProviders checks that providers are stored as in IAM.
func TestProviders(t *testing.T) {
	dir := t.TempDir()
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		c, address := iamClient(t, s, "default"), aws.String("https://issuer.example/path/")
		if _, err := c.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: address, ClientIDList: []string{"a"}}); err != nil {
			t.Fatal(err)
		}
		for want, in := range map[string]iam.CreateOpenIDConnectProviderInput{
			"EntityAlreadyExists": {Url: address}, "ValidationError": {Url: aws.String("http://issuer.example")}, "ValidationError ": {Url: aws.String("https://other.example"), ThumbprintList: []string{"short"}},
		} {
			if _, err := c.CreateOpenIDConnectProvider(t.Context(), &in); code(err) != strings.TrimSpace(want) {
				t.Errorf("%s: %v", want, err)
			}
		}
	})
	serveOnce(t, cloud.Options{Dir: dir}, func(s *cloudtest.Server) {
		c := iamClient(t, s, "default")
		list, err := c.ListOpenIDConnectProviders(t.Context(), &iam.ListOpenIDConnectProvidersInput{})
		if err != nil || len(list.OpenIDConnectProviderList) != 1 {
			t.Fatalf("%v: %+v", err, list)
		}
		arn := list.OpenIDConnectProviderList[0].Arn
		got, err := c.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
		if err != nil || *arn != "arn:aws:iam::123456789012:oidc-provider/issuer.example/path" || *got.Url != "issuer.example/path" || got.ClientIDList[0] != "a" {
			t.Errorf("%v: %s: %+v", err, *arn, got)
		}
		if _, err := c.DeleteOpenIDConnectProvider(t.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}); err != nil {
			t.Error(err)
		}
		if _, err := c.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn}); code(err) != "NoSuchEntity" {
			t.Errorf("one that is gone: %v", err)
		}
	})
}
