// Package bucket keeps documents in a bucket of S3.
package bucket

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/builder/amazon/internal/access"
	"bake/internal/s3uri"
)

// Bucket is a place in a bucket: everything is below its prefix.
type Bucket struct {
	client       *s3.Client
	name, prefix string
}

// Open opens the place that a URI names, as s3uri has it. It is an error if there is no such
// bucket.
func Open(ctx context.Context, session *access.Session, uri string) (*Bucket, error) {
	name, prefix, err := s3uri.Parse(uri)
	if err != nil {
		return nil, err
	}
	b := &Bucket{session.S3(session.Region), name, prefix}
	_, err = access.Call(ctx, b.client.HeadBucket, &s3.HeadBucketInput{Bucket: &name})
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok {
		return b, err
	}
	// Where a bucket is, everybody is told: also who may not list it, and who signed for
	// another region, which is a bad request or a redirect.
	at := answer.Response.Header.Get("X-Amz-Bucket-Region")
	switch status := answer.HTTPStatusCode(); {
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("there is no bucket %s", name)
	case status == http.StatusForbidden, status == http.StatusMovedPermanently, status == http.StatusBadRequest && at != "":
		if at != "" { // who may not list it may still write
			b.client = session.S3(at)
		}
		return b, nil
	}
	return nil, err
}

// String is the URI.
func (b *Bucket) String() string { return strings.TrimSuffix(s3uri.Scheme+b.name+"/"+b.prefix, "/") }

func (b *Bucket) key(name string) string { return strings.TrimPrefix(b.prefix+"/"+name, "/") }

// Put stores a document under a name. It is there as a whole, or not at all.
func (b *Bucket) Put(ctx context.Context, name string, text []byte) error {
	_, err := access.Call(ctx, b.client.PutObject, &s3.PutObjectInput{Bucket: &b.name, Key: aws.String(b.key(name)), Body: bytes.NewReader(text)})
	if err != nil {
		return fmt.Errorf("writing %s%s/%s: %w", s3uri.Scheme, b.name, b.key(name), err)
	}
	return nil
}

// Get returns the document with a name, of at most limit bytes. One that is not there is an
// [fs.ErrNotExist].
func (b *Bucket) Get(ctx context.Context, name string, limit int64) (text []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("reading %s%s/%s: %w", s3uri.Scheme, b.name, b.key(name), err)
		}
	}()
	out, err := access.Call(ctx, b.client.GetObject, &s3.GetObjectInput{Bucket: &b.name, Key: aws.String(b.key(name))})
	if access.Is(err, "NoSuchKey") {
		return nil, fs.ErrNotExist
	} else if err != nil {
		return nil, err
	}
	defer out.Body.Close()
	text, err = io.ReadAll(io.LimitReader(out.Body, limit+1))
	switch {
	case err != nil:
		return nil, cmp.Or(context.Cause(ctx), err)
	case int64(len(text)) > limit:
		return nil, fmt.Errorf("it is larger than the limit of %d MB", limit>>20)
	}
	return text, nil
}
