package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	// wideRange is the number of ports from which on a range is wide: of a wide range,
	// only those ports are opened on which the machine listens.
	wideRange = 200

	// pollListening is the interval at which the machine's listening ports are polled.
	pollListening = time.Second

	// MovedBy is added to a port that this user may not open, or that another program
	// holds on all addresses.
	MovedBy = 20000

	inboundTimeout = 10 * time.Second
)

// usual are the ports that are opened even in wide ranges before the machine listens on
// them, so that an early client reaches the machine.
var usual = []uint16{22, 80, 443}

// publicAddress has a listener on the machine's public address for each port that its
// policy lets some peer reach.
type publicAddress struct {
	r       *Router
	changed chan struct{}

	mu        sync.Mutex
	addr      netip.Addr // invalid if there is none now
	closed    bool
	listeners map[uint16]net.Listener
	failed    map[uint16]bool // not tried again until the policy changes
}

func newPublicAddress(r *Router) *publicAddress {
	p := &publicAddress{r: r, addr: r.cfg.Public, changed: make(chan struct{}, 1), listeners: make(map[uint16]net.Listener), failed: make(map[uint16]bool)}
	p.open(nil)
	return p
}

// run updates the listeners when the machine or the policy changes, until the router ends.
func (p *publicAddress) run() {
	tick := time.NewTicker(pollListening)
	defer tick.Stop()
	for {
		select {
		case <-p.r.ctx.Done():
			return
		case <-tick.C:
			if !p.hasAddress() || !p.hasWideRange() {
				continue
			}
		case <-p.changed:
			p.mu.Lock()
			clear(p.failed)
			p.mu.Unlock()
			p.move()
		}
		ctx, cancel := context.WithTimeout(p.r.ctx, inboundTimeout)
		listening, err := p.r.guest.Listening(ctx)
		cancel()
		if err != nil {
			p.r.log.Debug("cannot determine the machine's listening ports", "machine", p.r.cfg.Private, "error", err)
			continue
		}
		p.open(listening)
	}
}

// move moves the listeners to the machine's current address.
func (p *publicAddress) move() {
	if p.r.cfg.PublicNow == nil {
		return
	}
	addr := p.r.cfg.PublicNow()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || addr == p.addr {
		return
	}
	for _, l := range p.listeners {
		l.Close()
	}
	clear(p.listeners)
	p.addr = addr
}

func (p *publicAddress) change() {
	select {
	case p.changed <- struct{}{}:
	default: // a pending notification covers this change too
	}
}

func (p *publicAddress) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, l := range p.listeners {
		l.Close()
	}
}

func (p *publicAddress) ranges() []PortRange {
	if p.r.cfg.Policy == nil {
		return []PortRange{{1, 65535}}
	}
	return p.r.cfg.Policy.Open()
}

func (p *publicAddress) hasAddress() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addr.IsValid()
}

func (p *publicAddress) hasWideRange() bool {
	for _, r := range p.ranges() {
		if r.wide() {
			return true
		}
	}
	return false
}

func (r PortRange) wide() bool                { return int(r.To)-int(r.From) >= wideRange }
func (r PortRange) contains(port uint16) bool { return r.From <= port && port <= r.To }

// wantedPorts returns the ports to listen on.
func wantedPorts(ranges []PortRange, listening []uint16) map[uint16]bool {
	wanted := make(map[uint16]bool)
	for _, r := range ranges {
		if r.wide() {
			for _, ports := range [][]uint16{usual, listening} {
				for _, port := range ports {
					if r.contains(port) {
						wanted[port] = true
					}
				}
			}
			continue
		}
		for port := int(r.From); port <= int(r.To); port++ {
			wanted[uint16(port)] = true
		}
	}
	delete(wanted, 0)
	return wanted
}

// open opens and closes listeners according to the policy and the machine's listening
// ports.
func (p *publicAddress) open(listening []uint16) {
	wanted := wantedPorts(p.ranges(), listening)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.addr.IsValid() {
		return
	}
	for port, l := range p.listeners {
		if !wanted[port] {
			l.Close()
			delete(p.listeners, port)
		}
	}
	for port := range wanted {
		if p.listeners[port] != nil || p.failed[port] {
			continue
		}
		l, err := p.listen(port)
		if err != nil {
			p.failed[port] = true
			p.r.log.Warn("cannot listen on the public address", "address", p.addr, "port", port, "error", err)
			continue
		}
		p.listeners[port] = l
		p.r.flows.Go(func() { p.serve(l, port) })
	}
}

// listen opens port on the public address or, if it is not available, the port MovedBy
// higher.
func (p *publicAddress) listen(port uint16) (net.Listener, error) {
	l, err := listenTCP(p.addr, port)
	if err == nil {
		return l, nil
	}
	var remedy string
	switch {
	case errors.Is(err, syscall.EACCES):
		remedy = "sysctl net.ipv4.ip_unprivileged_port_start=0"
	case errors.Is(err, syscall.EADDRINUSE):
		remedy = "make the program that holds the port listen on its own address only"
	default:
		return nil, err
	}
	moved := int(port) + MovedBy
	if moved > 0xffff {
		return nil, err
	}
	l, again := listenTCP(p.addr, uint16(moved))
	if again != nil {
		return nil, errors.Join(err, again)
	}
	p.r.log.Warn("the port is not available, listening on another one", "address", p.addr, "port", port, "instead", moved, "error", err, "remedy", remedy)
	return l, nil
}

func listenTCP(addr netip.Addr, port uint16) (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort(addr.String(), strconv.Itoa(int(port))))
}

func (p *publicAddress) serve(l net.Listener, port uint16) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of file descriptors, or the client gave up
			p.r.log.Warn("cannot accept", "address", l.Addr(), "error", err)
			select {
			case <-p.r.ctx.Done():
				return
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		p.r.flows.Go(func() { p.admit(c, port) })
	}
}

// admit connects a client to the machine. It resets the client if the policy does not
// allow it or the machine refuses the connection.
func (p *publicAddress) admit(c net.Conn, port uint16) {
	from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if policy := p.r.cfg.Policy; policy != nil && !policy.Ingress(TCP, from, port) {
		abort(c)
		return
	}
	ctx, cancel := context.WithTimeout(p.r.ctx, inboundTimeout)
	defer cancel()
	inside, err := p.r.guest.Dial(ctx, port)
	if err != nil {
		p.r.log.Debug("the machine refused the connection", "address", c.LocalAddr(), "error", err)
		abort(c)
		return
	}
	if linked, ok := p.r.cfg.Policy.(Linked); ok {
		defer context.AfterFunc(linked.Link(), func() { abort(c); abort(inside) })()
	}
	pipe(p.r.ctx, c, inside)
}
