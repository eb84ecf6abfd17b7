package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go/middleware"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
)

// recorder is an HTTP client that records requests and always returns the same response.
type recorder struct {
	sent   []recorded
	answer func(http.ResponseWriter)
}

type recorded struct {
	Method, URL, Body string
	Length            int64
	Header            http.Header
}

// Do implements [aws.HTTPClient].
func (c *recorder) Do(r *http.Request) (*http.Response, error) {
	one := recorded{Method: r.Method, URL: r.URL.String(), Length: r.ContentLength, Header: r.Header.Clone()}
	one.Header.Del("User-Agent")
	if len(c.sent) > 0 { // the delay before the next attempt is random
		one.Header.Del("X-Amz-Date")
		one.Header.Del("Authorization")
	}
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if len(body) > 1000 {
			body = fmt.Append(nil, len(body), " bytes")
		}
		one.Body = string(body)
	}
	c.sent = append(c.sent, one)
	w := httptest.NewRecorder()
	c.answer(w)
	return w.Result(), nil
}

// calls returns the requests of a call, made at a fixed time.
func (c *recorder) calls(t *testing.T, call func(context.Context) error) ([]recorded, error) {
	c.sent = nil
	var err error
	synctest.Test(t, func(t *testing.T) { err = call(t.Context()) })
	return c.sent, err
}

// comparable removes from requests what is random, and redundant parts that only the SDK's client
// sends.
func comparable(stack *middleware.Stack) error {
	if _, err := stack.Build.Remove("ClientRequestID"); err != nil {
		return err
	}
	if digest := (&v4.ComputePayloadSHA256{}); slices.Contains(stack.Finalize.List(), digest.ID()) { // it does not sign bodies over TLS
		if _, err := stack.Finalize.Swap(digest.ID(), digest); err != nil {
			return err
		}
	}
	return stack.Build.Add(middleware.BuildMiddlewareFunc("comparable", func(ctx context.Context, in middleware.BuildInput, next middleware.BuildHandler) (middleware.BuildOutput, middleware.Metadata, error) {
		if req, ok := in.Request.(*smithyhttp.Request); ok {
			q := req.URL.Query()
			q.Del("x-id")
			req.URL.RawQuery = q.Encode()
		}
		return next.HandleBuild(ctx, in)
	}), middleware.After)
}

// s3Session is a session with AWS whose requests are recorded.
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
	s.config.APIOptions = append(s.config.APIOptions, comparable)
	return s, s3.NewFromConfig(s.config), c
}

