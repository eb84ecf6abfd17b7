package cloud_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // what thumbprints are
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
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

// issuer issues tokens, as the one of a CI service does.
type issuer struct {
	*httptest.Server
	rsa    *rsa.PrivateKey
	ec     *ecdsa.PrivateKey
	answer func(w http.ResponseWriter, r *http.Request) bool // in place of the right one
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	var err error
	if i.rsa, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
		t.Fatal(err)
	}
	if i.ec, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	i.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case i.answer != nil && i.answer(w, r):
		case r.URL.Path == "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
		case r.URL.Path == "/keys":
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.rsa.Public(), KeyID: "r", Use: "sig"}, {Key: i.ec.Public(), KeyID: "e", Use: "sig"}}})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) thumbprint() string {
	sum := sha1.Sum(i.Certificate().Raw)
	return hex.EncodeToString(sum[:])
}

// claims are those of a good token, changed.
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

// TestWebIdentity takes a role on with tokens, as a job of a CI service does.
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
	// Nobody signs this.
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

	// What the issuer answers is not believed.
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"an error": func(w http.ResponseWriter, _ *http.Request) bool {
			http.Error(w, "no", http.StatusBadGateway)
			return true
		},
		"a redirection": func(w http.ResponseWriter, r *http.Request) bool {
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
		"keys of nothing": func(w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == "/keys" },
	} {
		i.answer = answer
		if _, err := assume(good, rs(nil)); code(err) != "IDPCommunicationError" {
			t.Errorf("%s: %v", name, err)
		}
	}
	i.answer = nil

	// One whose certificate neither the host nor a thumbprint knows is not asked.
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

// TestProviders keeps providers as IAM does.
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
