package network

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	lookupTimeout = 3 * time.Second // for each of the host's resolvers
	nameTTL       = 60              // TTL of the cloud's own names, in seconds
	maxQuery      = 64 << 10
)

// resolver answers the machine's DNS queries: it answers for the cloud's own names itself
// and forwards all other queries, unchanged, to the host's resolvers.
type resolver struct {
	conf  string
	names func(string) (netip.Addr, bool)

	// hold reserves one of the machine's sockets: see [Router.hold].
	hold func() (release func(), ok bool)
}

// servePackets answers the queries of one UDP flow.
func (r *resolver) servePackets(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	defer c.Close()
	b := make([]byte, maxQuery)
	for {
		c.SetReadDeadline(time.Now().Add(dnsIdle))
		n, err := c.Read(b)
		if err != nil {
			return
		}
		query := append([]byte(nil), b[:n]...)
		release, ok := r.hold()
		if !ok {
			continue // like a packet that the network lost
		}
		go func() {
			defer release()
			if answer := r.answer(ctx, "udp", query); answer != nil {
				_, _ = c.Write(answer)
			}
		}()
	}
}

// serveStream answers the queries of one TCP connection, in order.
func (r *resolver) serveStream(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { abort(c) })
	defer stop()
	defer c.Close()
	release, ok := r.hold()
	if !ok {
		return
	}
	defer release()
	for {
		c.SetReadDeadline(time.Now().Add(dnsIdle))
		query, err := readFrame(c)
		if err != nil {
			return
		}
		answer := r.answer(ctx, "tcp", query)
		if answer == nil || writeFrame(c, answer) != nil {
			return
		}
	}
}

// answer returns the reply to a query, or nil if query is not a DNS query.
func (r *resolver) answer(ctx context.Context, network string, query []byte) []byte {
	var p dnsmessage.Parser
	head, err := p.Start(query)
	if err != nil || head.Response {
		return nil
	}
	question, err := p.Question()
	if err != nil {
		return reply(head, nil, dnsmessage.RCodeFormatError, netip.Addr{})
	}
	if r.names != nil && question.Class == dnsmessage.ClassINET {
		name := strings.ToLower(strings.TrimSuffix(question.Name.String(), "."))
		if addr, ok := r.names(name); ok {
			return reply(head, &question, dnsmessage.RCodeSuccess, addr)
		}
	}
	for _, server := range r.servers() {
		if answer, err := ask(ctx, network, server, query); err == nil {
			return answer
		}
	}
	return reply(head, &question, dnsmessage.RCodeServerFailure, netip.Addr{})
}

// reply builds an answer, which contains addr if the question asks for IPv4 addresses.
// Names that exist have no other records.
func reply(head dnsmessage.Header, question *dnsmessage.Question, code dnsmessage.RCode, addr netip.Addr) []byte {
	m := dnsmessage.Message{Header: dnsmessage.Header{
		ID: head.ID, Response: true, OpCode: head.OpCode, RecursionDesired: head.RecursionDesired, RecursionAvailable: true, RCode: code,
	}}
	if question != nil {
		m.Questions = []dnsmessage.Question{*question}
		if addr.Is4() && (question.Type == dnsmessage.TypeA || question.Type == dnsmessage.TypeALL) {
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: question.Name, Type: dnsmessage.TypeA, Class: question.Class, TTL: nameTTL},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
	}
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// ask sends the query to one of the host's resolvers.
func ask(ctx context.Context, network, server string, query []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var d net.Dialer
	c, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if network == "tcp" {
		if err := writeFrame(c, query); err != nil {
			return nil, err
		}
		return readFrame(c)
	}
	if _, err := c.Write(query); err != nil {
		return nil, err
	}
	b := make([]byte, maxQuery)
	for {
		n, err := c.Read(b)
		if err != nil {
			return nil, err
		}
		if n >= 2 && b[0] == query[0] && b[1] == query[1] {
			return b[:n], nil
		}
	}
}

// servers returns the host's resolvers as host:port. If the host's configuration names
// none, it is the resolver on the host itself.
func (r *resolver) servers() []string {
	path := r.conf
	if path == "" {
		path = "/etc/resolv.conf"
	}
	var servers []string
	if f, err := os.Open(path); err == nil {
		defer f.Close()
		servers = parseResolvConf(f)
	}
	if len(servers) == 0 {
		return []string{"127.0.0.1:53"}
	}
	return servers
}

func parseResolvConf(r io.Reader) []string {
	var servers []string
	for s := bufio.NewScanner(r); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if addr, err := netip.ParseAddr(fields[1]); err == nil {
			servers = append(servers, netip.AddrPortFrom(addr, 53).String())
		}
	}
	return servers
}

// readFrame and writeFrame transfer one DNS message over TCP (RFC 1035, 4.2.2).
func readFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, b)
	return b, err
}

func writeFrame(w io.Writer, b []byte) error {
	if len(b) > 0xffff {
		return errors.New("DNS message too long")
	}
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
