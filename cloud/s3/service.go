// Package s3 implements the part of Amazon S3 that imports of disk images, and the clients
// that prepare them, use: buckets, objects, and uploads in parts. Requests use the path
// style (http://endpoint/bucket/key) and are signed in a header.
//
// Its directory contains:
//
//	BUCKET/bucket.json                      the bucket's owner and region
//	BUCKET/objects/HASH.json                an object; HASH is the SHA-256 of its key
//	BUCKET/objects/ID.data                  its content
//	BUCKET/uploads/ID/upload.json, N.part   an upload in parts that has not ended
package s3

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/wire"
)

const namespace = "http://s3.amazonaws.com/doc/2006-03-01/"

// Service holds all buckets in one directory.
type Service struct {
	layout
	guarded *durable.Guarded[*buckets]
}

// buckets is the state on disk. Its methods hold the lock. The lock is held while files
// are looked up or renamed, but not while content is sent or received.
type buckets struct {
	layout
	now func() time.Time
}

// layout is the service's directory.
type layout struct{ dir string }

// Open returns the service whose buckets are in dir, which it creates if necessary. now
// returns the time for new objects.
func Open(dir string, now func() time.Time) (*Service, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Service{layout{dir}, durable.Guard(&buckets{layout{dir}, now})}
	return s, s.guarded.Update((*buckets).clean)
}

// clean removes what a crash has left: partly received content, content without an object,
// and buckets that were being created or deleted.
func (s *buckets) clean() error {
	buckets, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	for _, b := range buckets {
		if _, err := os.Stat(s.path(b.Name(), "bucket.json")); errors.Is(err, fs.ErrNotExist) {
			if err := os.RemoveAll(s.path(b.Name())); err != nil {
				return err
			}
			continue
		}
		bucket := os.DirFS(s.path(b.Name())) // Glob in this file system, so that the path itself is no pattern
		records, err := fs.Glob(bucket, "objects/*.json")
		if err != nil {
			return err
		}
		used := map[string]bool{}
		for _, name := range records {
			var o object
			if err := s.read(&o, b.Name(), "objects", path.Base(name)); err != nil {
				return err
			}
			used[o.Data] = true
		}
		var left []string
		for _, pattern := range []string{"objects/*.data", "*/" + durable.Temp, "uploads/*/" + durable.Temp} {
			names, err := fs.Glob(bucket, pattern)
			if err != nil {
				return err
			}
			left = append(left, names...)
		}
		for _, name := range left {
			if used[path.Base(name)] {
				continue
			}
			if err := os.Remove(s.path(b.Name(), filepath.FromSlash(name))); err != nil {
				return err
			}
		}
	}
	return nil
}

// request is a request for a bucket or an object.
type request struct {
	*http.Request
	w      http.ResponseWriter
	caller wire.Caller
	bucket string
	key    string
	answer []byte // sent to the client, if not nil
}

// ServeHTTP answers a request whose signature has been verified and whose caller is in its
// context. If the signature covers the body, reading the body must fail when it does not
// match.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	q := &request{Request: r, w: w, caller: wire.CallerFrom(r.Context()), bucket: bucket, key: key}
	w.Header().Set("X-Amz-Request-Id", wire.NewRequestID())
	if err := s.serve(q); err != nil {
		WriteError(w, r, err)
	} else if q.answer != nil {
		_, _ = w.Write(q.answer) // an error means that the client has gone
	}
}

