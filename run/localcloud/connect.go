package localcloud

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"

	"bake/internal/httpconnect"
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
	conn, err = httpconnect.Tunnel(ctx, conn, addr, nil)
	if err != nil {
		return nil, fmt.Errorf("the local cloud cannot connect to %s: %w", addr, err)
	}
	return conn, nil
}

// stranger reports whether err, from Connect, means that the server at the endpoint is not
// a local cloud.
func stranger(err error) bool {
	refused, ok := errors.AsType[*httpconnect.RefusedError](err)
	return ok && refused.Header.Get("Server") != cloudServer
}

// cloudServer is the server name of a local cloud in responses that refuse a connection.
const cloudServer = "bake-cloud"
