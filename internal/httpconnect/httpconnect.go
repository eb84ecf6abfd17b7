// Package httpconnect connects to an address through an HTTP proxy, with the method
// CONNECT.
package httpconnect

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"bake/internal/prose"
)

// RefusedError is the answer of a proxy that refused to connect.
type RefusedError struct {
	status string // such as "502 Bad Gateway"; empty: the server does not speak HTTP
	Code   int
	Header http.Header
	text   string // the start of the response body
	err    error
}

func (e *RefusedError) Error() string {
	if e.err != nil {
		return fmt.Sprintf("it does not answer like an HTTP proxy: %v", e.err)
	}
	return strings.TrimSpace(e.status + " " + e.text)
}

func (e *RefusedError) Unwrap() error { return e.err }

// Authorization returns a header with credentials for a proxy.
func Authorization(user, password string) http.Header {
	return http.Header{"Proxy-Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))}}
}

// Tunnel makes the proxy at the other end of conn connect to addr, and returns conn, which
// is then a connection to addr. On an error it closes conn; if the proxy refuses, the
// error is a *RefusedError.
func Tunnel(ctx context.Context, conn net.Conn, addr string, header http.Header) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fail := func(err error) (net.Conn, error) {
		conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	if header == nil {
		header = http.Header{}
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: header}
	if err := req.Write(conn); err != nil {
		return fail(err)
	}
	// Limits what is read from an untrusted server.
	limited := &io.LimitedReader{R: conn, N: 64 << 10}
	in := bufio.NewReader(limited)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return fail(&RefusedError{err: err})
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fail(&RefusedError{status: resp.Status, Code: resp.StatusCode, Header: resp.Header, text: prose.Line(string(text))})
	}
	if !stop() {
		return fail(context.Cause(ctx))
	}
	ahead, _ := in.Peek(in.Buffered())
	return &tunnel{Conn: conn, ahead: ahead}, nil
}

// tunnel is a connection some of whose first bytes have been read ahead.
type tunnel struct {
	net.Conn
	ahead []byte
}

// Read implements [net.Conn].
func (t *tunnel) Read(b []byte) (int, error) {
	if len(t.ahead) > 0 {
		n := copy(b, t.ahead)
		t.ahead = t.ahead[n:]
		return n, nil
	}
	return t.Conn.Read(b)
}

// CloseWrite signals the end of the data to the other side.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
