package cloud_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"bake/cloud"
	"bake/cloud/cloudtest"
	clouds3 "bake/cloud/s3"
)

func s3Client(s *cloudtest.Server, profile int, region string) *s3.Client {
	c := s.Credentials()[profile]
	return s3.New(s3.Options{
		Region: region, BaseEndpoint: aws.String(s.URL), Retryer: aws.NopRetryer{}, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, ""),
	})
}

// TestS3 covers the life of a bucket and its objects.
func TestS3(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s3Client(s, 0, "us-east-1"), t.Context()
	bucket := aws.String("images")
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	put := func(key, content string) {
		t.Helper()
		_, err := client.PutObject(ctx, &s3.PutObjectInput{
			Bucket: bucket, Key: &key, Body: strings.NewReader(content), ContentType: aws.String("text/plain"), Metadata: map[string]string{"by": "test"},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	get := func(key, byteRange string) string {
		t.Helper()
		in := &s3.GetObjectInput{Bucket: bucket, Key: &key}
		if byteRange != "" {
			in.Range = &byteRange
		}
		out, err := client.GetObject(ctx, in)
		if err != nil {
			t.Fatal(err)
		}
		defer out.Body.Close()
		data, err := io.ReadAll(out.Body)
		if err != nil || *out.ContentType != "text/plain" || out.Metadata["by"] != "test" {
			t.Errorf("%v: type %s, metadata %v", err, *out.ContentType, out.Metadata)
		}
		return string(data)
	}
	put("a/one two+ü.txt", "hello")
	put("a/one two+ü.txt", "hello again")
	put("a/b/c", "deep")
	put("d", "")
	if got := get("a/one two+ü.txt", ""); got != "hello again" {
		t.Errorf("the object holds %q", got)
	}
	if got := get("a/one two+ü.txt", "bytes=6-"); got != "again" {
		t.Errorf("its end is %q", got)
	}

	list := func(in s3.ListObjectsV2Input) (keys, prefixes []string, next *string) {
		t.Helper()
		in.Bucket = bucket
		out, err := client.ListObjectsV2(ctx, &in)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range out.Contents {
			keys = append(keys, *o.Key)
		}
		for _, p := range out.CommonPrefixes {
			prefixes = append(prefixes, *p.Prefix)
		}
		return keys, prefixes, out.NextContinuationToken
	}
	if keys, _, _ := list(s3.ListObjectsV2Input{}); !slices.Equal(keys, []string{"a/b/c", "a/one two+ü.txt", "d"}) {
		t.Errorf("all keys: %q", keys)
	}
	keys, prefixes, next := list(s3.ListObjectsV2Input{Delimiter: aws.String("/"), MaxKeys: aws.Int32(1)})
	if len(keys) != 0 || !slices.Equal(prefixes, []string{"a/"}) || next == nil {
		t.Errorf("first page: %q, %q, next %v", keys, prefixes, next)
	}
	if keys, _, next = list(s3.ListObjectsV2Input{Delimiter: aws.String("/"), ContinuationToken: next}); !slices.Equal(keys, []string{"d"}) || next != nil {
		t.Errorf("second page: %q, next %v", keys, next)
	}

	_, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket})
	if code(err) != "BucketNotEmpty" {
		t.Errorf("a full bucket is deleted: %v", err)
	}
	for _, key := range []string{"a/b/c", "a/one two+ü.txt", "d", "never was"} {
		if _, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: bucket, Key: &key}); err != nil {
			t.Error(err)
		}
	}
	if _, err := client.DeleteBucket(ctx, &s3.DeleteBucketInput{Bucket: bucket}); err != nil {
		t.Error(err)
	}
	if _, err := client.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: bucket}); code(err) != "NotFound" {
		t.Errorf("a deleted bucket: %v", err)
	}
}

