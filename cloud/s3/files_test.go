package s3

import (
	"bytes"
	"crypto/md5" // S3's entity tags are MD5
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bake/cloud/wire"
)

// sparseFile creates a file with text at the given offsets and holes elsewhere.
func sparseFile(t *testing.T, size int64, text string, places ...int64) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	for _, at := range places {
		_, werr := f.WriteAt([]byte(text), at)
		err = errors.Join(err, werr)
	}
	if err := errors.Join(err, f.Truncate(size)); err != nil {
		t.Fatal(err)
	}
	return f
}

// allocated returns the space that a file occupies.
func allocated(t *testing.T, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

// bucketFor returns a service with the bucket "disks", and its owner.
func bucketFor(t *testing.T) (*Service, wire.Caller) {
	t.Helper()
	s, err := Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	caller := wire.Caller{Account: "123456789012", Region: "us-east-1"}
	if w := do(t, s, caller, http.MethodPut, "/disks", nil); w.Code != http.StatusOK {
		t.Fatalf("creating the bucket: status %d, want 200: %s", w.Code, w.Body)
	}
	return s, caller
}

// TestStoreFile checks that an object has the content and the holes of its file, and the entity tag
// of an upload of the same bytes in parts.
func TestStoreFile(t *testing.T) {
	s, caller := bucketFor(t)
	for name, f := range map[string]*os.File{
		"empty":     sparseFile(t, 0, ""),
		"a hole":    sparseFile(t, 3*filePart+5, ""),
		"text":      sparseFile(t, 5, "text", 0),
		"alike":     sparseFile(t, 5*filePart, "text", 4096, filePart+4096, 3*filePart+8192, 4*filePart+4096),
		"at edges":  sparseFile(t, 2*filePart+4, "texttext", filePart-4, 2*filePart-4),
		"much data": sparseFile(t, 3*filePart, string(bytes.Repeat([]byte("data"), filePart/2)), filePart/2),
	} {
		content, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		sums, parts := md5.New(), 0
		for part := range slices.Chunk(content, filePart) {
			sum := md5.Sum(part)
			sums.Write(sum[:])
			parts++
		}
		if parts == 0 {
			sum := md5.Sum(nil)
			sums.Write(sum[:])
			parts = 1
		}
		var last int64 = -1
		ends := 0
		err = s.StoreFile(caller, "disks", name, http.Header{}, f, func(done, of int64) error {
			if done < last || of != int64(len(content)) {
				t.Errorf("%s: %d of %d after %d", name, done, of, last)
			}
			if last = done; done == of {
				ends++
			}
			return nil
		})
		if err != nil || ends != 1 {
			t.Fatalf("%s: %v, %d times at the end", name, err, ends)
		}
		o, got, err := s.open(&request{w: nowhere{http.Header{}}, caller: caller, bucket: "disks", key: name})
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		stored, err := os.ReadFile(got.Name())
		if err != nil || !bytes.Equal(stored, content) || o.Size != int64(len(content)) {
			t.Errorf("%s: %d bytes of %d, %v", name, len(stored), len(content), err)
		}
		if want := fmt.Sprintf(`"%x-%d"`, sums.Sum(nil), parts); o.ETag != want {
			t.Errorf("%s: %s, want %s", name, o.ETag, want)
		}
		if want := allocated(t, f); allocated(t, got) > want+8192 {
			t.Errorf("%s takes %d bytes, and the file %d", name, allocated(t, got), want)
		}
	}
	no := errors.New("no")
	f := sparseFile(t, filePart, "")
	if err := s.StoreFile(caller, "disks", "refused", http.Header{}, f, func(int64, int64) error { return no }); !errors.Is(err, no) {
		t.Errorf("%v", err)
	}
	if _, err := s.Get(caller, "disks", "refused"); err == nil {
		t.Error("the object is there")
	}
	if left, err := os.ReadDir(s.path("disks", "uploads")); err != nil || len(left) > 0 {
		t.Errorf("what is left: %v, %v", left, err)
	}
}

// TestLargeFile checks that storing a file of 1 TiB with little data is fast.
func TestLargeFile(t *testing.T) {
	s, caller := bucketFor(t)
	var places []int64
	for at := int64(0); at < 1<<40; at += 1 << 35 {
		places = append(places, at)
	}
	f := sparseFile(t, 1<<40, "text", places...)
	began := time.Now()
	if err := s.StoreFile(caller, "disks", "large", http.Header{}, f, func(int64, int64) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
}

// TestUploadKeepsHoles checks that an object uploaded in parts has the holes of the parts.
func TestUploadKeepsHoles(t *testing.T) {
	s, caller := bucketFor(t)
	created := do(t, s, caller, http.MethodPost, "/disks/large?uploads", nil)
	id := between(created.Body.String(), "<UploadId>", "</UploadId>")
	content := append(make([]byte, 6<<20), "end of a part"...)
	complete := "<CompleteMultipartUpload>"
	for n := 1; n <= 2; n++ {
		w := do(t, s, caller, http.MethodPut, fmt.Sprintf("/disks/large?uploadId=%s&partNumber=%d", id, n), content)
		if w.Code != http.StatusOK {
			t.Fatalf("part %d: status %d, want 200: %s", n, w.Code, w.Body)
		}
		complete += fmt.Sprintf("<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, w.Header().Get("Etag"))
	}
	if w := do(t, s, caller, http.MethodPost, "/disks/large?uploadId="+id, []byte(complete+"</CompleteMultipartUpload>")); w.Code != http.StatusOK {
		t.Fatalf("completing the upload: status %d, want 200: %s", w.Code, w.Body)
	}
	f, err := s.Get(caller, "disks", "large")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stored, err := os.ReadFile(f.Name())
	if err != nil || !bytes.Equal(stored, slices.Concat(content, content)) {
		t.Errorf("%d bytes, %v", len(stored), err)
	}
	if n := allocated(t, f); n > 1<<20 {
		t.Errorf("it takes %d bytes", n)
	}
}

// do sends a request and returns the answer.
func do(t *testing.T, s *Service, caller wire.Caller, method, path string, body []byte) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, bytes.NewReader(body))
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r.WithContext(wire.WithCaller(r.Context(), caller)))
	return w
}

func between(text, before, after string) string {
	_, text, _ = strings.Cut(text, before)
	text, _, _ = strings.Cut(text, after)
	return text
}
