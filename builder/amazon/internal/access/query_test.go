package access

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	smithyauth "github.com/aws/smithy-go/auth"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// TestGlobalEndpoints: calls of IAM go to the same hosts, and are signed for the same regions, as
// those of the SDK's client.
func TestGlobalEndpoints(t *testing.T) {
	f := newFake(t)
	t.Setenv("AWS_ENDPOINT_URL", f.URL)
	t.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "")
	s, err := Open(t.Context(), &Options{Region: "us-east-1", SkipCredentialValidation: true}, nil, Cloud{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	q := s.IAM()
	if at, signed, err := q.endpoint(t.Context()); err != nil || at != f.URL || signed != "us-east-1" {
		t.Errorf("with AWS_ENDPOINT_URL: %q, signed for %q, %v", at, signed, err)
	}
	t.Setenv("AWS_ENDPOINT_URL_IAM", "http://127.0.0.1:9")
	if at, err := q.given(t.Context()); err != nil || at != "http://127.0.0.1:9" {
		t.Errorf("with AWS_ENDPOINT_URL_IAM: %q, %v", at, err)
	}
	t.Setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")
	for _, region := range someRegions() {
		for n := range 4 {
			dual, fips := n&1 != 0, n&2 != 0
			t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", fmt.Sprint(dual))
			t.Setenv("AWS_USE_FIPS_ENDPOINT", fmt.Sprint(fips))
			s, err := Open(t.Context(), &Options{Region: region, SkipCredentialValidation: true}, nil, Cloud{}, nil)
			if err != nil {
				t.Fatal(err)
			}
			s.config.BaseEndpoint = nil
			want, err := iam.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), iam.EndpointParameters{Region: &region, UseDualStack: &dual, UseFIPS: &fips})
			if err != nil {
				t.Fatal(err)
			}
			options, _ := smithyauth.GetAuthOptions(&want.Properties)
			home, _ := smithyhttp.GetSigV4SigningRegion(&options[0].SignerProperties)
			at, signed, err := s.IAM().endpoint(t.Context())
			if err != nil || at != want.URI.String() || signed != home {
				t.Errorf("%s, dual stack %t, FIPS %t: %s, signed for %s (%v), the SDK: %s, signed for %s", region, dual, fips, at, signed, err, want.URI.String(), home)
			}
		}
	}
}

// TestQueryRequests: calls are retried like those of the SDK's clients, and errors are explained.
func TestQueryRequests(t *testing.T) {
	var requests atomic.Int32
	fine := func(w http.ResponseWriter, _ int32) { fmt.Fprint(w, `<GetRoleResponse/>`) }
	answer := fine
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, err := url.ParseQuery(string(body))
		if err != nil || form.Get("Version") != "2010-05-08" || form.Get("RoleName") != "a b/ü" || r.Method != http.MethodPost ||
			!strings.Contains(r.Header.Get("Authorization"), "/us-east-1/iam/aws4_request") || !strings.HasPrefix(r.UserAgent(), "aws-sdk-go-v2/") {
			t.Errorf("%s %s, %v", r.Method, body, r.Header)
		}
		answer(w, requests.Add(1))
	}))
	defer server.Close()
	s, err := Open(t.Context(), &Options{Region: "us-east-1", SkipCredentialValidation: true}, nil, Cloud{Name: "local", Endpoint: server.URL, AccessKey: "AKIALOCAL", SecretKey: "s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(w http.ResponseWriter, status int, code string) {
		w.WriteHeader(status)
		fmt.Fprintf(w, `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>said.</Message></Error></ErrorResponse>`, code)
	}
	for _, c := range []struct {
		name, action string
		answer       func(w http.ResponseWriter, n int32)
		requests     int32
		code, text   string
		refused      bool
	}{
		{"carried out", "GetRole", fine, 1, "", "", false},
		{"no such thing", "GetRole", func(w http.ResponseWriter, _ int32) { refuse(w, 404, "NoSuchEntity") }, 1, "NoSuchEntity", "GetRole: NoSuchEntity: said", true},
		{"no permission", "GetRole", func(w http.ResponseWriter, _ int32) { refuse(w, 403, "AccessDenied") }, 1, "AccessDenied", "lack the permission iam:GetRole", true},
		{"a failure that passes", "DeleteRole", func(w http.ResponseWriter, n int32) {
			if n == 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}, 2, "", "", false},
		{"a refusal after a failure", "DeleteRole", func(w http.ResponseWriter, n int32) {
			if n == 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
			} else {
				refuse(w, 404, "NoSuchEntity")
			}
		}, 2, "NoSuchEntity", "", false},
		{"an answer cut off", "GetRole", func(w http.ResponseWriter, n int32) {
			if n == 1 {
				fmt.Fprint(w, "<GetRoleResp")
			} else {
				fine(w, n)
			}
		}, 2, "", "", false},
		{"a clock that is wrong", "GetRole", func(w http.ResponseWriter, n int32) {
			if n == 1 {
				w.Header().Set("Date", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
				refuse(w, 403, "SignatureDoesNotMatch")
			} else {
				fine(w, n)
			}
		}, 2, "", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests.Store(0)
			answer = c.answer
			var out any
			if c.action == "GetRole" {
				out = &struct{}{}
			}
			err := s.IAM().Do(t.Context(), c.action, url.Values{"RoleName": {"a b/ü"}}, out)
			if Code(err) != c.code || (err == nil) != (c.code == "") || err != nil && !strings.Contains(err.Error(), c.text) || Refused(err) != c.refused {
				t.Errorf("%v, refused: %t", err, Refused(err))
			}
			if n := requests.Load(); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
		})
	}
}