// TestS3Endpoints: the hosts of buckets are those that the SDK's client uses.
func TestS3Endpoints(t *testing.T) {
	compared := 0
	for _, region := range someRegions() {
		for n := range 4 {
			t.Setenv("AWS_USE_DUALSTACK_ENDPOINT", fmt.Sprint(n&1 != 0))
			t.Setenv("AWS_USE_FIPS_ENDPOINT", fmt.Sprint(n&2 != 0))
			s, client, c := s3Session(t, region)
			for _, bucket := range []string{"acme-images", "acme.images", "Acme_Old"} {
				want, err := c.calls(t, func(ctx context.Context) error {
					_, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &bucket})
					return err
				})
				if len(want) == 0 {
					t.Logf("%s, dual stack %t, FIPS %t: the SDK has no endpoint: %v", region, n&1 != 0, n&2 != 0, err)
					continue
				}
				got, err := c.calls(t, func(ctx context.Context) error {
					return s.S3(region, bucket).Do(ctx, "HeadBucket", S3Request{Method: http.MethodHead, OfBucket: true}, nil)
				})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
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

// s3Pair is a call, and the equivalent call of the SDK's client.
type s3Pair struct{ here, sdk func(context.Context) error }

// s3Pairs are all calls of S3, by their names in the API. The SDK's client is configured to use
// the same checksums, which are not its default.
func s3Pairs(bucket *S3, client *s3.Client, key string, sums bool) map[string]s3Pair {
	name, large := aws.String("b-1"), bytes.Repeat([]byte{7}, 3<<20)
	sum := func(text []byte) *string {
		if !sums {
			return nil
		}
		digest := sha256.Sum256(text)
		return aws.String(base64.StdEncoding.EncodeToString(digest[:]))
	}
	do := func(action string, r S3Request, out any) func(context.Context) error {
		return func(ctx context.Context) error { return bucket.Do(ctx, action, r, out) }
	}
	var begun struct {
		ID string `xml:"UploadId"`
	}
	begin := s3.CreateMultipartUploadInput{Bucket: name, Key: &key}
	completed := types.CompletedPart{ETag: aws.String("tag"), PartNumber: aws.Int32(2), ChecksumSHA256: sum(nil)}
	document := `<CompleteMultipartUpload xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Part><ETag>tag</ETag><PartNumber>2</PartNumber></Part></CompleteMultipartUpload>`
	if sums {
		begin.ChecksumAlgorithm = types.ChecksumAlgorithmSha256
		document = strings.Replace(document, "<ETag>", "<ChecksumSHA256>"+*sum(nil)+"</ChecksumSHA256><ETag>", 1)
	}
	return map[string]s3Pair{
		"PutObject": {func(ctx context.Context) error {
			_, err := bucket.Put(ctx, "PutObject", S3Request{Key: key, Body: bytes.NewReader(large), Header: http.Header{
				"X-Amz-Server-Side-Encryption": {"aws:kms"}, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id": {"alias/x"},
			}})
			return err
		}, func(ctx context.Context) error {
			_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: name, Key: &key, Body: bytes.NewReader(large), ChecksumSHA256: sum(large), ServerSideEncryption: "aws:kms", SSEKMSKeyId: aws.String("alias/x")})
			return err
		}},
		"UploadPart": {func(ctx context.Context) error {
			stored, err := bucket.Put(ctx, "UploadPart", S3Request{Key: key, Query: url.Values{"uploadId": {"u+1"}, "partNumber": {"2"}}, Body: io.NewSectionReader(bytes.NewReader(large), 5, 9)})
			if want := (Stored{`"tag"`, aws.ToString(sum(large[5:14]))}); err == nil && stored != want {
				err = fmt.Errorf("stored %q, want %q", stored, want)
			}
			return err
		}, func(ctx context.Context) error {
			_, err := client.UploadPart(ctx, &s3.UploadPartInput{Bucket: name, Key: &key, UploadId: aws.String("u+1"), PartNumber: aws.Int32(2), ChecksumSHA256: sum(large[5:14]), Body: io.NewSectionReader(bytes.NewReader(large), 5, 9)})
			return err
		}},
		"GetObject": {func(ctx context.Context) error {
			text, err := bucket.Get(ctx, key, 100)
			if err == nil && string(text) != "<Error><Code>a text</Code></Error>" {
				err = errors.New(string(text))
			}
			return err
		}, func(ctx context.Context) error {
			out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: name, Key: &key})
			if err == nil {
				out.Body.Close()
			}
			return err
		}},
		"HeadBucket": {do("HeadBucket", S3Request{Method: http.MethodHead, OfBucket: true}, nil), func(ctx context.Context) error {
			_, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: name})
			return err
		}},
		"CreateMultipartUpload": {func(ctx context.Context) error {
			err := bucket.Do(ctx, "CreateMultipartUpload", S3Request{Method: http.MethodPost, Key: key, Query: url.Values{"uploads": {""}}}, &begun)
			if err == nil && begun.ID != "u+1" {
				err = errors.New(begun.ID)
			}
			return err
		}, func(ctx context.Context) error {
			_, err := client.CreateMultipartUpload(ctx, &begin)
			return err
		}},
		"CompleteMultipartUpload": {do("CompleteMultipartUpload", S3Request{
			Method: http.MethodPost, Key: key, Query: url.Values{"uploadId": {"u+1"}},
			Header: http.Header{"Content-Type": {"application/xml"}}, Body: strings.NewReader(document),
		}, &struct {
			XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
		}{}), func(ctx context.Context) error {
			_, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: name, Key: &key, UploadId: aws.String("u+1"), MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{completed}}})
			return err
		}},
		"ListMultipartUploads": {do("ListMultipartUploads", S3Request{
			Method: http.MethodGet, OfBucket: true, Query: url.Values{"uploads": {""}, "prefix": {key}},
		}, &struct {
			XMLName xml.Name `xml:"ListMultipartUploadsResult"`
		}{}), func(ctx context.Context) error {
			_, err := client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: name, Prefix: &key})
			return err
		}},
		"AbortMultipartUpload": {do("AbortMultipartUpload", S3Request{Method: http.MethodDelete, Key: key, Query: url.Values{"uploadId": {"u+1"}}}, nil), func(ctx context.Context) error {
			_, err := client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: name, Key: &key, UploadId: aws.String("u+1")})
			return err
		}},
		"DeleteObject": {do("DeleteObject", S3Request{Method: http.MethodDelete, Key: key}, nil), func(ctx context.Context) error {
			_, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: name, Key: &key})
			return err
		}},
	}
}

