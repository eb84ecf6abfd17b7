package winrm

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	ntlm "github.com/Azure/go-ntlmssp"
	"golang.org/x/net/http/httpproxy"

	"bake/internal/envvar"
)

// Time limits of requests. A machine answers a request for output at the latest after
// operationTimeout; a machine that does not answer at all is gone.
const (
	operationTimeout = time.Minute
	requestTimeout   = operationTimeout + 30*time.Second
	dialTimeout      = 15 * time.Second
	farewellTimeout  = 10 * time.Second // for ending what a cancelled command has left
)

// maxResponse is far above the 150 kB to which requests limit an answer, and low enough for parsing
// deeply nested elements.
const maxResponse = 1 << 20

// fault is an error reported by the machine's WinRM service.
type fault struct {
	code string // a Windows error code, in decimal
	text string
}

func (f *fault) Error() string {
	if f.code == "" {
		return "WinRM: " + f.text
	}
	return fmt.Sprintf("WinRM: %s (code %s)", f.text, f.code)
}

// timedOut is the code of the fault for no output within the timeout of the request.
const timedOut = "2150858793"

// errLogin is the error of a refused login.
var errLogin = errors.New("the machine refused the login")

// errNoNTLM is the error of a login by NTLM that the machine does not support.
var errNoNTLM = errors.New("the machine does not offer NTLM, which winrm_use_ntlm asks for")

// newHTTP makes the HTTP client for the machine. dial may be nil; env is a list of "NAME=value".
func newHTTP(o *Settings, dial func(ctx context.Context, network, addr string) (net.Conn, error), env []string) *http.Client {
	t := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: o.WinRMInsecure}, // if the template asks for it
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     time.Minute,
	}
	if dial != nil {
		t.DialContext = dial
	} else if !o.WinRMNoProxy {
		proxy := proxyOf(env)
		t.Proxy = func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
	}
	// Redirects are not followed: the machine could direct bake's requests to hosts of its choice.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	if o.WinRMUseNTLM {
		return &http.Client{Transport: negotiator{ntlm.Negotiator{RoundTripper: noPassword{t}}}, CheckRedirect: stay}
	}
	return &http.Client{Transport: t, CheckRedirect: stay}
}

// negotiator logs in with NTLM. It returns an error for a challenge that makes the library panic.
type negotiator struct{ ntlm.Negotiator }

// RoundTrip implements [http.RoundTripper].
func (n negotiator) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	defer func() {
		if p := recover(); p != nil {
			resp, err = nil, fmt.Errorf("the machine's NTLM challenge cannot be read: %v", p)
		}
	}()
	return n.Negotiator.RoundTrip(r)
}

// noPassword keeps the library from sending the password itself, which it would do to machines that
// offer only Basic authentication.
type noPassword struct{ http.RoundTripper }

// RoundTrip implements [http.RoundTripper].
func (n noPassword) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.Header.Get("Authorization"), "Basic ") {
		return nil, errNoNTLM
	}
	return n.RoundTripper.RoundTrip(r)
}

func proxyOf(env []string) func(*url.URL) (*url.URL, error) {
	get := func(names ...string) string {
		for _, name := range names {
			if v := envvar.Get(env, name); v != "" {
				return v
			}
		}
		return ""
	}
	return (&httpproxy.Config{
		HTTPProxy: get("HTTP_PROXY", "http_proxy"), HTTPSProxy: get("HTTPS_PROXY", "https_proxy"), NoProxy: get("NO_PROXY", "no_proxy"),
	}).ProxyFunc()
}

// post sends a request and returns the answer. The error is a *fault, errLogin, a
// transport error, or the cause of ctx.
func (c *Client) post(ctx context.Context, at endpoint, msg request) (string, error) {
	limited, cancel := context.WithTimeoutCause(ctx, requestTimeout, fmt.Errorf("the machine did not answer within %s", requestTimeout))
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodPost, at.url, strings.NewReader(msg.String()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/soap+xml;charset=UTF-8")
	req.SetBasicAuth(c.opts.WinRMUsername, c.opts.WinRMPassword)
	resp, err := c.http.Do(req)
	if err == nil {
		defer resp.Body.Close()
		var body []byte
		if body, err = io.ReadAll(io.LimitReader(resp.Body, maxResponse+1)); err == nil && len(body) > maxResponse {
			err = fmt.Errorf("the machine's answer is larger than %d MB", maxResponse>>20)
		}
		if err == nil {
			return answer(resp, string(body))
		}
	}
	if cause := context.Cause(limited); cause != nil {
		err = cause
	}
	return "", err
}

// answer returns the body of a response, or the error that the response reports.
func answer(resp *http.Response, body string) (string, error) {
	switch {
	case resp.StatusCode == http.StatusUnauthorized:
		return "", errLogin
	case strings.Contains(resp.Header.Get("Content-Type"), "soap+xml"):
		if resp.StatusCode == http.StatusOK {
			return body, nil
		}
		return "", parseFault(body)
	}
	return "", &fault{text: "the machine answered " + resp.Status + ", which is not WinRM"}
}

// parseFault reads the fault in an answer.
func parseFault(body string) *fault {
	f := &fault{}
	dec := xml.NewDecoder(strings.NewReader(body))
	for {
		tok, err := dec.Token()
		if err != nil {
			break
		}
		el, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch el.Name.Local {
		case "WSManFault":
			for _, a := range el.Attr {
				if a.Name.Local == "Code" {
					f.code = a.Value
				}
			}
		case "Text", "Message":
			var s string
			if dec.DecodeElement(&s, &el) == nil && strings.TrimSpace(s) != "" && f.text == "" {
				f.text = strings.TrimSpace(s)
			}
		}
	}
	if f.text == "" {
		f.text = "the machine answered with an error that it did not explain"
	}
	return f
}

// endpoint is the address of a machine's WinRM service.
type endpoint struct {
	host string
	port int
	url  string
}

func newEndpoint(host string, port int, tls bool) endpoint {
	scheme := "http"
	if tls {
		scheme = "https"
	}
	return endpoint{host, port, scheme + "://" + net.JoinHostPort(host, strconv.Itoa(port)) + "/wsman"}
}

// untrusted reports whether err is due to a certificate that is not trusted.
func untrusted(err error) bool {
	var cert *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	return errors.As(err, &cert) || errors.As(err, &unknown) || errors.As(err, &name)
}
