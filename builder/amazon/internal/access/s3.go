package access

import (
	"cmp"
	"context"
	"crypto/sha1" // one of the checksums that S3 may have
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/internal/s3uri"
)

// S3 makes calls of S3 about one bucket and its objects.
type S3 struct {
	service
	bucket string
}

// S3 returns a client for a bucket in a region. Each call returns an error if the name is
// not that of a general purpose bucket.
func (s *Session) S3(region, bucket string) *S3 {
	return &S3{service{session: s, region: region, name: "s3", sdkID: "S3", s3: true}, bucket}
}

// S3Request is a request to S3.
type S3Request struct {
	Method   string
	OfBucket bool   // the call concerns the bucket, and has no key
	Key      string // of the object
	Query    url.Values
	Header   http.Header
	Body     io.ReadSeeker // nil: there is none
}

// Do makes one call of the operation action, and decodes its response into out as
// [encoding/xml] does. If out is nil, it ignores the response. Its errors are those of
// [Call]. It sends nothing if the bucket or the key is invalid.
func (b *S3) Do(ctx context.Context, action string, r S3Request, out any) error {
	return b.do(ctx, action, r, &s3Call{out: out})
}

// Stored describes an object, or a part of one, that S3 has stored.
type Stored struct {
	ETag   string
	SHA256 string // in base64, as sent; empty if no checksum is sent
}

// Put makes a call that stores an object or a part of one, with a checksum that S3
// verifies. Buckets with a default retention require it.
func (b *S3) Put(ctx context.Context, action string, r S3Request) (Stored, error) {
	r.Method = http.MethodPut
	c := &s3Call{}
	err := b.do(ctx, action, r, c)
	return Stored{c.header.Get("ETag"), c.sum}, err
}

// Get returns an object of at most limit bytes. If S3 has a checksum of the whole object,
// Get verifies it.
func (b *S3) Get(ctx context.Context, key string, limit int64) (text []byte, err error) {
	limited := *b
	limited.limit = &limit
	err = limited.do(ctx, "GetObject", S3Request{Method: http.MethodGet, Key: key}, &s3Call{text: &text})
	return text, err
}

func (b *S3) do(ctx context.Context, action string, r S3Request, c *s3Call) error {
	if err := s3uri.CheckBucket(b.bucket); err != nil {
		return unsent{fmt.Errorf("%s: %w", action, err)}
	}
	if r.OfBucket != (r.Key == "") { // without a key it would be a different call, on the bucket
		return unsent{fmt.Errorf("%s: the key of an object in bucket %s is %q", action, b.bucket, r.Key)}
	}
	given, err := b.given(ctx)
	if err != nil {
		return err
	}
	// An endpoint that replaces AWS has no host names for buckets.
	c.bucket, c.inPath = b.bucket, given != "" || !hostLabel.Get().MatchString(b.bucket)
	// Some endpoints do not support checksums and refuse them.
	c.send = b.session.config.RequestChecksumCalculation != aws.RequestChecksumCalculationWhenRequired
	c.verify = b.session.config.ResponseChecksumValidation != aws.ResponseChecksumValidationWhenRequired
	_, err = Call(ctx, operation[S3Request](&b.service, action, c), &r)
	return err
}

// s3Call is a call of S3, whose protocol is HTTP and XML.
type s3Call struct {
	bucket string
	inPath bool // it is named in the path
	send   bool // send S3 a checksum of the object
	verify bool // request the checksum of the object from S3
	sum    string
	out    any
	text   *[]byte // receives the response unchanged, instead of out
	header http.Header
}

// largeBody is the size from which the client waits for S3 to accept a body before sending
// it (Expect: 100-continue), as the SDK's client does.
const largeBody = 2 << 20

// encode implements [protocol].
func (c *s3Call) encode(req *smithyhttp.Request, action string, params any) (io.ReadSeeker, error) {
	r := params.(*S3Request)
	req.Method = r.Method
	path := strings.TrimSuffix(req.URL.Path, "/") + "/"
	switch {
	case !c.inPath:
		req.URL.Host, path = c.bucket+"."+req.URL.Host, path+r.Key
	case r.OfBucket:
		path += c.bucket
	default:
		path += c.bucket + "/" + r.Key
	}
	req.URL.Path, req.URL.RawPath = path, httpbinding.EscapePath(path, false)
	req.URL.RawQuery = r.Query.Encode()
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("Accept-Encoding", "identity") // the object as stored, not decompressed
	body := r.Body
	if body == nil {
		body = strings.NewReader("")
	} else if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	sum := sha256.New()
	_, err := body.Seek(0, io.SeekStart)
	if err != nil {
		return nil, err
	}
	size, err := io.Copy(sum, body)
	if err != nil {
		return nil, err
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	if size >= largeBody {
		req.Header.Set("Expect", "100-continue")
	}
	digest := sum.Sum(nil)
	req.Header.Set(bodyDigest, hex.EncodeToString(digest))
	switch {
	case c.send && r.Method == http.MethodPut:
		c.sum = base64.StdEncoding.EncodeToString(digest)
		req.Header.Set("X-Amz-Checksum-Sha256", c.sum)
	case c.send && action == "CreateMultipartUpload":
		req.Header.Set("X-Amz-Checksum-Algorithm", "SHA256")
	case c.verify && action == "GetObject":
		req.Header.Set("X-Amz-Checksum-Mode", "ENABLED")
	}
	return body, nil
}

// decode implements [protocol].
func (c *s3Call) decode(_ string, resp *smithyhttp.Response, text []byte) error {
	var root struct {
		XMLName       xml.Name
		Code, Message string
	}
	failed := resp.StatusCode/100 != 2
	if failed || c.text == nil && len(text) > 0 {
		_ = xml.Unmarshal(text, &root) // an invalid response is an error below
	}
	switch {
	case !failed && root.XMLName.Local == "Error": // the error occurred after the response had begun
		resp.StatusCode = http.StatusInternalServerError
		return &smithy.GenericAPIError{Code: cmp.Or(root.Code, noCode), Message: root.Message}
	case failed: // the response to HEAD, for example, has no body
		status := strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
		return &smithy.GenericAPIError{Code: cmp.Or(root.Code, status, noCode), Message: cmp.Or(root.Message, status)}
	}
	c.header = resp.Header
	if c.text != nil {
		if c.verify {
			if err := checkSum(resp.Header, text); err != nil {
				return &smithy.DeserializationError{Err: err}
			}
		}
		*c.text = text
	}
	if c.out == nil {
		return nil
	}
	if err := xml.Unmarshal(text, c.out); err != nil {
		return &smithy.DeserializationError{Err: err}
	}
	return nil
}

// checkSum compares an object with the checksums of the whole object in its headers. For an
// object that was stored in parts, a checksum may be that of the parts' checksums; such a
// checksum ends in the number of parts.
func checkSum(h http.Header, text []byte) error {
	for name, sum := range map[string]func() hash.Hash{
		"Sha256":    sha256.New,
		"Sha1":      sha1.New,
		"Crc32":     func() hash.Hash { return crc32.NewIEEE() },
		"Crc32c":    func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) },
		"Crc64nvme": func() hash.Hash { return crc64.New(crc64.MakeTable(0x9a6c9329ac4bc9b5)) },
	} {
		want := h.Get("X-Amz-Checksum-" + name)
		if want == "" || strings.Contains(want, "-") {
			continue
		}
		have := sum()
		have.Write(text)
		if got := base64.StdEncoding.EncodeToString(have.Sum(nil)); got != want {
			return fmt.Errorf("the checksum %s is %s, and not %s", name, got, want)
		}
	}
	return nil
}
