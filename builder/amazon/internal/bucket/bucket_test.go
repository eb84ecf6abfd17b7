package bucket_test

import (
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/bucket"
	"bake/cloud"
	"bake/cloud/cloudtest"
)

// disturbed is a cloud with a bucket in eu-west-1. disturb may answer requests in its place.
func disturbed(t *testing.T, disturb func(w http.ResponseWriter, r *http.Request) bool) access.Cloud {
	t.Helper()
	s := cloudtest.Start(t, cloud.Options{})
	at, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	front := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Scheme, r.Out.URL.Host = at.Scheme, at.Host
	}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if disturb == nil || !disturb(w, r) {
			front.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	key := s.Credentials()[0]
	client := s3.New(s3.Options{Region: "eu-west-1", BaseEndpoint: &srv.URL, UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyID, key.SecretAccessKey, "")})
	_, err = client.CreateBucket(t.Context(), &s3.CreateBucketInput{
		Bucket: aws.String("acme-images"), CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: "eu-west-1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return access.Cloud{Name: "test", Endpoint: srv.URL, AccessKey: key.AccessKeyID, SecretKey: key.SecretAccessKey, Region: "us-east-1"}
}

func open(t *testing.T, c access.Cloud, uri string) (*bucket.Bucket, error) {
	t.Helper()
	o := access.Defaults()
	o.MaxRetries = 2
	session, err := access.Open(t.Context(), &o, nil, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	return bucket.Open(t.Context(), session, uri)
}

func TestDocuments(t *testing.T) {
	c := disturbed(t, nil)
	b, err := open(t, c, "s3://acme-images/reports/")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Put(t.Context(), "sha256/a b+c%", []byte("text")); err != nil {
		t.Fatal(err)
	}
	if text, err := b.Get(t.Context(), "sha256/a b+c%", 4); err != nil || string(text) != "text" {
		t.Errorf("got %q, %v", text, err)
	}
	if _, err := b.Get(t.Context(), "sha256/a b+c%", 3); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("a document that is too large: %v", err)
	}
	if _, err := b.Get(t.Context(), "nothing", 3); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "s3://acme-images/reports/nothing") {
		t.Errorf("a document that is not there: %v", err)
	}
	whole, err := open(t, c, "s3://acme-images")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := whole.Get(t.Context(), "reports/sha256/a b+c%", 4); err != nil || string(text) != "text" {
		t.Errorf("from the top: %q, %v", text, err)
	}
	if _, err := open(t, c, "s3://nobodys"); err == nil || err.Error() != "there is no bucket nobodys" {
		t.Errorf("no bucket: %v", err)
	}
}

// Failures on the way are errors, and a truncated document is not returned.
func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		method  string
		disturb func(http.ResponseWriter)
		want    string // in the error of Put or Get
	}{
		"denied": {http.MethodPut, func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) }, "writing s3://acme-images/r/doc"},
		"deleted meanwhile": {http.MethodPut, func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>`))
		}, "bucket does not exist"},
		"half a document": {http.MethodGet, func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
		}, "reading s3://acme-images/r/doc"},
	} {
		t.Run(name, func(t *testing.T) {
			cl := disturbed(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != c.method || !strings.HasSuffix(r.URL.Path, "/doc") {
					return false
				}
				c.disturb(w)
				return true
			})
			b, err := open(t, cl, "s3://acme-images/r")
			if err != nil {
				t.Fatal(err)
			}
			err = b.Put(t.Context(), "doc", []byte("text"))
			if c.method == http.MethodGet {
				if err != nil {
					t.Fatal(err)
				}
				_, err = b.Get(t.Context(), "doc", 1000)
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want %q", err, c.want)
			}
		})
	}
}

// A bucket that may not be listed, or is in another region than the request was signed for, may
// still be writable, in the region that the refusal names.
func TestUnlisted(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusBadRequest, http.StatusMovedPermanently} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			region := ""
			c := disturbed(t, func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodHead {
					w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
					w.WriteHeader(status)
					return true
				}
				if r.Method == http.MethodPut && strings.HasSuffix(r.URL.Path, "/doc") {
					region = r.Header.Get("Authorization")
				}
				return false
			})
			b, err := open(t, c, "s3://acme-images")
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Put(t.Context(), "doc", nil); err != nil || !strings.Contains(region, "/eu-west-1/s3/") {
				t.Errorf("signed for %q: %v", region, err)
			}
		})
	}
}

// A "bad request" without a region is an error.
func TestBadRequest(t *testing.T) {
	c := disturbed(t, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusBadRequest)
		}
		return r.Method == http.MethodHead
	})
	if _, err := open(t, c, "s3://acme-images"); err == nil {
		t.Error("the bucket was opened")
	}
}
