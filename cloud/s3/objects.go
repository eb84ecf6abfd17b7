package s3

import (
	"bytes"
	"crypto/md5" // S3's entity tags are MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"bake/cloud/durable"
	"bake/cloud/machine/layer"
	"bake/cloud/wire"
)

// object is an object's record.
type object struct {
	Key      string
	Data     string // name of the file with the content
	ETag     string // with the quotes
	Size     int64
	Modified time.Time
	SHA256   string            `json:",omitempty"` // in base64, if the client sent it; for an upload in parts, derived from those of the parts
	Headers  map[string]string // headers that clients send and get back
}

// kept are the headers that are stored with an object, in addition to x-amz-meta-*.
var kept = []string{
	"Content-Type", "Content-Encoding", "Content-Disposition", "Content-Language", "Cache-Control",
	"X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", tagging, "X-Amz-Storage-Class",
}

// tagging is the header with the tags of an object, encoded as a query.
const tagging = "X-Amz-Tagging"

// tags returns the object's tags.
func (o object) tags() url.Values {
	tags, _ := url.ParseQuery(o.Headers[tagging]) // newObject has parsed them
	return tags
}

// newObject returns the object that the headers of a request describe.
func newObject(q *request) (object, error) {
	o := object{Key: q.key, Headers: map[string]string{}}
	for name := range q.Header {
		if slices.Contains(kept, name) || strings.HasPrefix(name, "X-Amz-Meta-") {
			o.Headers[name] = q.Header.Get(name)
		}
	}
	switch how := o.Headers["X-Amz-Server-Side-Encryption"]; how {
	case "": // S3's default since 2023
		o.Headers["X-Amz-Server-Side-Encryption"] = "AES256"
	case "AES256", "aws:kms", "aws:kms:dsse":
	default:
		return o, wire.Errorf("InvalidEncryptionAlgorithmError", "The encryption request that you specified is not valid. The valid value is AES256 or aws:kms.")
	}
	if err := checkTagging(o.Headers[tagging]); err != nil {
		return o, err
	}
	if len(q.key) > 1024 {
		return o, wire.Errorf("KeyTooLongError", "Your key is too long")
	}
	return o, nil
}

// checkTagging reports invalid tags of an object, in the form of the header.
func checkTagging(header string) error {
	tags, err := url.ParseQuery(header)
	if err != nil || !utf8.ValidString(header) {
		return errTagging()
	}
	if len(tags) > 10 {
		return wire.Errorf("BadRequest", "Object tags cannot be greater than 10")
	}
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		value := tags[key][0]
		switch {
		case len(tags[key]) > 1:
			return errTagging()
		case strings.HasPrefix(key, "aws:"):
			return wire.Errorf("InvalidTag", "System tags cannot be added/updated by requester")
		case key == "" || utf8.RuneCountInString(key) > 128 || !utf8.ValidString(key):
			return wire.Errorf("InvalidTag", "The TagKey you have provided is invalid")
		case utf8.RuneCountInString(value) > 256 || !utf8.ValidString(value):
			return wire.Errorf("InvalidTag", "The TagValue you have provided is invalid")
		}
	}
	return nil
}

func errTagging() error {
	return wire.Errorf("InvalidArgument", "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name duplicates.")
}

// record returns the name of the record of an object.
func record(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:]) + ".json"
}

// sha256Header contains the SHA-256 of an object or a part, in base64.
const sha256Header = "X-Amz-Checksum-Sha256"

// receive writes the body of a request into a new file in dir. It returns the file's name,
// and the MD5 and size of the content. It checks the checksums that the request gives.
func receive(q *request, dir string) (name string, sum []byte, size int64, err error) {
	f, err := os.CreateTemp(dir, durable.Temp)
	if err != nil {
		return "", nil, 0, err
	}
	h := md5.New()                       // S3's entity tags are MD5
	file := &layer.SparseWriter{File: f} // a disk image is mostly zeros
	to, want256, checksum := io.MultiWriter(file, h), q.Header.Get(sha256Header), sha256.New()
	if want256 != "" {
		to = io.MultiWriter(file, h, checksum)
	}
	size, err = io.Copy(to, q.Body)
	err = errors.Join(err, f.Truncate(size))
	if want := q.Header.Get("Content-Md5"); err == nil && want != "" && want != base64.StdEncoding.EncodeToString(h.Sum(nil)) {
		err = wire.Errorf("BadDigest", "The Content-MD5 you specified did not match what we received.")
	}
	if err == nil && want256 != "" && want256 != base64.StdEncoding.EncodeToString(checksum.Sum(nil)) {
		err = wire.Errorf("BadDigest", "The SHA256 you specified did not match the calculated checksum.")
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", nil, 0, errors.Join(err, os.Remove(f.Name()))
	}
	return f.Name(), h.Sum(nil), size, nil
}

func (s *Service) checked(q *request) error {
	return s.guarded.Update(func(b *buckets) error {
		_, err := b.find(q)
		return err
	})
}

