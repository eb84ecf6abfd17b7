package access

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
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

// TestRootsAndALocalCloud: a bundle of certificates in the environment keeps nobody from a
// local cloud.
func TestRootsAndALocalCloud(t *testing.T) {
	f := newFake(t)
	tls := httptest.NewTLSServer(f)
	defer tls.Close()
	bundle := filepath.Join(t.TempDir(), "roots.pem")
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tls.Certificate().Raw})
	if err := os.WriteFile(bundle, roots, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"", bundle} {
		t.Setenv("AWS_CA_BUNDLE", value)
		s, err := Open(t.Context(), &Options{Region: "us-east-1"}, nil, Cloud{Name: "local", Endpoint: f.URL, AccessKey: "AKIALOCAL", SecretKey: "s", Region: "us-east-1"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Call(t.Context(), s.EC2(s.Region).DescribeVpcs, &ec2.DescribeVpcsInput{}); err != nil {
			t.Fatal(err)
		}
		if _, plain := s.config.HTTPClient.(plainBodies); !plain {
			t.Errorf("requests are sent by %T", s.config.HTTPClient)
		}
	}
}
