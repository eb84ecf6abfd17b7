package facts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"bake/communicator"
)

// recordTypes are the record types that can be queried.
var recordTypes = []struct {
	name string
	id   dnsmessage.Type
}{
	{"A", dnsmessage.TypeA}, {"AAAA", dnsmessage.TypeAAAA}, {"CAA", typeCAA}, {"CNAME", dnsmessage.TypeCNAME}, {"MX", dnsmessage.TypeMX},
	{"NS", dnsmessage.TypeNS}, {"PTR", dnsmessage.TypePTR}, {"SRV", dnsmessage.TypeSRV}, {"SSHFP", typeSSHFP}, {"TXT", dnsmessage.TypeTXT},
}

// recordType returns the record type of that name, or 0, which is none.
func recordType(name string) dnsmessage.Type {
	for _, t := range recordTypes {
		if t.name == name {
			return t.id
		}
	}
	return 0
}

// Types that package dnsmessage does not define.
const (
	typeSSHFP dnsmessage.Type = 44
	typeCAA   dnsmessage.Type = 257
)

// record returns the type and the name of a dns question such as MX:example.org. Without a type
// it is A.
func (q Question) record() (kind, name string, err error) {
	kind, name, typed := strings.Cut(q.Key, ":")
	if !typed {
		return "A", q.Key, nil
	}
	kind = strings.ToUpper(kind)
	if recordType(kind) == 0 {
		return "", "", fmt.Errorf("records of the type %s cannot be asked for, only A, AAAA, CAA, CNAME, MX, NS, PTR, SRV, SSHFP and TXT", kind)
	}
	if q.Options["server"] == "" {
		return "", "", fmt.Errorf("records of a type are asked of a DNS server: set server")
	}
	return kind, name, nil
}

// server returns the address of the DNS server.
func (q Question) server() string {
	server := q.Options["server"]
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "53")
}

// dialDNS queries a DNS server over TCP, since only connections can be forwarded.
func dialDNS(ctx context.Context, f communicator.Forwarder, q Question, _ Answer) (Answer, error) {
	kind, name, err := q.record()
	if err != nil {
		return all(unknown(err.Error()), q), nil
	}
	kinds := []string{kind}
	if !strings.Contains(q.Key, ":") {
		kinds = append(kinds, "AAAA")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, q.patience(standard)+detour, errTimeout)
	defer cancel()
	var found []string
	for _, kind := range kinds {
		values, err := lookUp(ctx, f, q.server(), kind, name)
		if errors.Is(err, communicator.ErrNoForwarding) || errors.Is(err, communicator.ErrDisconnected) {
			return nil, err
		}
		if err != nil {
			return all(unknown(why(ctx, err)), q), nil
		}
		found = append(found, values...)
	}
	return resolved(found), nil
}

// resolved returns the answer to a dns question.
func resolved(found []string) Answer {
	if len(found) == 0 {
		return absent("resolvable", "it cannot be resolved", "addrs")
	}
	slices.Sort(found)
	return Answer{"resolvable": known(true), "addrs": known(slices.Compact(found))}
}

// lookUp queries a server for records.
func lookUp(ctx context.Context, f communicator.Forwarder, server, kind, name string) ([]string, error) {
	if kind == "PTR" {
		name = reversed(name)
	}
	full, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return nil, fmt.Errorf("%.80q is no name: %w", name, err)
	}
	question := dnsmessage.Question{Name: full, Type: recordType(kind), Class: dnsmessage.ClassINET}
	query := dnsmessage.Message{
		Header: dnsmessage.Header{ID: uint16(rand.Uint32()), RecursionDesired: true}, Questions: []dnsmessage.Question{question}, // over TCP the ID need not be unpredictable
	}
	packed, err := query.AppendPack(make([]byte, 2, 512))
	if err != nil {
		return nil, fmt.Errorf("%.80q is no name: %w", name, err)
	}
	binary.BigEndian.PutUint16(packed, uint16(len(packed)-2)) // a name has at most 255 bytes
	conn, err := f.Forward(ctx, server)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil { // a forwarded connection may not support deadlines
			defer time.AfterFunc(time.Until(deadline), func() { _ = conn.Close() }).Stop()
		}
	}
	if _, err := conn.Write(packed); err != nil {
		return nil, err
	}
	var size [2]byte
	if _, err := io.ReadFull(conn, size[:]); err != nil {
		return nil, fmt.Errorf("the server %s does not answer: %w", server, err)
	}
	response := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(conn, response); err != nil {
		return nil, fmt.Errorf("the server %s does not answer: %w", server, err)
	}
	return records(response, query.ID, question)
}

