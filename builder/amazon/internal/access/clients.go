package access

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

// WebSocketHTTP returns an HTTP client for WebSocket URLs from the API.
func (s *Session) WebSocketHTTP() *http.Client {
	t := &http.Transport{Proxy: http.ProxyFromEnvironment}
	if s.with["insecure_skip_tls_verify"] == "true" {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the option asks for it
	}
	return &http.Client{Transport: t}
}

// sender sends requests to servers whose certificates are signed by these roots.
type sender struct {
	aws.HTTPClient
	roots    *x509.CertPool
	insecure bool
}

// sender returns an HTTP client that is shared by all sessions with the same TLS settings
// as client, which the SDK has made; nil means default settings. By itself, the SDK gives
// each client of a service, and so each call of [Session.EC2], separate connections, and
// keeps them for a minute and a half.
func (w *Watchers) sender(client aws.HTTPClient) aws.HTTPClient {
	buildable, ok := client.(*awshttp.BuildableClient)
	if client == nil {
		buildable = awshttp.NewBuildableClient()
	} else if !ok {
		return client
	}
	var one sender
	buildable = buildable.WithTransportOptions(func(t *http.Transport) {
		// Nearly all requests go to the one host of EC2 in a region.
		t.MaxIdleConnsPerHost = t.MaxIdleConns
		one.roots, one.insecure = t.TLSClientConfig.RootCAs, t.TLSClientConfig.InsecureSkipVerify
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, old := range w.senders {
		if old.insecure == one.insecure && old.roots.Equal(one.roots) {
			return old
		}
	}
	one.HTTPClient = buildable.Freeze()
	w.senders = append(w.senders, one)
	return one
}

// plainBodies hides all methods of request bodies except those of a reader. The SDK closes
// a body as soon as the response begins, after which the body's WriteTo fails with io.EOF.
// If the transport has not yet seen the end of a body that it has sent, as happens when the
// cloud is on the same host, it then closes the connection during the response.
type plainBodies struct{ aws.HTTPClient }

// Do implements [aws.HTTPClient].
func (c plainBodies) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.WithContext(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return c.HTTPClient.Do(r)
}

// Optional returns s as an optional text of the API: nil if s is empty.
func Optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