func (s *Service) serve(q *request) error {
	query := q.URL.Query()
	if parameter := unsupported(query, q); parameter != "" {
		return &wire.Error{Code: "NotImplemented", Status: http.StatusNotImplemented,
			Message: fmt.Sprintf("The embedded cloud's S3 does not have the sub-resource %q.", parameter)}
	}
	locked := func(action func(*buckets, *request) error) error {
		return s.guarded.Update(func(b *buckets) error { return action(b, q) })
	}
	switch {
	case q.bucket == "" && q.Method == http.MethodGet:
		return locked((*buckets).listBuckets)
	case q.bucket == "":
	case q.key == "":
		switch {
		case q.Method == http.MethodPut && len(query) == 0:
			return locked((*buckets).createBucket)
		case q.Method == http.MethodHead:
			return locked((*buckets).headBucket)
		case q.Method == http.MethodDelete:
			return locked((*buckets).deleteBucket)
		case q.Method == http.MethodGet && query.Has("location"):
			return locked((*buckets).bucketLocation)
		case q.Method == http.MethodGet && query.Has("uploads"):
			return locked((*buckets).listUploads)
		case q.Method == http.MethodGet:
			return locked((*buckets).listObjects)
		}
	case query.Has("uploads") && q.Method == http.MethodPost:
		return locked((*buckets).createUpload)
	case query.Has("uploadId"):
		switch q.Method {
		case http.MethodPut:
			return s.putPart(q)
		case http.MethodPost:
			return s.completeUpload(q)
		case http.MethodDelete:
			return locked((*buckets).abortUpload)
		case http.MethodGet:
			return locked((*buckets).listParts)
		}
	case query.Has("tagging"):
		return locked((*buckets).objectTagging)
	default:
		switch q.Method {
		case http.MethodPut:
			return s.putObject(q)
		case http.MethodGet, http.MethodHead:
			return s.getObject(q)
		case http.MethodDelete:
			return locked((*buckets).deleteObject)
		}
	}
	return &wire.Error{Code: "MethodNotAllowed", Message: "The specified method is not allowed against this resource.", Status: http.StatusMethodNotAllowed}
}

// unsupported returns a query parameter that asks for something unsupported, or "".
func unsupported(query map[string][]string, q *request) string {
	known := map[string]bool{
		"location": true, "uploads": true, "uploadId": true, "partNumber": true, "x-id": true, "list-type": true, "prefix": true,
		"delimiter": true, "max-keys": true, "continuation-token": true, "start-after": true, "marker": true, "encoding-type": true,
		"fetch-owner": true, "max-parts": true, "part-number-marker": true, "max-uploads": true,
		"tagging": q.key != "" && q.Method == http.MethodGet,
	}
	for name := range query {
		if !known[name] {
			return name
		}
	}
	return ""
}

// bucket is a bucket's record.
type bucket struct {
	Name    string
	Account string
	Region  string
	Created time.Time
}

func (l layout) path(elements ...string) string {
	return filepath.Join(append([]string{l.dir}, elements...)...)
}

// find returns the caller's bucket of the request.
func (s *buckets) find(q *request) (bucket, error) {
	var b bucket
	err := s.read(&b, q.bucket, "bucket.json")
	switch {
	case errors.Is(err, fs.ErrNotExist) || !bucketName.Get().MatchString(q.bucket):
		return b, &wire.Error{Code: "NoSuchBucket", Message: "The specified bucket does not exist", Status: http.StatusNotFound}
	case err != nil:
		return b, err
	case b.Account != q.caller.Account:
		return b, &wire.Error{Code: "AccessDenied", Message: "Access Denied", Status: http.StatusForbidden}
	case b.Region != q.caller.Region:
		q.w.Header().Set("X-Amz-Bucket-Region", b.Region)
		return b, &wire.Error{Code: "PermanentRedirect", Status: http.StatusMovedPermanently,
			Message: fmt.Sprintf("The bucket you are attempting to access must be addressed using the specified endpoint: it is in the region %s.", b.Region)}
	}
	return b, nil
}

// read reads a record.
func (s *buckets) read(into any, elements ...string) error {
	name := s.path(elements...)
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &fs.PathError{Op: "read", Path: name, Err: err}
	}
	return nil
}

// write writes a record.
func (s *buckets) write(record any, elements ...string) error {
	data, err := json.MarshalIndent(record, "", "  ")
	if err != nil {
		return err
	}
	return durable.Replace(s.path(elements...), append(data, '\n'), 0o600)
}

