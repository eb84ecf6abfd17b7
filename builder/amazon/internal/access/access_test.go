package access

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// fake is a Vault, and the parts of AWS that a session needs.
type fake struct {
	*httptest.Server
	mu       sync.Mutex
	calls    []string // "Action key token", or "METHOD path body" of Vault
	lifetime time.Duration
	unknown  int    // number of calls to EC2 that are refused before the credentials are known
	refuse   string // error code of DescribeVpcs

	seen func(*http.Request) // if not nil, called for each request
}

func newFake(t *testing.T) *fake {
	f := &fake{lifetime: time.Hour}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	t.Setenv("AWS_ENDPOINT_URL", f.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAME")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	t.Setenv("AWS_SESSION_TOKEN", "")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_CONFIG_FILE", "/dev/null")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
	t.Setenv("AWS_PROFILE", "")
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.seen != nil {
		f.seen(r)
	}
	body, _ := io.ReadAll(r.Body) // missing entries are not found below
	if strings.HasPrefix(r.URL.Path, "/v1/") {
		f.calls = append(f.calls, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+string(body)))
		if r.Header.Get("X-Vault-Token") != "root" {
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"errors":["permission denied"]}`)
			return
		}
		fmt.Fprint(w, `{"data":{"access_key":"AKIAVAULT","secret_key":"s","security_token":"t"}}`)
		return
	}
	form, _ := url.ParseQuery(string(body))
	_, key, _ := strings.Cut(r.Header.Get("Authorization"), "Credential=")
	key, _, _ = strings.Cut(key, "/")
	action := form.Get("Action")
	f.calls = append(f.calls, strings.TrimSpace(action+" "+key+" "+form.Get("SerialNumber")+" "+form.Get("TokenCode")))
	fail := func(code, message string) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, `<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors></Response>`, code, message)
	}
	switch {
	case action == "AssumeRole" || action == "AssumeRoleWithWebIdentity":
		n := 0
		for _, c := range f.calls {
			if strings.HasPrefix(c, "AssumeRole") {
				n++
			}
		}
		fmt.Fprintf(w, `<%[1]sResponse><%[1]sResult><Credentials><AccessKeyId>ASIA%[2]d</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%[3]s</Expiration></Credentials></%[1]sResult></%[1]sResponse>`,
			action, n, time.Now().Add(f.lifetime).UTC().Format(time.RFC3339))
	case action == "ListMFADevices":
		fmt.Fprint(w, `<ListMFADevicesResponse><ListMFADevicesResult><MFADevices><member><SerialNumber>arn:aws:iam::1:mfa/me</SerialNumber><UserName>me</UserName><EnableDate>2026-01-01T00:00:00Z</EnableDate></member></MFADevices></ListMFADevicesResult></ListMFADevicesResponse>`)
	case action == "GetCallerIdentity":
		fmt.Fprint(w, `<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>`)
	case action == "DecodeAuthorizationMessage":
		fmt.Fprintf(w, `<DecodeAuthorizationMessageResponse><DecodeAuthorizationMessageResult><DecodedMessage>the text of %s</DecodedMessage></DecodeAuthorizationMessageResult></DecodeAuthorizationMessageResponse>`, form.Get("EncodedMessage"))
	case f.unknown > 0:
		f.unknown--
		fail("AuthFailure", "AWS was not able to validate the provided access credentials")
	case action == "DescribeVpcs" && f.refuse != "":
		fail(f.refuse, "You are not authorized to perform this operation. Encoded authorization failure message: abc123")
	default:
		fmt.Fprintf(w, `<%[1]sResponse></%[1]sResponse>`, action)
	}
}

func (f *fake) open(t *testing.T, o Options, env ...string) *Session {
	t.Helper()
	o.Region = "us-east-1"
	s, err := Open(t.Context(), &o, nil, Cloud{}, env)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// said returns the recorded calls.
func (f *fake) said() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func describe(ctx context.Context, s *Session) error {
	_, err := Call(ctx, s.EC2(s.Region).DescribeVpcs, &ec2.DescribeVpcsInput{})
	return err
}

// TestVault uses credentials from Vault, which AWS does not know at first.
func TestVault(t *testing.T) {
	for _, tt := range []struct {
		engine VaultAWSEngine
		want   string
	}{
		{VaultAWSEngine{Name: "ci", EngineName: "aws"}, "GET /v1/aws/creds/ci"},
		{VaultAWSEngine{Name: "ci", EngineName: "aws-eu", RoleARN: "arn:r", TTL: "900s"}, `PUT /v1/aws-eu/sts/ci {"role_arn":"arn:r","ttl":"900s"}`},
	} {
		f := newFake(t)
		f.unknown = 2
		f.open(t, Options{VaultAWSEngine: &tt.engine}, "VAULT_ADDR="+f.URL, "VAULT_TOKEN=root")
		want := []string{tt.want, "DescribeRegions AKIAVAULT", "DescribeRegions AKIAVAULT", "DescribeRegions AKIAVAULT", "GetCallerIdentity AKIAVAULT"}
		if got := f.said(); !slices.Equal(got, want) {
			t.Errorf("the calls were %q, want %q", got, want)
		}
	}
}

func TestVaultRefuses(t *testing.T) {
	f := newFake(t)
	o := Options{Region: "us-east-1", VaultAWSEngine: &VaultAWSEngine{Name: "ci", EngineName: "aws"}}
	for env, want := range map[string]string{
		"":                  "VAULT_TOKEN is not set",
		"VAULT_TOKEN=wrong": "403 Forbidden: permission denied",
	} {
		_, err := Open(t.Context(), &o, nil, Cloud{}, []string{"VAULT_ADDR=" + f.URL, env})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %q: %v, want %q", env, err, want)
		}
	}
}

// TestRoleIsRenewed: when the credentials of a role expire during a build, the role is assumed
// again.
func TestRoleIsRenewed(t *testing.T) {
	f := newFake(t)
	f.lifetime = -time.Minute // has expired when it is used again
	s := f.open(t, Options{SkipCredentialValidation: true, AssumeRole: &AssumeRole{RoleARN: "arn:aws:iam::1:role/r", SessionName: "bake"}})
	for range 2 {
		if err := describe(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"AssumeRole AKIAME", "AssumeRole AKIAME", "DescribeVpcs ASIA2", "AssumeRole AKIAME", "DescribeVpcs ASIA3"}
	if got := f.said(); !slices.Equal(got, want) {
		t.Errorf("the calls were %q, want %q", got, want)
	}
}

// TestConfiguredRoles: roles of the AWS configuration are assumed at the endpoint for all
// services, however that is set, or at that of STS if there is one.
func TestConfiguredRoles(t *testing.T) {
	write := func(t *testing.T, text string) string {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const role = "role_arn = arn:aws:iam::1:role/r\n"
	for name, c := range map[string]struct {
		config string // URL is the fake's
		env    map[string]string
		want   string
	}{
		"profile":      {"[profile p]\n" + role + "source_profile = q\nmfa_serial = m\n[profile q]\naws_access_key_id = AKIAQ\naws_secret_access_key = s\n", nil, "AssumeRole AKIAQ m 123456"},
		"its endpoint": {"[profile p]\nendpoint_url = URL\n" + role + "web_identity_token_file = TOKEN\n", map[string]string{"AWS_ENDPOINT_URL": ""}, "AssumeRoleWithWebIdentity"},
		"token": {"", map[string]string{
			"AWS_ROLE_ARN": "arn:aws:iam::1:role/r", "AWS_WEB_IDENTITY_TOKEN_FILE": "TOKEN", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "",
		}, "AssumeRoleWithWebIdentity"},
		"endpoint of STS": {"[profile p]\n" + role + "web_identity_token_file = TOKEN\n", map[string]string{"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "URL", "AWS_ENDPOINT_URL_EC2": "URL"}, "AssumeRoleWithWebIdentity"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			filled := strings.NewReplacer("URL", f.URL, "TOKEN", write(t, "a token"))
			t.Setenv("AWS_CONFIG_FILE", write(t, filled.Replace(c.config)))
			for name, value := range c.env {
				t.Setenv(name, filled.Replace(value))
				if value == "" {
					os.Unsetenv(name)
				}
			}
			profile := "p"
			if c.config == "" {
				profile = ""
			}
			if err := describe(t.Context(), f.open(t, Options{Profile: profile, MFACode: "123456", SkipCredentialValidation: true})); err != nil {
				t.Fatal(err)
			}
			if got, want := f.said(), []string{c.want, "DescribeVpcs ASIA1"}; !slices.Equal(got, want) {
				t.Errorf("the calls were %q, want %q", got, want)
			}
		})
	}
}

func TestMFA(t *testing.T) {
	f := newFake(t)
	f.open(t, Options{MFACode: "123456", SkipCredentialValidation: true, AssumeRole: &AssumeRole{RoleARN: "arn:aws:iam::1:role/r", SessionName: "bake"}})
	want := []string{"ListMFADevices AKIAME", "AssumeRole AKIAME arn:aws:iam::1:mfa/me 123456"}
	if got := f.said(); !slices.Equal(got, want) {
		t.Errorf("the calls were %q, want %q", got, want)
	}
}

func TestDecodeAuthorizationMessages(t *testing.T) {
	f := newFake(t)
	f.refuse = "UnauthorizedOperation"
	err := describe(t.Context(), f.open(t, Options{DecodeAuthorizationMessages: true}))
	if err == nil || !strings.Contains(err.Error(), "AWS says: the text of abc123") || !Is(err, "UnauthorizedOperation") || !Refused(err) {
		t.Errorf("decoded: %v", err)
	}
	err = describe(t.Context(), f.open(t, Options{}))
	if err == nil || strings.Contains(err.Error(), "AWS says") || !strings.Contains(err.Error(), "decode-authorization-message shows more") {
		t.Errorf("not decoded: %v", err)
	}
}
