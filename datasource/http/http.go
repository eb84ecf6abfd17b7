// Package http is the http data source: it makes one HTTP request.
package http

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"bake/component"
	"bake/config/schema"
	"bake/datasource"
)

// Options of the data source http.
type Options struct {
	// URL to request, http or https.
	URL string `hcl:"url"`

	// HTTP method of the request.
	Method Method `hcl:"method,optional"`

	// Headers of the request, by name.
	RequestHeaders map[string]string `hcl:"request_headers,optional"`

	// Body of the request. Usually needs `method = "POST"`.
	RequestBody string `hcl:"request_body,optional"`
}

// Method is an HTTP method.
type Method string

// Choices implements [schema.Choices].
func (Method) Choices() []string {
	return []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (m *Method) UnmarshalText(b []byte) error { return schema.ParseChoice(m, b, m.Choices()) }

// Validate implements [schema.Validator].
func (o *Options) Validate(c *schema.Checker) {
	if !c.Known(&o.URL) {
		return
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		c.Errorf(&o.URL, "Not an HTTP URL", "%q is not a URL such as https://example.com/path.", o.URL)
	}
}

const (
	// timeout is for the whole request, redirects and body included.
	timeout = 2 * time.Minute
	// maxBody is far more than an expression of a template can make use of.
	maxBody = 16 << 20
)

// Factory makes the data source. Its output request_headers holds the headers of the
// response, which is the name that templates expect. If a header is repeated, its values
// are joined with commas.
func Factory() component.Factory[datasource.DataSource] {
	return component.Define("http", func() Options { return Options{Method: http.MethodGet} },
		func(o *Options, src *schema.Source) datasource.DataSource { return &data{o, src} }).
		Exporting(map[string]cty.Type{"url": cty.String, "body": cty.String, "request_headers": cty.Map(cty.String)})
}

type data struct {
	*Options
	src *schema.Source
}

// Read implements [datasource.DataSource].
func (d *data) Read(ctx context.Context) (cty.Value, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no complete response within %s", timeout))
	defer cancel()
	resp, body, err := d.fetch(ctx)
	switch {
	case err != nil && ctx.Err() != nil:
		return cty.NilVal, d.failed("%s", context.Cause(ctx))
	case err != nil:
		// The URL in *url.Error is already known, and may contain a password.
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err
		}
		return cty.NilVal, d.failed("%s", err)
	case resp.StatusCode/100 != 2:
		return cty.NilVal, d.failed("the server responded with %s", resp.Status)
	case len(body) > maxBody:
		return cty.NilVal, d.failed("the response is larger than %d MiB", maxBody>>20)
	case !utf8.Valid(body):
		return cty.NilVal, d.failed("the response, of type %q, is not UTF-8 text; download such files in a provisioner", resp.Header.Get("Content-Type"))
	}
	headers := map[string]cty.Value{}
	for name, values := range resp.Header {
		headers[name] = cty.StringVal(strings.ToValidUTF8(strings.Join(values, ", "), "\uFFFD"))
	}
	headersVal := cty.MapValEmpty(cty.String)
	if len(headers) > 0 {
		headersVal = cty.MapVal(headers)
	}
	return cty.ObjectVal(map[string]cty.Value{
		"url": cty.StringVal(d.URL), "body": cty.StringVal(string(body)), "request_headers": headersVal,
	}), nil
}

// Waits implements [datasource.Remote].
func (d *data) Waits() string { return fmt.Sprintf("%s, for at most %s", d.request(), timeout) }

// request is the request, for messages.
func (d *data) request() string {
	u, err := url.Parse(d.URL)
	if err != nil {
		return string(d.Method) // Validate has parsed it
	}
	return string(d.Method) + " " + u.Redacted()
}

// fetch makes the request. Of a body that is too long it returns a little more
// than is allowed.
func (d *data) fetch(ctx context.Context) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, string(d.Method), d.URL, strings.NewReader(d.RequestBody))
	if err != nil {
		return nil, nil, err
	}
	for name, value := range d.RequestHeaders {
		req.Header.Set(name, value)
		if http.CanonicalHeaderKey(name) == "Host" {
			req.Host = value
		}
	}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	return resp, body, err
}

func (d *data) failed(format string, args ...any) error {
	return d.src.Errorf(&d.URL, "Unusable response", "%s: %s.", d.request(), fmt.Sprintf(format, args...))
}