func TestS3Uploads(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s3Client(s, 0, "us-east-1"), t.Context()
	bucket, key := aws.String("images"), aws.String("disk.raw")
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	begin := func() *string {
		t.Helper()
		u, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ServerSideEncryption: types.ServerSideEncryptionAwsKms})
		if err != nil {
			t.Fatal(err)
		}
		return u.UploadId
	}
	send := func(id *string, n int32, content []byte) types.CompletedPart {
		t.Helper()
		p, err := client.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: id, PartNumber: &n, Body: bytes.NewReader(content)})
		if err != nil {
			t.Fatal(err)
		}
		return types.CompletedPart{PartNumber: &n, ETag: p.ETag}
	}
	complete := func(id *string, parts ...types.CompletedPart) error {
		_, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
			Bucket: bucket, Key: key, UploadId: id, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
		})
		return err
	}
	large, small := bytes.Repeat([]byte("0123456789abcdef"), 5<<16), []byte("end")

	id := begin()
	second := send(id, 2, small)
	first := send(id, 1, large)
	if err := complete(id, second, first); code(err) != "InvalidPartOrder" {
		t.Errorf("parts in the wrong order: %v", err)
	}
	if err := complete(id, types.CompletedPart{PartNumber: aws.Int32(1), ETag: second.ETag}); code(err) != "InvalidPart" {
		t.Errorf("a part that is another: %v", err)
	}
	if err := complete(id, first, second); err != nil {
		t.Fatal(err)
	}
	head, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	if *head.ContentLength != int64(len(large)+len(small)) || !strings.HasSuffix(*head.ETag, `-2"`) || head.ServerSideEncryption != "aws:kms" {
		t.Errorf("size %d, ETag %s, encryption %s", *head.ContentLength, *head.ETag, head.ServerSideEncryption)
	}
	if err := complete(id, first, second); code(err) != "NoSuchUpload" {
		t.Errorf("completed again: %v", err)
	}

	id = begin()
	if err := complete(id, send(id, 1, small), send(id, 2, small)); code(err) != "EntityTooSmall" {
		t.Errorf("a small part in the middle: %v", err)
	}
	uploads, err := client.ListMultipartUploads(ctx, &s3.ListMultipartUploadsInput{Bucket: bucket})
	if err != nil || len(uploads.Uploads) != 1 || *uploads.Uploads[0].UploadId != *id {
		t.Errorf("uploads: %+v, %v", uploads, err)
	}
	if _, err := client.AbortMultipartUpload(ctx, &s3.AbortMultipartUploadInput{Bucket: bucket, Key: key, UploadId: id}); err != nil {
		t.Error(err)
	}
	_, err = client.ListParts(ctx, &s3.ListPartsInput{Bucket: bucket, Key: key, UploadId: id})
	if code(err) != "NoSuchUpload" {
		t.Errorf("an aborted upload: %v", err)
	}
}

// TestS3Checksums checks that given checksums are verified and stored.
func TestS3Checksums(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s3Client(s, 0, "us-east-1"), t.Context()
	bucket, key := aws.String("images"), aws.String("disk.raw")
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		t.Fatal(err)
	}
	sum := func(text string) *string {
		digest := sha256.Sum256([]byte(text))
		return aws.String(base64.StdEncoding.EncodeToString(digest[:]))
	}
	put := func(text string) error {
		_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader("text"), ChecksumSHA256: sum(text)})
		return err
	}
	stored := func(mode types.ChecksumMode) string {
		t.Helper()
		out, err := client.HeadObject(ctx, &s3.HeadObjectInput{Bucket: bucket, Key: key, ChecksumMode: mode})
		if err != nil {
			t.Fatal(err)
		}
		return aws.ToString(out.ChecksumSHA256)
	}
	if err := put("text"); err != nil {
		t.Fatal(err)
	}
	if err := put("another"); code(err) != "BadDigest" {
		t.Errorf("another text: %v", err)
	}
	if got := stored("ENABLED"); got != *sum("text") || stored("") != "" {
		t.Errorf("the checksum is %s, and %s to those who do not ask", got, stored(""))
	}

	upload, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key, ChecksumAlgorithm: types.ChecksumAlgorithmSha256})
	if err != nil {
		t.Fatal(err)
	}
	send := func(sum *string) (*string, error) {
		out, err := client.UploadPart(ctx, &s3.UploadPartInput{Bucket: bucket, Key: key, UploadId: upload.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("text"), ChecksumSHA256: sum})
		if err != nil {
			return nil, err
		}
		return out.ETag, nil
	}
	if _, err := send(nil); code(err) != "InvalidRequest" {
		t.Errorf("a part without a checksum: %v", err)
	}
	tag, err := send(sum("text"))
	if err != nil {
		t.Fatal(err)
	}
	complete := func(sum *string) error {
		_, err := client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{Bucket: bucket, Key: key, UploadId: upload.UploadId,
			MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{PartNumber: aws.Int32(1), ETag: tag, ChecksumSHA256: sum}}}})
		return err
	}
	if err := complete(nil); code(err) != "InvalidRequest" {
		t.Errorf("completed without a checksum: %v", err)
	}
	if err := complete(sum("another")); code(err) != "InvalidPart" {
		t.Errorf("completed with another: %v", err)
	}
	if err := complete(sum("text")); err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("text"))
	if got, want := stored("ENABLED"), *sum(string(digest[:]))+"-1"; got != want {
		t.Errorf("the checksum is %s, want %s", got, want)
	}
}

