package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"bake/internal/local"
)

func (p *program) ncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "nc HOST PORT",
		Short: "Connect standard input and output to a port of a local machine",
		Long: `Connect standard input and output to a port of a machine of the local cloud, which
'bake cloud up' must be serving. It reaches ports that the host does not let an
ordinary user listen on, such as 22, and is meant for SSH.`,
		Example: `  ssh -o ProxyCommand='bake nc %h %p' admin@127.10.0.4`,
		Args:    exactly("the host", "the port"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.nc(cmd.Context(), net.JoinHostPort(args[0], args[1]))
		},
	}
}

func (p *program) nc(ctx context.Context, addr string) error {
	dir, err := p.env.cloudDir()
	if err != nil {
		return err
	}
	endpoint, err := local.Endpoint(dir)
	if err != nil {
		return fmt.Errorf("no local cloud is being served; start one with 'bake cloud up' (%w)", err)
	}
	conn, err := connectThrough(ctx, endpoint, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	go func() {
		io.Copy(conn, p.stdin)
		if w, ok := conn.(interface{ CloseWrite() error }); ok {
			w.CloseWrite()
		}
	}()
	_, err = io.Copy(p.stdout, conn)
	return err
}

// connectThrough connects to addr through the HTTP proxy at endpoint, with the
// method CONNECT.
func connectThrough(ctx context.Context, endpoint, addr string) (net.Conn, error) {
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
