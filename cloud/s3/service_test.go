package s3

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bake/cloud/wire"
)

// slow is a client that reads nothing until the requests of others are answered.
type slow struct {
	*httptest.ResponseRecorder
	others func()
}

func (s slow) Write(b []byte) (int, error) {
	s.others()
	return s.ResponseRecorder.Write(b)
}

// TestSlowClient checks that a client that does not read its answer does not block others.
func TestSlowClient(t *testing.T) {
	s, err := Open(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	list := func(w http.ResponseWriter) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		s.ServeHTTP(w, r.WithContext(wire.WithCaller(r.Context(), wire.Caller{Account: "123456789012", Region: "us-east-1"})))
	}
	list(slow{httptest.NewRecorder(), func() {
		other, done := httptest.NewRecorder(), make(chan struct{})
		go func() {
			defer close(done)
			list(other)
		}()
		select {
		case <-done:
			if other.Code != http.StatusOK || other.Body.Len() == 0 {
				t.Errorf("the other client got %d %q", other.Code, other.Body)
			}
		case <-time.After(30 * time.Second):
			t.Error("the other client waits for the slow one")
		}
	}})
}

// TestTagging checks the limits of an object's tags: at most ten, unique, with limited keys and
// values.
func TestTagging(t *testing.T) {
	many := "a=1"
	for i := range 9 {
		many += fmt.Sprintf("&k%d=v", i)
	}
	for header, want := range map[string]string{
		"":                          "",
		many:                        "",
		"stage=a+%26+b&empty=&none": "",
		strings.Repeat("%C3%BC", 128) + "=" + strings.Repeat("%C3%BC", 256): "",
		many + "&k10=v":                 "BadRequest",
		"a=1&b=2&a=3":                   "InvalidArgument",
		"a=%zz":                         "InvalidArgument",
		"=x":                            "InvalidTag",
		"%ff=x":                         "InvalidTag",
		"aws:x=y":                       "InvalidTag",
		strings.Repeat("k", 129) + "=x": "InvalidTag",
		"k=" + strings.Repeat("v", 257): "InvalidTag",
	} {
		got := ""
		if err := checkTagging(header); err != nil {
			got = wire.AsError(err).Code
		}
		if got != want {
			t.Errorf("%.40s: %q, want %q", header, got, want)
		}
	}
}

// Opening the service removes the remains of interrupted uploads and nothing else,
// whatever the name of the directory.
func TestLeftovers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state [1]*")
	objects := filepath.Join(dir, "b", "objects")
	if err := os.MkdirAll(objects, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]bool{ // whether they stay
		"../bucket.json": true, "k.json": true, "used.data": true, "unused.data": false,
	}
	for name := range files {
		if err := os.WriteFile(filepath.Join(objects, name), []byte(`{"Data": "used.data"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Open(dir, time.Now); err != nil {
		t.Fatal(err)
	}
	for name, stays := range files {
		if _, err := os.Stat(filepath.Join(objects, name)); (err == nil) != stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
