package s3

import (
	"crypto/md5" // S3's entity tags are MD5
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/machine/layer"
	"bake/cloud/wire"
)

// smallestPart is the minimum size of a part in bytes, except for the last part.
const smallestPart = 5 << 20

// upload is the record of an upload in parts.
type upload struct {
	ID      string
	Started time.Time
	Object  object // the object that it will become
	SHA256  bool   `json:",omitempty"` // each part must have a checksum
	Parts   map[int]part
}

type part struct {
	ETag     string // with the quotes
	SHA256   string `json:",omitempty"`
	Size     int64
	Modified time.Time
}

var uploadID = lazyregexp.New(`^[0-9a-f-]{36}$`)

// upload is findUpload for callers that do not hold the lock.
func (s *Service) upload(q *request) (upload, error) {
	return durable.Do(s.guarded, func(b *buckets) (upload, error) { return b.findUpload(q) })
}

// findUpload returns the upload that a request names.
func (s *buckets) findUpload(q *request) (upload, error) {
	var u upload
	if _, err := s.find(q); err != nil {
		return u, err
	}
	id := q.URL.Query().Get("uploadId")
	gone := &wire.Error{Code: "NoSuchUpload", Status: http.StatusNotFound,
		Message: "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."}
	if !uploadID.Get().MatchString(id) {
		return u, gone
	}
	err := s.read(&u, q.bucket, "uploads", id, "upload.json")
	if errors.Is(err, fs.ErrNotExist) || err == nil && u.Object.Key != q.key {
		return u, gone
	}
	return u, err
}

func (s *buckets) createUpload(q *request) error {
	o, err := newObject(q)
	if err != nil {
		return err
	}
	if _, err := s.find(q); err != nil {
		return err
	}
	u := upload{ID: wire.NewRequestID(), Started: s.now().UTC(), Object: o, SHA256: q.Header.Get("X-Amz-Checksum-Algorithm") == "SHA256"}
	if err := os.Mkdir(s.path(q.bucket, "uploads", u.ID), 0o700); err != nil {
		return err
	}
	if err := s.write(u, q.bucket, "uploads", u.ID, "upload.json"); err != nil {
		return err
	}
	return reply(q, struct {
		XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
		Bucket   string
		Key      string
		UploadID string `xml:"UploadId"`
	}{Bucket: q.bucket, Key: q.key, UploadID: u.ID})
}

func (s layout) partPath(q *request, id string, number int) string {
	return s.path(q.bucket, "uploads", id, strconv.Itoa(number)+".part")
}

func (s *Service) putPart(q *request) error {
	number, err := strconv.Atoi(q.URL.Query().Get("partNumber"))
	if err != nil || number < 1 || number > 10000 {
		return wire.Errorf("InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive")
	}
	u, err := s.upload(q)
	if err != nil {
		return err
	}
	checksum := q.Header.Get(sha256Header)
	if u.SHA256 && checksum == "" {
		return wire.Errorf("InvalidRequest", "Checksum Type mismatch occurred, expected checksum Type: sha256, actual checksum Type: null")
	}
	name, sum, size, err := receive(q, s.path(q.bucket, "uploads", u.ID))
	if err != nil {
		return err
	}
	p := part{ETag: strconv.Quote(hex.EncodeToString(sum)), SHA256: checksum, Size: size}
	if err := s.guarded.Update(func(b *buckets) error { return b.placePart(q, number, p, name) }); err != nil {
		return err
	}
	q.w.Header().Set("Etag", p.ETag)
	return nil
}

// placePart makes the file name a part of an upload.
func (s *buckets) placePart(q *request, number int, p part, name string) error {
	u, err := s.findUpload(q)
	if err != nil { // the upload may have ended meanwhile
		return errors.Join(err, os.RemoveAll(name))
	}
	if err := os.Rename(name, s.partPath(q, u.ID, number)); err != nil {
		return err
	}
	if u.Parts == nil {
		u.Parts = map[int]part{}
	}
	p.Modified = s.now().UTC()
	u.Parts[number] = p
	return s.write(u, q.bucket, "uploads", u.ID, "upload.json")
}

func (s *buckets) abortUpload(q *request) error {
	u, err := s.findUpload(q)
	if err != nil {
		return err
	}
	q.w.WriteHeader(http.StatusNoContent)
	return os.RemoveAll(s.path(q.bucket, "uploads", u.ID))
}

func (s *Service) completeUpload(q *request) error {
	var in struct{ Part []completedPart }
	if err := decode(q, &in); err != nil {
		return err
	}
	if len(in.Part) == 0 {
		return wire.Errorf("MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema")
	}
	u, err := s.upload(q)
	if err != nil {
		return err
	}
	if err := u.complete(in.Part); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.path(q.bucket, "uploads"), durable.Temp)
	if err != nil {
		return err
	}
	for at, p := range u.places(in.Part) {
		if err = copyFile(f, at, s.partPath(q, u.ID, p.PartNumber)); err != nil {
			break
		}
	}
	err = errors.Join(err, f.Truncate(u.Object.Size))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := s.guarded.Update(func(b *buckets) error { return b.place(q, u.Object, f.Name()) }); err != nil {
		return err
	}
	if err := os.RemoveAll(s.path(q.bucket, "uploads", u.ID)); err != nil {
		return err
	}
	return reply(q, struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Location string
		Bucket   string
		Key      string
		ETag     string
	}{Location: "http://" + q.Host + q.URL.Path, Bucket: q.bucket, Key: q.key, ETag: u.Object.ETag})
}

