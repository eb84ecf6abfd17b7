package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"
)

// recorder is an HTTP client that writes down requests and gives all the same answer.
type recorder struct {
	sent   []recorded
	answer func(http.ResponseWriter)
}

type recorded struct {
	Method, URL, Type, Expect, Encryption, Key, Body string
	Length                                           int64
}

// Do implements [aws.HTTPClient].
func (c *recorder) Do(r *http.Request) (*http.Response, error) {
	at := *r.URL
	q := at.Query()
	q.Del("x-id") // says what the rest says, too
	at.RawQuery = q.Encode()
	one := recorded{
		Method: r.Method, URL: at.String(), Expect: r.Header.Get("Expect"), Length: r.ContentLength,
		Encryption: r.Header.Get("X-Amz-Server-Side-Encryption"), Key: r.Header.Get("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"),
	}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if len(body) > 100 {
			body = fmt.Append(nil, len(body), " bytes")
		}
		one.Body = string(body)
		one.Type = r.Header.Get("Content-Type")
	}
	c.sent = append(c.sent, one)
	w := httptest.NewRecorder()
	c.answer(w)
	return w.Result(), nil
}

// s3Session is a session with AWS whose requests are written down.
func s3Session(t *testing.T, region string) (*Session, *s3.Client, *recorder) {
	t.Helper()
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	s, err := Open(t.Context(), &Options{Region: region, SkipCredentialValidation: true, MaxRetries: 2}, nil, Cloud{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &recorder{answer: func(http.ResponseWriter) {}}
	s.config.HTTPClient = c
	return s, s3.NewFromConfig(s.config, func(o *s3.Options) {
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired // the signature has one
	}), c
}

// TestS3Endpoints: buckets are found where the SDK's client would look for them.
func TestS3Endpoints(t *testing.T) {
	compared := 0
	for _, region := range someRegions() {
		for n := range 4 {
			t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", fmt.Sprint(n&1 != 0))
			t.Setenv("AWS_USE_FIPS_ENDPOINT", fmt.Sprint(n&2 != 0))
			s, client, c := s3Session(t, region)
			for _, bucket := range []string{"acme-images", "acme.images", "Acme_Old"} {
				c.sent = nil
				if _, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: &bucket}); len(c.sent) == 0 {
					t.Logf("%s, dual stack %t, FIPS %t: the SDK has no endpoint: %v", region, n&1 != 0, n&2 != 0, err)
					continue
				}
				want := c.sent
				c.sent = nil
				if err := s.S3(region, bucket).Do(t.Context(), "HeadBucket", S3Request{Method: http.MethodHead}, nil); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, c.sent); diff != "" {
					t.Errorf("%s, dual stack %t, FIPS %t, %s (-SDK +here):\n%s", region, n&1 != 0, n&2 != 0, bucket, diff)
				}
				compared++
			}
		}
	}
	if compared < 100 {
		t.Errorf("only %d endpoints were compared", compared)
	}
}

