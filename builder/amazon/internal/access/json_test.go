package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2instanceconnect"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
)

// someRegions are regions of all partitions, and an unknown one.
func someRegions() []string {
	return []string{
		"us-east-1", "eu-central-1", "xx-new-1", "cn-north-1", "cn-northwest-1", "us-gov-west-1", "us-gov-east-1", "us-iso-east-1", "us-iso-west-1",
		"us-isob-east-1", "eu-isoe-west-1", "us-isof-south-1", "eusc-de-east-1",
	}
}

// TestRegionalEndpoints: calls go to the same hosts as those of the SDK's clients.
func TestRegionalEndpoints(t *testing.T) {
	of := map[string]func(region *string, dual, fips *bool) (url.URL, error){
		"autoscaling": func(region *string, dual, fips *bool) (url.URL, error) {
			at, err := autoscaling.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), autoscaling.EndpointParameters{Region: region, UseDualStack: dual, UseFIPS: fips})
			return at.URI, err
		},
		"ssm": func(region *string, dual, fips *bool) (url.URL, error) {
			at, err := ssm.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), ssm.EndpointParameters{Region: region, UseDualStack: dual, UseFIPS: fips})
			return at.URI, err
		},
		"secretsmanager": func(region *string, dual, fips *bool) (url.URL, error) {
			at, err := secretsmanager.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), secretsmanager.EndpointParameters{Region: region, UseDualStack: dual, UseFIPS: fips})
			return at.URI, err
		},
		"kms": func(region *string, dual, fips *bool) (url.URL, error) {
			at, err := kms.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), kms.EndpointParameters{Region: region, UseDualStack: dual, UseFIPS: fips})
			return at.URI, err
		},
		"ec2-instance-connect": func(region *string, dual, fips *bool) (url.URL, error) {
			at, err := ec2instanceconnect.NewDefaultEndpointResolverV2().ResolveEndpoint(t.Context(), ec2instanceconnect.EndpointParameters{Region: region, UseDualStack: dual, UseFIPS: fips})
			return at.URI, err
		},
	}
	t.Setenv("AWS_ENDPOINT_URL", newFake(t).URL)
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
			for _, c := range []*service{&s.AutoScaling(region).service, &s.SSM(region).service, &s.SecretsManager().service, &s.KMS(region, "").service, &s.InstanceConnect().service} {
				want, err := of[c.name](&region, &dual, &fips)
				if err != nil {
					t.Fatal(err)
				}
				at, signed, err := c.endpoint(t.Context())
				if err != nil || at != want.String() || signed != region {
					t.Errorf("%s in %s, dual stack %t, FIPS %t: %s, signed for %s (%v), the SDK: %s", c.name, region, dual, fips, at, signed, err, want.String())
				}
			}
		}
	}
	s, err := Open(t.Context(), &Options{Region: "us-east-1", SkipCredentialValidation: true}, nil, Cloud{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if at, _, err := s.KMS("us-east-1", "kms.example").endpoint(t.Context()); err != nil || at != "https://kms.example" {
		t.Errorf("the host of a key: %s, %v", at, err)
	}
}

// TestJSONRequests: requests and errors are the same as those of the SDK's client.
func TestJSONRequests(t *testing.T) {
	type sent struct{ Target, Type, Body string }
	var got []sent
	var answer func(http.ResponseWriter)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = append(got, sent{r.Header.Get("X-Amz-Target"), r.Header.Get("Content-Type"), string(body)})
		answer(w)
	}))
	defer server.Close()
	s, err := Open(t.Context(), &Options{Region: "us-east-1", SkipCredentialValidation: true}, nil, Cloud{Name: "local", Endpoint: server.URL, AccessKey: "AKIALOCAL", SecretKey: "s"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	type call struct{ here, sdk func(context.Context) error }
	params := map[string]any{"Name": "/a/é", "WithDecryption": true}
	out := new(struct{ Parameter struct{ Value string } })
	client := ssm.NewFromConfig(s.config)
	get := call{
		func(ctx context.Context) error { return s.SSM("us-east-1").Do(ctx, "GetParameter", params, out) },
		func(ctx context.Context) error {
			_, err := client.GetParameter(ctx, &ssm.GetParameterInput{Name: aws.String("/a/é"), WithDecryption: aws.Bool(true)})
			return err
		},
	}
	keys := kms.NewFromConfig(s.config)
	sign := call{
		func(ctx context.Context) error {
			return s.KMS("us-east-1", "").Do(ctx, "Sign", map[string]any{"KeyId": "k", "Message": []byte{1, 2}, "SigningAlgorithm": "ECDSA_SHA_256"}, nil)
		},
		func(ctx context.Context) error {
			_, err := keys.Sign(ctx, &kms.SignInput{KeyId: aws.String("k"), Message: []byte{1, 2}, SigningAlgorithm: "ECDSA_SHA_256"})
			return err
		},
	}
	fails := func(status int, header, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if header != "" {
				w.Header().Set("X-Amzn-ErrorType", header)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, c := range map[string]struct {
		call
		answer func(http.ResponseWriter)
	}{
		"carried out":        {get, fails(200, "", `{"Parameter": {"Value": "v", "LastModifiedDate": 1.8e9}}`)},
		"bytes":              {sign, fails(200, "", `{"Signature": "AQI="}`)},
		"the type":           {get, fails(400, "", `{"__type": "ParameterNotFound"}`)},
		"a type with more":   {get, fails(400, "", `{"__type": "com.amazonaws.ssm#ParameterNotFound:http://x/y#z", "message": "said"}`)},
		"a header":           {get, fails(400, "AccessDeniedException:http://x/", `{"Message": "said"}`)},
		"a code":             {sign, fails(400, "", `{"code": "NotFoundException", "message": "said"}`)},
		"a page":             {get, fails(403, "", `<html>no</html>`)},
		"nothing":            {get, fails(400, "", ``)},
		"a throttled call":   {sign, fails(400, "", `{"__type": "KMSInvalidStateException", "message": "later"}`)},
		"an answer cut off":  {sign, fails(200, "", `{"Signature": "AQ`)},
		"an answer of a web": {sign, fails(200, "", `<html/>`)},
	} {
		t.Run(name, func(t *testing.T) {
			answer = c.answer
			got = nil
			want := c.sdk(t.Context())
			first := got
			got = nil
			err := c.here(t.Context())
			if diff := cmp.Diff(first, got); diff != "" {
				t.Errorf("requests (-SDK +here):\n%s", diff)
			}
			if (err == nil) != (want == nil) {
				t.Fatalf("%v, want %v", err, want)
			}
			said := func(err error) (text string) {
				var api smithy.APIError
				if errors.As(err, &api) && api.ErrorCode() != noCode {
					text = api.ErrorCode() + ": " + api.ErrorMessage()
				}
				return text
			}
			if got, want := said(err), said(want); got != want || name == "the type" && got != "ParameterNotFound: " {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
	if out.Parameter.Value != "v" {
		t.Errorf("%+v", out)
	}
}

func TestTimestamps(t *testing.T) {
	var at Timestamp
	if err := at.UnmarshalJSON([]byte("1800000000.25")); err != nil || at.UTC().Format("2006-01-02T15:04:05.000") != "2027-01-15T08:00:00.250" {
		t.Errorf("%s, %v", at, err)
	}
	if at.UnmarshalJSON([]byte(`"soon"`)) == nil {
		t.Error("a text is a time")
	}
}
