package access

import (
	"bytes"
	"io"
	"net/http"
	"testing"
)

type httpFunc func(*http.Request) (*http.Response, error)

func (f httpFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

// TestPlainBodies: net/http calls the WriteTo of a body that has one; what is sent has none.
func TestPlainBodies(t *testing.T) {
	r, err := http.NewRequest(http.MethodPost, "http://127.0.0.1", io.NopCloser(bytes.NewReader([]byte("Action=x"))))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := r.Body.(io.WriterTo); !ok {
		t.Fatal("the body of this test has no WriteTo")
	}
	_, err = plainBodies{httpFunc(func(sent *http.Request) (*http.Response, error) {
		if _, ok := sent.Body.(io.WriterTo); ok {
			t.Error("the body is sent by its WriteTo")
		}
		if text, err := io.ReadAll(sent.Body); err != nil || string(text) != "Action=x" {
			t.Errorf("sent %q, %v", text, err)
		}
		return nil, nil
	})}.Do(r)
	if err != nil {
		t.Fatal(err)
	}
}
