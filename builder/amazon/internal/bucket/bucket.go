// Package bucket stores documents in an S3 bucket.
package bucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"strings"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"bake/builder/amazon/internal/access"
	"bake/internal/s3uri"
)

// Bucket is a location in a bucket. All its documents are below its prefix.
type Bucket struct {
	calls        *access.S3
	name, prefix string
}

// ErrNone means that there is no such bucket.
var ErrNone = errors.New("there is no bucket")

// Open opens the location with a URI in the syntax of package s3uri. The error is an
// [ErrNone] if there is no such bucket.
func Open(ctx context.Context, session *access.Session, uri string) (*Bucket, error) {
	name, prefix, err := s3uri.Parse(uri)
	if err != nil {
		return nil, err
	}
	b := &Bucket{session.S3(session.Region, name), name, prefix}
	err = b.calls.Do(ctx, "HeadBucket", access.S3Request{Method: http.MethodHead, OfBucket: true}, nil)
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	if !ok {
		return b, err
	}
	// S3 returns the region of a bucket even in errors: to a caller without permission to
	// list it, and to one that signed for another region, which gets a bad request or a
	// redirect.
	at := answer.Response.Header.Get("X-Amz-Bucket-Region")
	switch status := answer.HTTPStatusCode(); {
	case status == http.StatusNotFound:
		return nil, fmt.Errorf("%w %s", ErrNone, name)
	case status == http.StatusForbidden, status == http.StatusMovedPermanently, status == http.StatusBadRequest && at != "":
		if at != "" { // a caller without permission to list may still write
			b.calls = session.S3(at, name)
		}
		return b, nil
	}
	return nil, err
}

// String returns the URI.
func (b *Bucket) String() string { return strings.TrimSuffix(s3uri.Scheme+b.name+"/"+b.prefix, "/") }

func (b *Bucket) key(name string) string { return strings.TrimPrefix(b.prefix+"/"+name, "/") }

// Put stores a document under a name, completely or not at all.
func (b *Bucket) Put(ctx context.Context, name string, text []byte) error {
	_, err := b.calls.Put(ctx, "PutObject", access.S3Request{Key: b.key(name), Body: bytes.NewReader(text)})
	if err != nil {
		return fmt.Errorf("writing %s%s/%s: %w", s3uri.Scheme, b.name, b.key(name), err)
	}
	return nil
}

// Get returns the document with a name, of at most limit bytes. The error is an
// [fs.ErrNotExist] if there is no such document.
func (b *Bucket) Get(ctx context.Context, name string, limit int64) (text []byte, err error) {
	text, err = b.calls.Get(ctx, b.key(name), limit)
	if access.Is(err, "NoSuchKey") {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s%s/%s: %w", s3uri.Scheme, b.name, b.key(name), err)
	}
	return text, nil
}
