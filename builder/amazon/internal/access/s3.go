package access

import (
	"cmp"
	"context"
	"encoding/xml"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"

	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/encoding/httpbinding"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// S3 makes calls of S3 about one bucket.
type S3 struct {
	service
	bucket string
}

// S3 makes calls of S3 in a region, about a bucket.
func (s *Session) S3(region, bucket string) *S3 {
	return &S3{service{session: s, region: region, name: "s3", sdkID: "S3", bucket: true}, bucket}
}

// S3Request is what is sent to S3.
type S3Request struct {
	Method string
	Key    string // of the object; empty: it is about the bucket
	Query  url.Values
	Header http.Header
	Body   io.ReadSeeker // nil: there is none
}

// Do makes one call, which permissions name action, and decodes its answer into out as
// [encoding/xml] does; nil: it does not matter. Its errors are those of [Call].
func (b *S3) Do(ctx context.Context, action string, r S3Request, out any) error {
	return b.do(ctx, action, r, &s3Call{out: out})
}

// Put makes a call that stores an object or a part of one, and returns its entity tag.
func (b *S3) Put(ctx context.Context, action string, r S3Request) (tag string, err error) {
	r.Method = http.MethodPut
	c := &s3Call{}
	err = b.do(ctx, action, r, c)
	return c.header.Get("ETag"), err
}

// Get returns an object of at most limit bytes.
func (b *S3) Get(ctx context.Context, key string, limit int64) (text []byte, err error) {
	limited := *b
	limited.limit = limit
	err = limited.do(ctx, "GetObject", S3Request{Method: http.MethodGet, Key: key}, &s3Call{text: &text})
	return text, err
}

func (b *S3) do(ctx context.Context, action string, r S3Request, c *s3Call) error {
	given, err := b.given(ctx)
	if err != nil {
		return err
	}
	// One that stands in for AWS has no host names of buckets.
	c.bucket, c.inPath = b.bucket, given != "" || !hostLabel().MatchString(b.bucket)
	_, err = Call(ctx, operation[S3Request](&b.service, action, c), &r)
	return err
}

// hostLabel fits a bucket that has a host of its own, for which the certificate of S3 is good.
var hostLabel = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`) })

// s3Call is a call of S3, whose protocol is HTTP and XML.
type s3Call struct {
	bucket string
	inPath bool // it is named in the path
	out    any
	text   *[]byte // what takes the answer as it is, instead of out
	header http.Header
}

// largeBody is the size from which S3 is asked whether it wants a body before it is sent, as
// the SDK's client does.
const largeBody = 2 << 20

// encode implements [protocol].
func (c *s3Call) encode(req *smithyhttp.Request, _ string, params any) (io.ReadSeeker, error) {
	r := params.(*S3Request)
	req.Method = r.Method
	path := strings.TrimSuffix(req.URL.Path, "/") + "/"
	if c.inPath {
		path += strings.TrimSuffix(c.bucket+"/"+r.Key, "/")
	} else {
		req.URL.Host, path = c.bucket+"."+req.URL.Host, path+r.Key
	}
	req.URL.Path, req.URL.RawPath = path, httpbinding.EscapePath(path, false)
	req.URL.RawQuery = r.Query.Encode()
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if r.Body == nil {
		return strings.NewReader(""), nil
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	size, err := r.Body.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = r.Body.Seek(0, io.SeekStart)
	}
	if size >= largeBody {
		req.Header.Set("Expect", "100-continue")
	}
	return r.Body, err
}

// decode implements [protocol].
func (c *s3Call) decode(_ string, resp *smithyhttp.Response, text []byte) error {
	var root struct {
		XMLName       xml.Name
		Code, Message string
	}
	failed := resp.StatusCode/100 != 2
	if failed || c.text == nil && len(text) > 0 {
		_ = xml.Unmarshal(text, &root) // an answer that is none is an error below
	}
	switch {
	case !failed && root.XMLName.Local == "Error": // found out after the answer had begun
		resp.StatusCode = http.StatusInternalServerError
		return &smithy.GenericAPIError{Code: cmp.Or(root.Code, noCode), Message: root.Message}
	case failed: // the answer to a HEAD, for example, has no text
		status := strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", "")
		return &smithy.GenericAPIError{Code: cmp.Or(root.Code, status, noCode), Message: cmp.Or(root.Message, status)}
	}
	c.header = resp.Header
	if c.text != nil {
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