// compareS3 makes a call here and with the SDK's client, and compares the signed requests and the
// errors.
func compareS3(t *testing.T, c *recorder, pair s3Pair, status int, body string) {
	t.Helper()
	c.answer = func(w http.ResponseWriter) {
		w.Header().Set("ETag", `"tag"`)
		w.WriteHeader(status)
		fmt.Fprint(w, body)
	}
	first, err := c.calls(t, pair.sdk)
	want := outcome(err)
	second, err := c.calls(t, pair.here)
	if diff := cmp.Diff(first, second); diff != "" || len(first) == 0 {
		t.Errorf("%d requests (-SDK +here):\n%s", len(first), diff)
	}
	if got := outcome(err); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// s3Answers are responses of S3 to successful calls.
var s3Answers = map[string]string{
	"GetObject":               "<Error><Code>a text</Code></Error>",
	"CreateMultipartUpload":   "<InitiateMultipartUploadResult><UploadId>u+1</UploadId></InitiateMultipartUploadResult>",
	"CompleteMultipartUpload": "<CompleteMultipartUploadResult/>",
	"ListMultipartUploads":    "<ListMultipartUploadsResult/>",
}

// TestS3Requests: requests and signatures are the same as those of the SDK's client.
func TestS3Requests(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"AWS":                    {},
		"a token of the session": {"AWS_SESSION_TOKEN": "t/1+="},
		"a given endpoint":       {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000"},
		"one with a path":        {"AWS_ENDPOINT_URL_S3": "https://s3.example.com/tenant"},
		"no checksums":           {"AWS_REQUEST_CHECKSUM_CALCULATION": "when_required", "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required"},
	} {
		for _, key := range []string{"a b/é+%.raw", "k//d/"} {
			t.Run(name+", "+key, func(t *testing.T) {
				for variable, value := range env {
					t.Setenv(variable, value)
				}
				s, client, c := s3Session(t, "eu-west-1")
				if env["AWS_ENDPOINT_URL_S3"] != "" {
					client = s3.NewFromConfig(s.config, func(o *s3.Options) { o.UsePathStyle = true })
				}
				for action, pair := range s3Pairs(s.S3("eu-west-1", "b-1"), client, key, name != "no checksums") {
					t.Run(action, func(t *testing.T) { compareS3(t, c, pair, 200, s3Answers[action]) })
				}
			})
		}
	}
}

// TestS3Errors: errors of S3 are reported as by the SDK's client.
func TestS3Errors(t *testing.T) {
	s, client, c := s3Session(t, "eu-west-1")
	pairs := s3Pairs(s.S3("eu-west-1", "b-1"), client, "k", true)
	for name, with := range map[string]struct {
		action string
		status int
		body   string
	}{
		"a refused object":             {"PutObject", 403, "<Error><Code>AccessDenied</Code><Message>said</Message></Error>"},
		"an upload that ends":          {"CreateMultipartUpload", 200, "<Error><Code>InternalError</Code><Message>said</Message></Error>"},
		"one that ends when completed": {"CompleteMultipartUpload", 200, "<Error><Code>InternalError</Code><Message>said</Message></Error>"},
		"no such upload":               {"AbortMultipartUpload", 404, "<Error><Code>NoSuchUpload</Code><Message>said</Message></Error>"},
		"no such document":             {"GetObject", 404, "<Error><Code>NoSuchKey</Code><Message>said</Message></Error>"},
		"a page":                       {"GetObject", 400, "<html>no</html>"},
		"no bucket":                    {"HeadBucket", 404, ""},
		"another's bucket":             {"HeadBucket", 403, ""},
	} {
		t.Run(name, func(t *testing.T) { compareS3(t, c, pairs[with.action], with.status, with.body) })
	}
}

// TestS3Permissions: the error of a refused call contains the name of the permission in IAM, even
// if the call has a different name.
func TestS3Permissions(t *testing.T) {
	s, client, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, "<Error><Code>AccessDenied</Code><Message>said</Message></Error>")
	}
	pairs := s3Pairs(s.S3("eu-west-1", "b-1"), client, "k", true)
	for action, want := range map[string]string{
		"HeadBucket": "s3:ListBucket", "ListMultipartUploads": "s3:ListBucketMultipartUploads", "CreateMultipartUpload": "s3:PutObject", "UploadPart": "s3:PutObject",
		"CompleteMultipartUpload": "s3:PutObject", "PutObject": "s3:PutObject", "AbortMultipartUpload": "s3:AbortMultipartUpload", "GetObject": "s3:GetObject", "DeleteObject": "s3:DeleteObject",
	} {
		if err := pairs[action].here(t.Context()); err == nil || !strings.Contains(err.Error(), "lack the permission "+want+";") {
			t.Errorf("%s: %v; want %s", action, err, want)
		}
	}
}

