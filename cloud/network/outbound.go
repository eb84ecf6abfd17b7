package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// handleTCP is called for every new connection of the machine. It completes the machine's
// handshake only after the other side has answered, so that the machine sees what it would
// on a real network: a connection, a reset, or nothing.
func (r *Router) handleTCP(req *tcp.ForwarderRequest) {
	to := destination(req.ID())
	where, peer := r.locate(TCP, to)
	switch where {
	case metadata:
		if c := accept(req); c != nil {
			r.visitors.push(c)
		}
	case resolving:
		if c := accept(req); c != nil {
			r.flows.Go(func() { r.resolver.serveStream(r.ctx, c) })
		}
	case neighbour:
		r.flows.Go(func() {
			r.connect(req, func(ctx context.Context) (net.Conn, error) { return peer.Dial(ctx, r.cfg.Private, to.Port()) })
		})
	case outside:
		r.flows.Go(func() {
			r.connect(req, func(ctx context.Context) (net.Conn, error) {
				if !r.cfg.Reach.admits(ctx, to) {
					return nil, errOutOfReach
				}
				var d net.Dialer
				return d.DialContext(ctx, "tcp4", to.String())
			})
		})
	case prohibited, nothing:
		r.log.Debug("dropped", "machine", r.cfg.Private, "tcp", to)
		req.Complete(false)
	default:
		req.Complete(true)
	}
}

// errOutOfReach refuses the machine's connection at once: a program that only times out
// gives its user less information.
var errOutOfReach = fmt.Errorf("an address of the host or of a private network, which machines may not reach: %w", syscall.ECONNREFUSED)

// connect connects the machine's connection to the one that dial opens.
func (r *Router) connect(req *tcp.ForwarderRequest, dial func(context.Context) (net.Conn, error)) {
	ctx, cancel := context.WithTimeout(r.ctx, dialTimeout)
	defer cancel()
	release, ok := r.hold()
	if !ok {
		req.Complete(false)
		return
	}
	defer release()
	out, err := dial(ctx)
	if err != nil {
		r.log.Debug("not connected", "machine", r.cfg.Private, "to", destination(req.ID()), "error", err)
		req.Complete(refused(err))
		return
	}
	in := accept(req)
	if in == nil {
		abort(out)
		return
	}
	pipe(r.ctx, in, out)
}

// accept completes the machine's handshake. It returns nil if the machine has gone.
func accept(req *tcp.ForwarderRequest) net.Conn {
	var queue waiter.Queue
	ep, err := req.CreateEndpoint(&queue)
	if err != nil {
		req.Complete(true)
		return nil
	}
	req.Complete(false)
	ep.SocketOptions().SetKeepAlive(true)
	return &machineConn{gonet.NewTCPConn(&queue, ep), ep}
}

// machineConn is a connection of the machine that can be reset.
type machineConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
}

func (c *machineConn) reset() {
	c.ep.Abort()
	_ = c.Close()
}

// handleUDP is called for every packet that does not belong to a flow yet. A packet that
// it does not handle is answered with "port unreachable".
func (r *Router) handleUDP(req *udp.ForwarderRequest) bool {
	to := destination(req.ID())
	where, _ := r.locate(UDP, to)
	switch where {
	case resolving, outside:
		release, ok := r.hold()
		if !ok {
			return true
		}
		c := acceptUDP(req)
		if c == nil {
			release()
			return true
		}
		r.flows.Go(func() {
			defer release()
			if where == resolving {
				r.resolver.servePackets(r.ctx, c)
			} else {
				r.exchange(c, to)
			}
		})
		return true
	case prohibited, nothing, neighbour:
		return true
	default:
		return false
	}
}

func acceptUDP(req *udp.ForwarderRequest) *gonet.UDPConn {
	var queue waiter.Queue
	ep, err := req.CreateEndpoint(&queue)
	if err != nil {
		return nil
	}
	return gonet.NewUDPConn(&queue, ep)
}

// exchange forwards packets in both directions until neither side has sent one for some
// time.
func (r *Router) exchange(in net.Conn, to netip.AddrPort) {
	defer in.Close()
	if !r.cfg.Reach.admits(r.ctx, to) {
		r.log.Debug("dropped", "machine", r.cfg.Private, "udp", to, "error", errOutOfReach)
		return
	}
	var d net.Dialer
	out, err := d.DialContext(r.ctx, "udp4", to.String())
	if err != nil {
		return
	}
	defer out.Close()
	stop := context.AfterFunc(r.ctx, func() { in.Close(); out.Close() })
	defer stop()

	back := make(chan struct{})
	go func() {
		defer close(back)
		copyPackets(in, out)
		in.Close()
	}()
	copyPackets(out, in)
	out.Close()
	<-back
}

func copyPackets(dst, src net.Conn) {
	b := make([]byte, 64<<10)
	for {
		deadline := time.Now().Add(udpIdle)
		src.SetReadDeadline(deadline)
		dst.SetReadDeadline(deadline)
		n, err := src.Read(b)
		if err != nil {
			return
		}
		if _, err := dst.Write(b[:n]); err != nil {
			return
		}
	}
}

func destination(id stack.TransportEndpointID) netip.AddrPort {
	return netip.AddrPortFrom(netAddr(id.LocalAddress), id.LocalPort)
}