// TestS3Requests: calls and their errors are written and read as by the SDK's client.
func TestS3Requests(t *testing.T) {
	s, client, c := s3Session(t, "eu-west-1")
	bucket, key, large := s.S3("eu-west-1", "b-1"), "a b/é+%.raw", bytes.Repeat([]byte{7}, 3<<20)
	type call struct{ here, sdk func(context.Context) error }
	put := call{
		func(ctx context.Context) error {
			_, err := bucket.Put(ctx, "PutObject", S3Request{Key: key, Body: bytes.NewReader(large), Header: http.Header{
				"X-Amz-Server-Side-Encryption": {"aws:kms"}, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": {"alias/x"},
			}})
			return err
		},
		func(ctx context.Context) error {
			_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("b-1"), Key: &key, Body: bytes.NewReader(large), ServerSideEncryption: "aws:kms", SSEKMSKeyId: aws.String("alias/x")})
			return err
		},
	}
	part := call{
		func(ctx context.Context) error {
			tag, err := bucket.Put(ctx, "UploadPart", S3Request{Key: key, Query: url.Values{"uploadId": {"u+1"}, "partNumber": {"2"}}, Body: io.NewSectionReader(bytes.NewReader(large), 5, 9)})
			if err == nil && tag != `"tag"` {
				err = errors.New(tag)
			}
			return err
		},
		func(ctx context.Context) error {
			_, err := client.UploadPart(ctx, &s3.UploadPartInput{Bucket: aws.String("b-1"), Key: &key, UploadId: aws.String("u+1"), PartNumber: aws.Int32(2), Body: io.NewSectionReader(bytes.NewReader(large), 5, 9)})
			return err
		},
	}
	get := call{
		func(ctx context.Context) error {
			text, err := bucket.Get(ctx, key, 100)
			if err == nil && string(text) != "<Error><Code>a text</Code></Error>" {
				err = errors.New(string(text))
			}
			return err
		},
		func(ctx context.Context) error {
			out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String("b-1"), Key: &key})
			if err == nil {
				out.Body.Close()
			}
			return err
		},
	}
	head := call{
		func(ctx context.Context) error {
			return bucket.Do(ctx, "HeadBucket", S3Request{Method: http.MethodHead}, nil)
		},
		func(ctx context.Context) error {
			_, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: aws.String("b-1")})
			return err
		},
	}
	begin := call{
		func(ctx context.Context) error {
			var out struct{ UploadId string }
			err := bucket.Do(ctx, "CreateMultipartUpload", S3Request{Method: http.MethodPost, Key: key, Query: url.Values{"uploads": {""}}}, &out)
			if err == nil && out.UploadId != "u+1" {
				err = errors.New(out.UploadId)
			}
			return err
		},
		func(ctx context.Context) error {
			_, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: aws.String("b-1"), Key: &key})
			return err
		},
	}
	says := func(status int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("ETag", `"tag"`)
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	for name, with := range map[string]struct {
		call
		answer func(http.ResponseWriter)
	}{
		"an object":           {put, says(200, "")},
		"a refused object":    {put, says(403, "<Error><Code>AccessDenied</Code><Message>said</Message></Error>")},
		"a part":              {part, says(200, "")},
		"an upload":           {begin, says(200, "<InitiateMultipartUploadResult><UploadId>u+1</UploadId></InitiateMultipartUploadResult>")},
		"an upload that ends": {begin, says(200, "<Error><Code>InternalError</Code><Message>said</Message></Error>")},
		"a document":          {get, says(200, "<Error><Code>a text</Code></Error>")},
		"no such document":    {get, says(404, "<Error><Code>NoSuchKey</Code><Message>said</Message></Error>")},
		"a page":              {get, says(400, "<html>no</html>")},
		"a bucket":            {head, says(200, "")},
		"no bucket":           {head, says(404, "")},
		"another's bucket":    {head, says(403, "")},
	} {
		t.Run(name, func(t *testing.T) {
			c.answer, c.sent = with.answer, nil
			want := outcome(with.sdk(t.Context()))
			first := c.sent
			c.sent = nil
			got := outcome(with.here(t.Context()))
			if diff := cmp.Diff(first, c.sent); diff != "" {
				t.Errorf("requests (-SDK +here):\n%s", diff)
			}
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// outcome is an error of a call, of the SDK's client or of bake's, as its code.
func outcome(err error) string {
	if err == nil {
		return ""
	}
	if Code(err) == "" {
		err = explain(err, 1)
	}
	var e *Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	return fmt.Sprint(e.status, " ", e.Code)
}

// TestS3Limit: what is larger than it may be is not called cut off, nor asked for again.
func TestS3Limit(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) { fmt.Fprint(w, "four") }
	text, err := s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 4)
	if err != nil || string(text) != "four" {
		t.Errorf("%q, %v", text, err)
	}
	c.sent = nil
	_, err = s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 3)
	if err == nil || !strings.Contains(err.Error(), "larger than the limit") || len(c.sent) != 1 {
		t.Errorf("%v after %d requests", err, len(c.sent))
	}
}

// TestMaxRetries: max_retries says how often a call is sent that no client of the SDK makes.
func TestMaxRetries(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	if err := s.IAM().Do(t.Context(), "GetRole", nil, nil); err == nil || len(c.sent) != 2 {
		t.Errorf("%d requests: %v", len(c.sent), err)
	}
}