var (
	bucketName = lazyregexp.New(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	address    = lazyregexp.New(`^\d+\.\d+\.\d+\.\d+$`)
)

func (s *buckets) createBucket(q *request) error {
	if !bucketName.Get().MatchString(q.bucket) || address.Get().MatchString(q.bucket) || strings.Contains(q.bucket, "..") {
		return wire.Errorf("InvalidBucketName", "The specified bucket is not valid.")
	}
	var in struct {
		LocationConstraint string
	}
	if err := decode(q, &in); err != nil {
		return err
	}
	region := in.LocationConstraint
	if region == "" {
		region = "us-east-1"
	}
	if region != q.caller.Region {
		return wire.Errorf("IllegalLocationConstraintException", "The %s location constraint is incompatible for the region specific endpoint this request was sent to.", region)
	}
	var b bucket
	switch err := s.read(&b, q.bucket, "bucket.json"); {
	case err == nil && b.Account != q.caller.Account:
		return &wire.Error{Code: "BucketAlreadyExists", Message: "The requested bucket name is not available.", Status: http.StatusConflict}
	case err == nil && region != "us-east-1":
		return &wire.Error{Code: "BucketAlreadyOwnedByYou", Message: "Your previous request to create the named bucket succeeded and you already own it.", Status: http.StatusConflict}
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	case err != nil:
		for _, dir := range []string{"objects", "uploads"} {
			if err := os.MkdirAll(s.path(q.bucket, dir), 0o700); err != nil {
				return err
			}
		}
		if err := s.write(bucket{q.bucket, q.caller.Account, region, s.now().UTC()}, q.bucket, "bucket.json"); err != nil {
			return err
		}
	}
	q.w.Header().Set("Location", "/"+q.bucket)
	return nil
}

func (s *buckets) headBucket(q *request) error {
	b, err := s.find(q)
	if err == nil {
		q.w.Header().Set("X-Amz-Bucket-Region", b.Region)
	}
	return err
}

func (s *buckets) deleteBucket(q *request) error {
	if _, err := s.find(q); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.path(q.bucket, "objects"))
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return &wire.Error{Code: "BucketNotEmpty", Message: "The bucket you tried to delete is not empty", Status: http.StatusConflict}
	}
	// Remove the record first: without it, an incompletely deleted bucket is no bucket.
	if err := os.Remove(s.path(q.bucket, "bucket.json")); err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return os.RemoveAll(s.path(q.bucket))
}

func (s *buckets) bucketLocation(q *request) error {
	b, err := s.find(q)
	if err != nil {
		return err
	}
	region := b.Region
	if region == "us-east-1" {
		region = "" // us-east-1 is returned as an empty name
	}
	return reply(q, struct {
		XMLName xml.Name `xml:"LocationConstraint"`
		Region  string   `xml:",chardata"`
	}{Region: region})
}

func (s *buckets) listBuckets(q *request) error {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return err
	}
	type item struct{ Name, CreationDate string }
	out := struct {
		XMLName xml.Name `xml:"ListAllMyBucketsResult"`
		Owner   struct{ ID string }
		Buckets []item `xml:"Buckets>Bucket"`
	}{}
	out.Owner.ID = q.caller.Account
	for _, e := range entries {
		var b bucket
		if err := s.read(&b, e.Name(), "bucket.json"); err == nil && b.Account == q.caller.Account {
			out.Buckets = append(out.Buckets, item{b.Name, stamp(b.Created)})
		}
	}
	return reply(q, out)
}

// stamp formats a time as in S3's answers.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// reply sets document as the answer, which is sent after the lock is released.
func reply(q *request, document any) error {
	body, err := xml.Marshal(document)
	if err != nil {
		return err
	}
	// The namespace belongs on the outermost element, whatever its name.
	head, rest, _ := strings.Cut(string(body), ">")
	q.w.Header().Set("Content-Type", "application/xml")
	q.answer = fmt.Appendf(nil, "%s%s xmlns=%q>%s", xml.Header, head, namespace, rest)
	return nil
}

// decode parses the XML document in the body of a request. Without a body, it changes
// nothing.
func decode(q *request, into any) error {
	data, err := readSmall(q.Body)
	if err != nil || len(data) == 0 {
		return err
	}
	if err := xml.Unmarshal(data, into); err != nil {
		return wire.Errorf("MalformedXML", "The XML you provided was not well-formed: %v", err)
	}
	return nil
}

// WriteError answers a request with err, in S3's form.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	e := wire.AsError(err)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(e.HTTPStatus())
	if r.Method == http.MethodHead {
		return
	}
	body, _ := xml.Marshal(struct { // marshalling strings never fails
		XMLName   xml.Name `xml:"Error"`
		Code      string
		Message   string
		Resource  string
		RequestID string `xml:"RequestId"`
	}{Code: e.Code, Message: e.Message, Resource: r.URL.Path, RequestID: w.Header().Get("X-Amz-Request-Id")})
	_, _ = w.Write(append([]byte(xml.Header), body...)) // an error means that the client has gone
}