// reversed returns the name for the reverse lookup of an address.
func reversed(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	var labels []string
	if ip = ip.Unmap(); ip.Is4() {
		for _, b := range ip.As4() {
			labels = append(labels, fmt.Sprint(b))
		}
	} else {
		for _, b := range ip.As16() {
			labels = append(labels, fmt.Sprintf("%x", b>>4), fmt.Sprintf("%x", b&15))
		}
	}
	slices.Reverse(labels)
	if ip.Is4() {
		return strings.Join(labels, ".") + ".in-addr.arpa"
	}
	return strings.Join(labels, ".") + ".ip6.arpa"
}

// records returns the values of the records that answer the question in a response, in
// goss's notation.
func records(response []byte, id uint16, asked dnsmessage.Question) (values []string, err error) {
	var m dnsmessage.Message
	if err := m.Unpack(response); err != nil {
		return nil, fmt.Errorf("the server's answer cannot be read: %w", err)
	}
	switch {
	case m.ID != id || !m.Response:
		return nil, errors.New("the server answers something else")
	case m.RCode == dnsmessage.RCodeNameError:
		return nil, nil
	case m.RCode != dnsmessage.RCodeSuccess:
		return nil, fmt.Errorf("the server refuses: %s", strings.TrimPrefix(m.RCode.String(), "RCode"))
	}
	for _, r := range m.Answers {
		if r.Header.Type == asked.Type {
			values = append(values, recordText(r.Body)...)
		}
	}
	return values, nil
}

// recordText returns the value of a record.
func recordText(body dnsmessage.ResourceBody) []string {
	switch r := body.(type) {
	case *dnsmessage.AResource:
		return []string{netip.AddrFrom4(r.A).String()}
	case *dnsmessage.AAAAResource:
		return []string{netip.AddrFrom16(r.AAAA).String()}
	case *dnsmessage.CNAMEResource:
		return []string{r.CNAME.String()}
	case *dnsmessage.NSResource:
		return []string{r.NS.String()}
	case *dnsmessage.PTRResource:
		return []string{r.PTR.String()}
	case *dnsmessage.MXResource:
		return []string{fmt.Sprintf("%d %s", r.Pref, r.MX)}
	case *dnsmessage.SRVResource:
		return []string{fmt.Sprintf("%d %d %d %s", r.Priority, r.Weight, r.Port, r.Target)}
	case *dnsmessage.TXTResource:
		return r.TXT
	case *dnsmessage.UnknownResource:
		switch d := r.Data; {
		case r.Type == typeCAA && len(d) > 1 && len(d) >= 2+int(d[1]):
			return []string{fmt.Sprintf("%d %s %s", d[0], d[2:2+d[1]], d[2+d[1]:])}
		case r.Type == typeSSHFP && len(d) > 2:
			return []string{fmt.Sprintf("%d %d %X", d[0], d[1], d[2:])}
		}
	}
	return nil
}

// askServer queries a DNS server with the machine's dig.
func askServer(p *plan, q Question) reader {
	kind, name, err := q.record()
	host, port, split := net.SplitHostPort(q.server())
	if err == nil {
		err = split
	}
	if err != nil {
		return func([]reply) Answer { return all(unknown(err.Error()), q) }
	}
	kinds := []string{kind}
	if !strings.Contains(q.Key, ":") {
		kinds = append(kinds, "AAAA")
	}
	if kind == "PTR" {
		name = reversed(name)
	}
	var ids []int
	for _, kind := range kinds {
		ids = append(ids, p.short("p_dig", q.seconds(standard), host, port, kind, name))
	}
	return func(r []reply) Answer {
		var found []string
		for i, id := range ids {
			why := r[id].failed()
			values, err := dug(string(r[id].out), kinds[i])
			if why == "" && err != nil {
				why = err.Error()
			}
			if why != "" {
				return all(unknown(why), q)
			}
			found = append(found, values...)
		}
		return resolved(found)
	}
}

// dug returns the values of the records in dig's output.
func dug(out, kind string) (values []string, err error) {
	_, status, _ := strings.Cut(out, "status: ")
	status, _, _ = strings.Cut(status, ",")
	switch status {
	case "NOERROR":
	case "NXDOMAIN":
		return nil, nil
	case "":
		return nil, errors.New("the server does not answer")
	default:
		return nil, fmt.Errorf("the server refuses: %.20q", status)
	}
	for l := range strings.Lines(out) {
		f := strings.Fields(l) // NAME TTL IN TYPE VALUE...
		if len(f) < 5 || strings.HasPrefix(l, ";") || f[3] != kind {
			continue
		}
		value := strings.Join(f[4:], " ")
		if kind == "SSHFP" && len(f) > 6 { // a long fingerprint is in several words
			value = f[4] + " " + f[5] + " " + strings.Join(f[6:], "")
		}
		if kind == "TXT" {
			values = append(values, strings.Split(strings.Trim(value, `"`), `" "`)...)
			continue
		}
		values = append(values, strings.ReplaceAll(value, `"`, ""))
	}
	return values, nil
}
