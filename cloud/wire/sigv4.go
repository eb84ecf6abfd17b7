package wire

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// Scope is the credential scope and the other fields of a request's signature.
type Scope struct {
	AccessKey string
	Region    string
	Service   string
	date      string
	headers   []string
	signature string
}

const algorithm = "AWS4-HMAC-SHA256"

// skew is the largest allowed difference between the clocks of client and server.
const skew = 15 * time.Minute

// ParseScope reads the Authorization header of a request signed with AWS
// Signature Version 4. It does not check the signature: see [Scope.Verify].
func ParseScope(r *http.Request) (Scope, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return Scope{}, errUnsigned()
	}
	incomplete := &Error{"IncompleteSignature", "Authorization header requires 'Credential', 'Signature' and 'SignedHeaders' parameters of AWS Signature Version 4.", http.StatusForbidden}
	name, rest, _ := strings.Cut(header, " ")
	if name != algorithm {
		return Scope{}, incomplete
	}
	var s Scope
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "Credential":
			c := strings.Split(value, "/")
			if len(c) != 5 || c[4] != "aws4_request" {
				return Scope{}, incomplete
			}
			s.AccessKey, s.date, s.Region, s.Service = c[0], c[1], c[2], c[3]
		case "SignedHeaders":
			s.headers = strings.Split(value, ";")
		case "Signature":
			s.signature = value
		}
	}
	if s.AccessKey == "" || s.Region == "" || s.Service == "" || s.signature == "" || len(s.headers) == 0 {
		return Scope{}, incomplete
	}
	return s, nil
}

// Verify computes the request's signature with secret and compares it with the given one.
// body is the request's whole body. now is the server's time.
func (s Scope) Verify(ctx context.Context, r *http.Request, body []byte, secret string, now time.Time) error {
	sum := sha256.Sum256(body)
	return s.VerifyHash(ctx, r, hex.EncodeToString(sum[:]), secret, now)
}

// VerifyHash is [Scope.Verify] for a request whose body has not been read. hash is the
// value that the signature has for the body: its SHA-256, or the keyword that S3 clients
// send instead.
func (s Scope) VerifyHash(ctx context.Context, r *http.Request, hash, secret string, now time.Time) error {
	stamp, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || stamp.Format("20060102") != s.date {
		return &Error{"IncompleteSignature", "Date in Credential scope does not match the X-Amz-Date header of the request.", http.StatusForbidden}
	}
	if age := now.Sub(stamp); age > skew || age < -skew {
		return Errorf("RequestExpired", "Request has expired. It was signed at %s; the server's time is %s.",
			stamp.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	again := &http.Request{
		Method: r.Method,
		URL:    &url.URL{Scheme: "http", Host: r.Host, Path: r.URL.Path, RawPath: r.URL.RawPath, RawQuery: r.URL.RawQuery},
		Host:   r.Host,
		Header: http.Header{},
	}
	for _, name := range s.headers {
		switch name {
		case "host", "x-amz-date": // the signer sets these itself
		case "content-length":
			again.ContentLength = r.ContentLength
		default:
			again.Header[http.CanonicalHeaderKey(name)] = r.Header.Values(name)
		}
	}
	credentials := aws.Credentials{AccessKeyID: s.AccessKey, SecretAccessKey: secret}
	// S3's keys are in the path as they are; for other services, the signer escapes the
	// path again.
	signer := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = s.Service == "s3" })
	if err := signer.SignHTTP(ctx, credentials, again, hash, s.Service, s.Region, stamp); err != nil {
		return err
	}
	want, err := ParseScope(again)
	if err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(want.signature), []byte(s.signature)) != 1 {
		return &Error{"SignatureDoesNotMatch", "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method.", http.StatusForbidden}
	}
	return nil
}
