package localcloud

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// Connect connects to addr through the local cloud at endpoint, an HTTP proxy with
// the method CONNECT.
func Connect(ctx context.Context, endpoint, addr string) (net.Conn, error) {
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("the local cloud's endpoint: %w", err)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, fmt.Errorf("the local cloud does not answer: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	fail := func(err error) (net.Conn, error) {
		conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, err
	}
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if err := req.Write(conn); err != nil {
		return fail(fmt.Errorf("the local cloud: %w", err))
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return fail(fmt.Errorf("the local cloud: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fail(fmt.Errorf("the local cloud cannot connect to %s: %s %s", addr, resp.Status, text))
	}
	return &tunnel{Conn: conn, in: in}, nil
}

// tunnel is a connection some of whose first bytes have been read ahead.
type tunnel struct {
	net.Conn
	in *bufio.Reader
}

func (t *tunnel) Read(b []byte) (int, error) { return t.in.Read(b) }

// CloseWrite tells the other side that no more will be sent.
func (t *tunnel) CloseWrite() error {
	if c, ok := t.Conn.(*net.TCPConn); ok {
		return c.CloseWrite()
	}
	return nil
}
