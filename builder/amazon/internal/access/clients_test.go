package access

import (
	"bytes"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

type httpFunc func(*http.Request) (*http.Response, error)

func (f httpFunc) Do(r *http.Request) (*http.Response, error) { return f(r) }

// TestPlainBodies: request bodies have no WriteTo, because net/http would call it.
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

// TestRootsAndALocalCloud: a bundle of certificates in the environment does not prevent the use of
// a local cloud.
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

// TestSender: all sessions of a process share connections, except those that trust other servers.
func TestSender(t *testing.T) {
	f := newFake(t)
	var clients sync.Map
	f.seen = func(r *http.Request) { clients.Store(r.RemoteAddr, true) }
	watchers := &Watchers{}
	call := func(o Options) {
		t.Helper()
		o.Region = "us-east-1"
		s, err := Open(t.Context(), &o, nil, Cloud{Watchers: watchers}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := describe(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}
	}
	bundle := filepath.Join(t.TempDir(), "roots.pem")
	server := httptest.NewTLSServer(f)
	defer server.Close()
	if err := os.WriteFile(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, with := range []struct {
		options Options
		roots   string
	}{{}, {options: Options{InsecureSkipTLSVerify: true}}, {roots: bundle}} {
		t.Setenv("AWS_CA_BUNDLE", with.roots)
		call(with.options)
		call(with.options)
		have := 0
		clients.Range(func(any, any) bool { have++; return true })
		if have != n+1 {
			t.Errorf("%d kinds of sessions have %d connections", n+1, have)
		}
	}
}