// TestS3Unsent: arguments that would result in a different call, or a different host, are errors,
// and nothing is sent.
func TestS3Unsent(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	object := S3Request{Method: http.MethodDelete, Key: "k"}
	for name, test := range map[string]struct {
		region, bucket string
		r              S3Request
		want           string
	}{
		"no key":             {"eu-west-1", "b-1", S3Request{Method: http.MethodDelete}, `the key of an object in bucket b-1 is ""`},
		"a key of a bucket":  {"eu-west-1", "b-1", S3Request{Method: http.MethodDelete, OfBucket: true, Key: "k"}, "key"},
		"no bucket":          {"eu-west-1", "", object, `"" is not the name of a bucket`},
		"a bucket and a key": {"eu-west-1", "b-1/k", object, `"b-1/k" is not the name of a bucket`},
		"a directory bucket": {"eu-west-1", "b-1--use1-az4--x-s3", object, "is a directory bucket"},
		"no region":          {"x.evil.example/", "b-1", object, `"x.evil.example/" is not the name of a region`},
	} {
		err := s.S3(test.region, test.bucket).Do(t.Context(), "DeleteObject", test.r, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) || len(c.sent) > 0 {
			t.Errorf("%s: %v after %d requests; want %q", name, err, len(c.sent), test.want)
		}
	}
	if err := s.SSM("x.evil.example/").Do(t.Context(), "GetParameter", nil, nil); err == nil || len(c.sent) > 0 {
		t.Errorf("another service: %v after %d requests", err, len(c.sent))
	}
}

// TestS3Checksums: a response that does not match its checksum is an error, as with the SDK's
// client.
func TestS3Checksums(t *testing.T) {
	s, client, c := s3Session(t, "eu-west-1")
	const text = "123456789" // these are the checksums in catalogues
	for name, sum := range map[string]string{
		"Crc32": "cbf43926", "Crc32c": "e3069283", "Crc64nvme": "ae8b14860a799888", "Sha1": "f7c3bc1d808e04732adf679965ccc34ca7ae3441",
		"Sha256": "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
	} {
		digest, err := hex.DecodeString(sum)
		if err != nil {
			t.Fatal(err)
		}
		good := base64.StdEncoding.EncodeToString(digest)
		digest[0]++
		bad := base64.StdEncoding.EncodeToString(digest)
		for value, want := range map[string]bool{good: true, bad: false, bad + "-2": true} {
			c.answer = func(w http.ResponseWriter) {
				w.Header().Set("X-Amz-Checksum-"+name, value)
				fmt.Fprint(w, text)
			}
			out, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("b-1"), Key: aws.String("k")})
			if err != nil {
				t.Fatal(err)
			}
			_, sdk := io.ReadAll(out.Body)
			got, err := s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 100)
			if (sdk == nil) != want || (err == nil) != want || want && string(got) != text {
				t.Errorf("%s %s: %q, %v; the SDK says %v, want %t", name, value, got, err, sdk, want)
			}
		}
	}
}

// counted counts the bytes that are read from it.
type counted struct {
	*bytes.Reader
	read int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.read += n
	return n, err
}

// WriteTo hides that of the reader, which would not be counted.
func (c *counted) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{c})
}

// TestS3Body: the body is read once for its digest, and not again for each attempt.
func TestS3Body(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	body := &counted{Reader: bytes.NewReader(make([]byte, 1000))}
	sent, err := c.calls(t, func(ctx context.Context) error {
		_, err := s.S3("eu-west-1", "b-1").Put(ctx, "PutObject", S3Request{Key: "k", Body: body})
		return err
	})
	if err == nil || len(sent) != 2 || body.read != 3000 {
		t.Errorf("%d bytes were read for %d requests: %v", body.read, len(sent), err)
	}
}

// TestS3Empty: the error for an empty response names the service.
func TestS3Empty(t *testing.T) {
	s, client, c := s3Session(t, "eu-west-1")
	pair := s3Pairs(s.S3("eu-west-1", "b-1"), client, "k", true)["ListMultipartUploads"]
	if _, err := c.calls(t, pair.here); err == nil || !strings.Contains(err.Error(), "that the endpoint serves s3") {
		t.Error(err)
	}
}

// outcome returns the error code of a call of the SDK's client or of bake's.
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

// TestS3Limit: an object that exceeds the limit is not reported as truncated, and not requested
// again.
func TestS3Limit(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) { fmt.Fprint(w, "four") }
	text, err := s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 4)
	if err != nil || string(text) != "four" {
		t.Errorf("%q, %v", text, err)
	}
	c.sent = nil
	_, err = s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 3)
	if err == nil || !strings.Contains(err.Error(), "larger than the limit of 3 bytes") || len(c.sent) != 1 {
		t.Errorf("%v after %d requests", err, len(c.sent))
	}
	if _, err = s.S3("eu-west-1", "b-1").Get(t.Context(), "k", 0); err == nil {
		t.Error("an object of at most no bytes has four")
	}
}

// TestMaxRetries: max_retries also applies to calls that are not made by a client of the SDK.
func TestMaxRetries(t *testing.T) {
	s, _, c := s3Session(t, "eu-west-1")
	c.answer = func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }
	if err := s.IAM().Do(t.Context(), "GetRole", nil, nil); err == nil || len(c.sent) != 2 {
		t.Errorf("%d requests: %v", len(c.sent), err)
	}
}
