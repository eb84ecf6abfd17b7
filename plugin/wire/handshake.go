package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// MaxHandshake is how many bytes the line may have with which a plugin begins.
const MaxHandshake = 4 << 10

// Address is where a plugin listens: for one connection.
type Address struct {
	Network string // "unix" or "tcp"
	Addr    string
}

// ParseHandshake reads the line that a plugin writes when it listens:
// "5|0|NETWORK|ADDRESS", of which 5.0 is the version of the protocol. A plugin listens
// on this machine only.
func ParseHandshake(line string) (Address, error) {
	part := strings.Split(strings.TrimRight(line, "\r\n"), "|")
	if len(part) != 4 {
		return Address{}, fmt.Errorf("%.200q is not the first line of a Packer plugin", line)
	}
	if part[0] != "5" || part[1] != "0" {
		return Address{}, fmt.Errorf("the plugin speaks version %.20s.%.20s of the protocol, and bake speaks 5.0", part[0], part[1])
	}
	a := Address{Network: part[2], Addr: part[3]}
	switch a.Network {
	case "unix":
		if filepath.IsAbs(a.Addr) {
			return a, nil
		}
	case "tcp":
		host, _, err := net.SplitHostPort(a.Addr)
		if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsLoopback() {
			return a, nil
		}
	}
	return Address{}, fmt.Errorf("the plugin listens on %.200q, which is not on this machine", part[2]+" "+part[3])
}

// Line is the handshake for the address.
func (a Address) Line() string { return fmt.Sprintf("5|0|%s|%s\n", a.Network, a.Addr) }

// Dial connects to a plugin. Nobody else can connect after that, and the socket, which
// has served its purpose, is removed.
func (a Address) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, a.Network, a.Addr)
	if err != nil {
		return nil, err
	}
	if a.Network == "unix" {
		if err := os.Remove(a.Addr); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return conn, nil
}
