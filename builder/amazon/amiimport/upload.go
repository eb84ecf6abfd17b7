package amiimport

import (
	"context"
	"io"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"golang.org/x/sync/errgroup"

	"bake/builder/amazon/internal/access"
)

// An upload in parts has at most maxParts of them. They are of partSize, or
// larger where the file needs it; some go at a time.
const (
	maxParts = 10000
	partSize = 16 << 20
	atATime  = 4
)

// uploader puts one object into a bucket.
type uploader struct {
	client             *s3.Client
	bucket, key        string
	encryption, kmsKey string
	progress           func(ctx context.Context, done int64)
}

// upload sends a file of some size: in one piece if it is small, or in parts. An
// upload that ends early leaves parts behind, which take room until it is aborted.
func (u *uploader) upload(ctx context.Context, f io.ReaderAt, size int64) error {
	encryption, kmsKey := types.ServerSideEncryption(u.encryption), access.Optional(u.kmsKey)
	if size <= partSize {
		_, err := access.Call(ctx, u.client.PutObject, &s3.PutObjectInput{
			Bucket: &u.bucket, Key: &u.key, Body: io.NewSectionReader(f, 0, size), ServerSideEncryption: encryption, SSEKMSKeyId: kmsKey,
		})
		return err
	}
	begun, err := access.Call(ctx, u.client.CreateMultipartUpload, &s3.CreateMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, ServerSideEncryption: encryption, SSEKMSKeyId: kmsKey,
	})
	if err != nil {
		return err
	}
	each := max(partSize, (size+maxParts-1)/maxParts)
	parts := make([]types.CompletedPart, (size+each-1)/each)
	var sent atomic.Int64
	g, limited := errgroup.WithContext(ctx)
	g.SetLimit(atATime)
	for i := range parts {
		g.Go(func() error {
			if limited.Err() != nil {
				return context.Cause(limited)
			}
			number, start := int32(i+1), int64(i)*each
			length := min(each, size-start)
			out, err := access.Call(limited, u.client.UploadPart, &s3.UploadPartInput{
				Bucket: &u.bucket, Key: &u.key, UploadId: begun.UploadId, PartNumber: &number, Body: io.NewSectionReader(f, start, length),
			})
			if err != nil {
				return err
			}
			parts[i] = types.CompletedPart{PartNumber: &number, ETag: out.ETag, ChecksumCRC32: out.ChecksumCRC32}
			u.progress(limited, sent.Add(length))
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	_, err = access.Call(ctx, u.client.CompleteMultipartUpload, &s3.CompleteMultipartUploadInput{
		Bucket: &u.bucket, Key: &u.key, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}