// completedPart is a part as listed in a client's request to complete the upload.
type completedPart struct {
	PartNumber     int
	ETag           string
	ChecksumSHA256 string
}

// complete sets the fields of the object that consists of these parts. It fails if they do
// not match the uploaded parts.
func (u *upload) complete(parts []completedPart) error {
	sums, checksums := md5.New(), sha256.New() // S3's entity tags are MD5
	for i := 1; i < len(parts); i++ {
		if parts[i].PartNumber <= parts[i-1].PartNumber {
			return wire.Errorf("InvalidPartOrder", "The list of parts was not in ascending order. The parts list must be specified in order by part number.")
		}
	}
	for i, p := range parts {
		have, ok := u.Parts[p.PartNumber]
		if u.SHA256 && p.ChecksumSHA256 == "" {
			return wire.Errorf("InvalidRequest", "The upload was created using a sha256 checksum. The complete request must include the checksum for each part. It was missing for part %d in the request.", p.PartNumber)
		}
		if !ok || strings.Trim(have.ETag, `"`) != strings.Trim(p.ETag, `"`) || p.ChecksumSHA256 != "" && p.ChecksumSHA256 != have.SHA256 {
			return wire.Errorf("InvalidPart", "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.")
		}
		if have.Size < smallestPart && i < len(parts)-1 {
			return wire.Errorf("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
		}
		sum, err := hex.DecodeString(strings.Trim(have.ETag, `"`))
		if err != nil {
			return err
		}
		sums.Write(sum)
		if u.SHA256 {
			if sum, err = base64.StdEncoding.DecodeString(have.SHA256); err != nil {
				return err
			}
			checksums.Write(sum)
		}
		u.Object.Size += have.Size
	}
	u.Object.ETag = fmt.Sprintf(`"%x-%d"`, sums.Sum(nil), len(parts))
	if u.SHA256 {
		u.Object.SHA256 = fmt.Sprintf("%s-%d", base64.StdEncoding.EncodeToString(checksums.Sum(nil)), len(parts))
	}
	return nil
}

// places returns where in the object its parts begin, and the parts.
func (u *upload) places(parts []completedPart) iter.Seq2[int64, completedPart] {
	return func(yield func(int64, completedPart) bool) {
		at := int64(0)
		for _, p := range parts {
			if !yield(at, p) {
				return
			}
			at += u.Parts[p.PartNumber].Size
		}
	}
}

// copyFile copies a file to a place in another one, except its holes.
func copyFile(to *os.File, at int64, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	data, err := layer.Segments(f, info.Size())
	for _, s := range data {
		if err == nil {
			_, err = io.Copy(io.NewOffsetWriter(to, at+s.Offset), io.NewSectionReader(f, s.Offset, s.Length))
		}
	}
	return err
}

func (s *buckets) listParts(q *request) error {
	u, err := s.findUpload(q)
	if err != nil {
		return err
	}
	type item struct {
		PartNumber   int
		LastModified string
		ETag         string
		Size         int64
	}
	out := struct {
		XMLName     xml.Name `xml:"ListPartsResult"`
		Bucket      string
		Key         string
		UploadID    string `xml:"UploadId"`
		IsTruncated bool
		Part        []item
	}{Bucket: q.bucket, Key: q.key, UploadID: u.ID}
	for number, p := range u.Parts {
		out.Part = append(out.Part, item{number, stamp(p.Modified), p.ETag, p.Size})
	}
	sort.Slice(out.Part, func(i, j int) bool { return out.Part[i].PartNumber < out.Part[j].PartNumber })
	return reply(q, out)
}

func (s *buckets) listUploads(q *request) error {
	if _, err := s.find(q); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.path(q.bucket, "uploads"))
	if err != nil {
		return err
	}
	type item struct {
		Key       string
		UploadID  string `xml:"UploadId"`
		Initiated string
	}
	out := struct {
		XMLName     xml.Name `xml:"ListMultipartUploadsResult"`
		Bucket      string
		IsTruncated bool
		Upload      []item
	}{Bucket: q.bucket}
	prefix := q.URL.Query().Get("prefix")
	for _, e := range entries {
		var u upload
		if err := s.read(&u, q.bucket, "uploads", e.Name(), "upload.json"); err == nil && strings.HasPrefix(u.Object.Key, prefix) {
			out.Upload = append(out.Upload, item{u.Object.Key, u.ID, stamp(u.Started)})
		}
	}
	return reply(q, out)
}
