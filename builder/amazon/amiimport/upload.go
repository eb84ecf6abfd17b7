package amiimport

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"bake/builder/amazon/internal/access"
)

// An upload in parts has at most maxParts parts, of partSize or, for large files, larger
// ones. Several are sent concurrently.
const (
	maxParts = 10000
	partSize = 16 << 20
	atATime  = 4
)

// uploader puts one object into a bucket.
type uploader struct {
	bucket             *access.S3
	key                string
	encryption, kmsKey string
	progress           func(ctx context.Context, done int64)
}

// completed is the request that completes an upload in parts.
type completed struct {
	XMLName xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ CompleteMultipartUpload"`
	Part    []part
}

type part struct {
	SHA256     string `xml:"ChecksumSHA256,omitempty"`
	ETag       string
	PartNumber int
}

// upload sends a file: in one piece if it is small, or in parts. An interrupted upload
// leaves parts behind, which use storage until it is aborted.
func (u *uploader) upload(ctx context.Context, f io.ReaderAt, size int64) error {
	encryption := http.Header{}
	if u.encryption != "" {
		encryption.Set("X-Amz-Server-Side-Encryption", u.encryption)
	}
	if u.kmsKey != "" {
		encryption.Set("X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", u.kmsKey)
	}
	if size <= partSize {
		_, err := u.bucket.Put(ctx, "PutObject", access.S3Request{Key: u.key, Header: encryption, Body: io.NewSectionReader(f, 0, size)})
		return err
	}
	var begun struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		UploadID string   `xml:"UploadId"`
	}
	err := u.bucket.Do(ctx, "CreateMultipartUpload", access.S3Request{Method: http.MethodPost, Key: u.key, Query: url.Values{"uploads": {""}}, Header: encryption}, &begun)
	if err != nil {
		return err
	}
	if begun.UploadID == "" {
		return errors.New("CreateMultipartUpload: the answer names no upload")
	}
	return partly(u.rest(ctx, f, size, begun.UploadID))
}

// partly wraps the error of a call that follows calls that have made something: although
// this call was refused, resources may exist.
func partly(err error) error {
	e, ok := errors.AsType[*access.Error](err)
	if !ok {
		return err
	}
	some := *e
	some.Refused = false
	return &some
}

// rest sends the parts of an upload that was begun, and completes it.
func (u *uploader) rest(ctx context.Context, f io.ReaderAt, size int64, id string) error {
	each := max(partSize, (size+maxParts-1)/maxParts)
	parts := make([]part, (size+each-1)/each)
	var sent atomic.Int64
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(atATime)
	for i := range parts {
		g.Go(func() error {
			if limited.Err() != nil {
				return context.Cause(limited)
			}
			start := int64(i) * each
			length := min(each, size-start)
			stored, err := u.bucket.Put(limited, "UploadPart", access.S3Request{
				Key: u.key, Query: url.Values{"uploadId": {id}, "partNumber": {strconv.Itoa(i + 1)}}, Body: io.NewSectionReader(f, start, length),
			})
			if err != nil {
				return err
			}
			parts[i] = part{stored.SHA256, stored.ETag, i + 1}
			u.progress(limited, sent.Add(length))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	body, err := xml.Marshal(completed{Part: parts})
	if err != nil {
		return err
	}
	return u.bucket.Do(ctx, "CompleteMultipartUpload", access.S3Request{
		Method: http.MethodPost, Key: u.key, Query: url.Values{"uploadId": {id}},
		Header: http.Header{"Content-Type": {"application/xml"}}, Body: bytes.NewReader(body),
	}, &struct {
		XMLName xml.Name `xml:"CompleteMultipartUploadResult"`
	}{})
}
