package s3

import (
	"net/http"
	"net/http/httptest"
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

// TestSlowClient: a client that does not read its answer keeps nobody waiting.
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
