package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/crypto/ssh"

	"bake/communicator"
)

// Forward implements [communicator.Forwarder].
func (c *Client) Forward(ctx context.Context, addr string) (net.Conn, error) {
	l, err := c.connected(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := within(ctx, func() (net.Conn, error) { return l.DialContext(ctx, "tcp", addr) }, func(c net.Conn) { c.Close() })
	refused := (*ssh.OpenChannelError)(nil)
	switch {
	case err == nil:
		return conn, nil
	case errors.As(err, &refused):
		if refused.Reason == ssh.Prohibited || refused.Reason == ssh.UnknownChannelType {
			return nil, fmt.Errorf("%w: %s", communicator.ErrNoForwarding, refused.Message)
		}
		return nil, fmt.Errorf("%s: %w", addr, err)
	case context.Cause(ctx) != nil:
		return nil, context.Cause(ctx)
	}
	return nil, c.lost(ctx, l, err)
}
