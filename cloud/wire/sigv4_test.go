package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

func TestVerify(t *testing.T) {
	body := []byte("Action=DescribeRegions&Version=2016-11-15")
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	signed := func(t *testing.T, region string) *http.Request {
		r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:4000/", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
		sum := sha256.Sum256(body)
		err = v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: "AKID", SecretAccessKey: "secret"}, r, hex.EncodeToString(sum[:]), "ec2", region, now)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	for _, test := range []struct {
		name   string
		change func(*http.Request)
		body   string
		secret string
		now    time.Time
		code   string
	}{
		{name: "good"},
		{name: "a little late", now: now.Add(14 * time.Minute)},
		{name: "unsigned header", change: func(r *http.Request) { r.Header.Set("User-Agent", "other") }},
		{name: "another secret", secret: "guess", code: "SignatureDoesNotMatch"},
		{name: "another body", body: "Action=TerminateInstances", code: "SignatureDoesNotMatch"},
		{name: "another host", change: func(r *http.Request) { r.Host = "127.0.0.1:4001" }, code: "SignatureDoesNotMatch"},
		{name: "another signed header", change: func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, code: "SignatureDoesNotMatch"},
		{name: "late", now: now.Add(16 * time.Minute), code: "RequestExpired"},
		{name: "early", now: now.Add(-16 * time.Minute), code: "RequestExpired"},
		{name: "another day", change: func(r *http.Request) { r.Header.Set("X-Amz-Date", "20300103T030405Z") }, code: "IncompleteSignature"},
		{name: "no date", change: func(r *http.Request) { r.Header.Del("X-Amz-Date") }, code: "IncompleteSignature"},
		{name: "no signature", change: func(r *http.Request) { r.Header.Del("Authorization") }, code: "MissingAuthenticationToken"},
		{name: "another scheme", change: func(r *http.Request) { r.Header.Set("Authorization", "Basic abc") }, code: "IncompleteSignature"},
		{name: "half a scope", change: func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=AKID/20300102/us-east-1, SignedHeaders=host, Signature=00")
		}, code: "IncompleteSignature"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := signed(t, "eu-west-1")
			if test.change != nil {
				test.change(r)
			}
			sent, secret, at := body, "secret", now
			if test.body != "" {
				sent = []byte(test.body)
			}
			if test.secret != "" {
				secret = test.secret
			}
			if !test.now.IsZero() {
				at = test.now
			}
			scope, err := ParseScope(r)
			if err == nil {
				err = scope.Verify(t.Context(), r, sent, secret, at)
			}
			if got := asCode(err); got != test.code {
				t.Errorf("%v; want the code %q", err, test.code)
			}
			if err == nil && (scope.AccessKey != "AKID" || scope.Region != "eu-west-1" || scope.Service != "ec2") {
				t.Errorf("scope = %+v", scope)
			}
		})
	}
}

func asCode(err error) string {
	if err == nil {
		return ""
	}
	return AsError(err).Code
}