func TestS3Errors(t *testing.T) {
	s := cloudtest.Start(t, cloud.Options{})
	client, ctx := s3Client(s, 0, "us-east-1"), t.Context()
	create := func(c *s3.Client, name string) error {
		_, err := c.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name})
		return err
	}
	if err := create(client, "images"); err != nil {
		t.Fatal(err)
	}
	secret := s.Credentials()[0]
	wrong := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.URL), UsePathStyle: true, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider(secret.AccessKeyID, "guess", "")})
	nobody := s3.New(s3.Options{Region: "us-east-1", BaseEndpoint: aws.String(s.URL), UsePathStyle: true, Retryer: aws.NopRetryer{},
		Credentials: credentials.NewStaticCredentialsProvider("AKIANOBODY", "guess", "")})
	object := func(c *s3.Client, bucket, key string) error {
		_, err := c.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
		return err
	}
	for _, test := range []struct {
		name, code string
		err        error
	}{
		{"no bucket", "NoSuchBucket", object(client, "nothing", "x")},
		{"no key", "NoSuchKey", object(client, "images", "x")},
		{"another account", "AccessDenied", object(s3Client(s, 1, "us-east-1"), "images", "x")},
		{"a taken name", "BucketAlreadyExists", create(s3Client(s, 1, "us-east-1"), "images")},
		{"another region", "PermanentRedirect", object(s3Client(s, 0, "eu-west-1"), "images", "x")},
		{"a bad name", "InvalidBucketName", create(client, "Images_1")},
		{"no region named", "IllegalLocationConstraintException", create(s3Client(s, 0, "eu-west-1"), "other")},
		{"a wrong secret", "SignatureDoesNotMatch", object(wrong, "images", "x")},
		{"no such access key", "InvalidAccessKeyId", object(nobody, "images", "x")},
	} {
		if code(test.err) != test.code {
			t.Errorf("%s: %v; want %s", test.name, test.err, test.code)
		}
	}
	_, err := client.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String("images"), Key: aws.String("short"), Body: strings.NewReader("short")})
	if err != nil {
		t.Fatal(err)
	}
	for want, in := range map[string]s3.GetObjectInput{"InvalidRange": {Range: aws.String("bytes=100-200")}, "PreconditionFailed": {IfMatch: aws.String(`"other"`)}} {
		in.Bucket, in.Key = aws.String("images"), aws.String("short")
		if _, err := client.GetObject(ctx, &in); code(err) != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
	_, err = client.GetBucketAcl(ctx, &s3.GetBucketAclInput{Bucket: aws.String("images")})
	if code(err) != "NotImplemented" {
		t.Errorf("what is not there: %v", err)
	}
}

// TestS3Crash checks that the remains of a crash are removed at the next start, and that
// nothing else changes.
func TestS3Crash(t *testing.T) {
	dir := t.TempDir()
	open := func() { // a service that is never closed, like a killed process
		t.Helper()
		if _, err := clouds3.Open(dir, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	open()
	write := func(name, content string) {
		t.Helper()
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("half/objects/x.data", "")
	write("whole/bucket.json", `{"Name": "whole"}`)
	write("whole/objects/k.json", `{"Key": "k", "Data": "kept.data"}`)
	write("whole/objects/kept.data", "content")
	write("whole/objects/lost.data", "content")
	write("whole/uploads/.record-1", "received")
	write("whole/uploads/id/.record-2", "received")
	write("whole/uploads/id/1.part", "part")
	write("whole/uploads/id/upload.json", `{}`)
	open()
	var left []string
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, name)
			left = append(left, rel)
		}
		return err
	})
	want := []string{"whole/bucket.json", "whole/objects/k.json", "whole/objects/kept.data", "whole/uploads/id/1.part", "whole/uploads/id/upload.json"}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("left: %q, %v", left, err)
	}
}

// TestS3Payload sends content that does not match its signature, and bodies in chunks.
func TestS3Payload(t *testing.T) {
	for _, test := range []struct{ name, hash, body, want, code string }{
		{"as signed", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "hello", "hello", ""},
		{"not as signed", "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "hullo", "hullo", "XAmzContentSHA256Mismatch"},
		{"unsigned", "UNSIGNED-PAYLOAD", "hello", "hello", ""},
		{"chunks", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "3\r\nhel\r\n2\r\nlo\r\n0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n", "hello", ""},
		{"no chunks", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "0\r\n\r\n", "", ""},
		{"cut off", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "5\r\nhel", "hel", "unexpected EOF"},
		{"cut off between chunks", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "3\r\nhel\r\n", "hel", "unexpected EOF"},
		{"no length", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "hello", "", "unexpected EOF"},
		{"a bad length", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", "-5\r\nhello\r\n", "", "InvalidRequest"},
		{"signed chunks", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", "", "", "NotImplemented"},
		{"nothing", "", "", "", "MissingSecurityHeader"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := http.NewRequestWithContext(context.Background(), http.MethodPut, "http://127.0.0.1/b/k", strings.NewReader(test.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("X-Amz-Content-Sha256", test.hash)
			_, body, err := clouds3.Payload(r)
			var got []byte
			if err == nil {
				got, err = io.ReadAll(body)
			}
			if string(got) != test.want || err != nil && !strings.Contains(err.Error(), test.code) || err == nil && test.code != "" {
				t.Errorf("%q, %v; want %q, %q", got, err, test.want, test.code)
			}
		})
	}
}