func (s *Service) putObject(q *request) error {
	if q.Header.Get("X-Amz-Copy-Source") != "" {
		return &wire.Error{Code: "NotImplemented", Message: "The embedded cloud's S3 does not copy objects.", Status: http.StatusNotImplemented}
	}
	o, err := newObject(q)
	if err != nil {
		return err
	}
	if err := s.checked(q); err != nil {
		return err
	}
	name, sum, size, err := receive(q, s.path(q.bucket, "uploads"))
	if err != nil {
		return err
	}
	o.ETag, o.Size, o.SHA256 = strconv.Quote(hex.EncodeToString(sum)), size, q.Header.Get(sha256Header)
	return s.guarded.Update(func(b *buckets) error { return b.place(q, o, name) })
}

// place makes the file name the content of an object, and answers the request. After a
// crash, the object is either unchanged or complete.
func (s *buckets) place(q *request, o object, name string) error {
	o.Data, o.Modified = wire.NewRequestID()+".data", s.now().UTC().Truncate(time.Second)
	if _, err := s.find(q); err != nil { // it may have been deleted meanwhile
		return errors.Join(err, os.Remove(name))
	}
	if err := os.Rename(name, s.path(q.bucket, "objects", o.Data)); err != nil {
		return err
	}
	var was object
	err := s.read(&was, q.bucket, "objects", record(q.key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.write(o, q.bucket, "objects", record(q.key)); err != nil {
		return err
	}
	if was.Data != "" {
		if err := os.Remove(s.path(q.bucket, "objects", was.Data)); err != nil {
			return err
		}
	}
	q.w.Header().Set("Etag", o.ETag)
	for _, name := range []string{"X-Amz-Server-Side-Encryption", "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"} {
		if v := o.Headers[name]; v != "" {
			q.w.Header().Set(name, v)
		}
	}
	return nil
}

// Get opens an object of an account, for the cloud's other services. The region is that of
// its bucket.
func (s *Service) Get(caller wire.Caller, bucket, key string) (*os.File, error) {
	q := &request{w: nowhere{http.Header{}}, caller: caller, bucket: bucket, key: key}
	_, f, err := s.open(q)
	return f, err
}

// Accepts returns an error if Store would refuse an object with these headers. It is for the
// cloud's other services.
func (s *Service) Accepts(caller wire.Caller, bucket, key string, header http.Header) error {
	q := &request{Request: &http.Request{Header: header}, w: nowhere{http.Header{}}, caller: caller, bucket: bucket, key: key}
	if _, err := newObject(q); err != nil {
		return err
	}
	return s.checked(q)
}

// Bucket returns an error if the caller cannot put objects into a bucket. It is for the
// cloud's other services.
func (s *Service) Bucket(caller wire.Caller, bucket string) error {
	return s.checked(&request{w: nowhere{http.Header{}}, caller: caller, bucket: bucket})
}

// Put creates an object of an account, for the cloud's other services.
func (s *Service) Put(caller wire.Caller, bucket, key string, data []byte) error {
	return s.Store(caller, bucket, key, http.Header{"Content-Type": {"text/plain"}}, bytes.NewReader(data))
}

// Store is Put with a reader and with headers as sent by a client. If the reader fails, an
// existing object is unchanged.
func (s *Service) Store(caller wire.Caller, bucket, key string, header http.Header, content io.Reader) error {
	r := &http.Request{Header: header, Body: io.NopCloser(content)}
	return s.putObject(&request{Request: r, w: nowhere{http.Header{}}, caller: caller, bucket: bucket, key: key})
}

// nowhere is a ResponseWriter for an answer that is not sent.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n nowhere) WriteHeader(int)             {}

// open returns an object and its content.
func (s *Service) open(q *request) (o object, f *os.File, err error) {
	err = s.guarded.Update(func(b *buckets) error {
		o, f, err = b.open(q)
		return err
	})
	return o, f, err
}

func (s *buckets) open(q *request) (object, *os.File, error) {
	var o object
	if _, err := s.find(q); err != nil {
		return o, nil, err
	}
	err := s.read(&o, q.bucket, "objects", record(q.key))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil, &wire.Error{Code: "NoSuchKey", Message: "The specified key does not exist.", Status: http.StatusNotFound}
	}
	if err != nil {
		return o, nil, err
	}
	f, err := os.Open(s.path(q.bucket, "objects", o.Data))
	return o, f, err
}

func (s *Service) getObject(q *request) error {
	o, f, err := s.open(q)
	if err != nil {
		return err
	}
	defer f.Close()
	header := q.w.Header()
	header.Set("Etag", o.ETag)
	header.Set("Content-Type", "binary/octet-stream")
	for name, v := range o.Headers {
		switch {
		case name == tagging:
			header.Set(tagging+"-Count", strconv.Itoa(len(o.tags())))
		case strings.HasPrefix(name, "X-Amz-Meta-"):
			header[strings.ToLower(name)] = []string{v} // clients use the key's case as it is sent
		default:
			header.Set(name, v)
		}
	}
	if q.Header.Get("X-Amz-Checksum-Mode") == "ENABLED" && q.Header.Get("Range") == "" && o.SHA256 != "" {
		header.Set(sha256Header, o.SHA256)
	}
	w := &refusing{ResponseWriter: q.w}
	http.ServeContent(w, q.Request, "", o.Modified, f)
	switch w.status {
	case http.StatusRequestedRangeNotSatisfiable:
		return &wire.Error{Code: "InvalidRange", Message: "The requested range is not satisfiable", Status: w.status}
	case http.StatusPreconditionFailed:
		return &wire.Error{Code: "PreconditionFailed", Message: "At least one of the pre-conditions you specified did not hold", Status: w.status}
	}
	return nil
}

// objectTagging returns the tags of an object to the client.
func (s *buckets) objectTagging(q *request) error {
	o, f, err := s.open(q)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	type tag struct{ Key, Value string }
	out := struct {
		XMLName xml.Name `xml:"Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}{}
	all := o.tags()
	for _, key := range slices.Sorted(maps.Keys(all)) {
		out.Tags = append(out.Tags, tag{key, all.Get(key)})
	}
	return reply(q, out)
}

// refusing suppresses error answers of net/http, which S3 words differently.
type refusing struct {
	http.ResponseWriter
	status int // of the suppressed error, or 0
}

func (w *refusing) WriteHeader(status int) {
	if status >= 400 {
		w.status = status
		return
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *refusing) Write(b []byte) (int, error) {
	if w.status != 0 {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

func (s *buckets) deleteObject(q *request) error {
	if _, err := s.find(q); err != nil {
		return err
	}
	var o object
	switch err := s.read(&o, q.bucket, "objects", record(q.key)); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	default:
		for _, name := range []string{record(q.key), o.Data} { // content without a record is no object
			if err := os.Remove(s.path(q.bucket, "objects", name)); err != nil {
				return err
			}
		}
	}
	q.w.WriteHeader(http.StatusNoContent)
	return nil
}

// listed is an object in a list.
type listed struct {
	Key          string
	LastModified string
	ETag         string
	Size         int64
	StorageClass string
}

type prefix struct{ Prefix string }

// listObjects answers both ListObjects and ListObjectsV2.
func (s *buckets) listObjects(q *request) error {
	if _, err := s.find(q); err != nil {
		return err
	}
	all, err := s.objects(q.bucket)
	if err != nil {
		return err
	}
	query := q.URL.Query()
	limit := 1000
	if v := query.Get("max-keys"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 {
			return wire.Errorf("InvalidArgument", "Provided max-keys not an integer or within integer range")
		}
		limit = min(n, limit)
	}
	after := max(query.Get("start-after"), query.Get("continuation-token"), query.Get("marker"))
	out := struct {
		XMLName               xml.Name `xml:"ListBucketResult"`
		Name                  string
		Prefix                string
		Delimiter             string `xml:",omitempty"`
		MaxKeys               int
		KeyCount              int
		IsTruncated           bool
		NextContinuationToken string `xml:",omitempty"`
		NextMarker            string `xml:",omitempty"`
		Contents              []listed
		CommonPrefixes        []prefix
	}{Name: q.bucket, Prefix: query.Get("prefix"), Delimiter: query.Get("delimiter"), MaxKeys: limit}
	last, common := "", ""
	for _, key := range slices.Sorted(maps.Keys(all)) {
		rest, ok := strings.CutPrefix(key, out.Prefix)
		if !ok || key <= after || common != "" && strings.HasPrefix(key, common) {
			continue
		}
		if out.KeyCount == limit {
			out.IsTruncated = limit > 0
			break
		}
		out.KeyCount++
		last = key
		if head, _, ok := strings.Cut(rest, out.Delimiter); ok && out.Delimiter != "" {
			common = out.Prefix + head + out.Delimiter
			last = common + "\xff" // sorts after every key below it
			out.CommonPrefixes = append(out.CommonPrefixes, prefix{common})
			continue
		}
		o := all[key]
		out.Contents = append(out.Contents, listed{key, stamp(o.Modified), o.ETag, o.Size, "STANDARD"})
	}
	if out.IsTruncated && query.Get("list-type") == "2" {
		out.NextContinuationToken = last
	} else if out.IsTruncated {
		out.NextMarker = last
	}
	return reply(q, out)
}

// objects returns the objects of a bucket, by key.
func (s *buckets) objects(bucket string) (map[string]object, error) {
	entries, err := os.ReadDir(s.path(bucket, "objects"))
	if err != nil {
		return nil, err
	}
	all := map[string]object{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		var o object
		if err := s.read(&o, bucket, "objects", e.Name()); err != nil {
			return nil, err
		}
		all[o.Key] = o
	}
	return all, nil
}

// smallBody limits the XML documents of requests. The largest, which lists the 10,000
// parts of an upload, is below 2 MiB.
const smallBody = 4 << 20

func readSmall(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, smallBody+1))
	if err == nil && len(data) > smallBody {
		err = wire.Errorf("MaxMessageLengthExceeded", "Your request was too big.")
	}
	if err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	return data, nil
}
