package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// maxHandshake is the largest length of a plugin's first line, in bytes.
const maxHandshake = 4 << 10

// Address is the address on which a plugin listens for one connection.
type Address struct {
	Network string // "unix" or "tcp"
	Addr    string
}

// ParseHandshake parses the line that a plugin prints when it listens: "5|0|NETWORK|ADDRESS", where
// 5.0 is the version of the protocol. It accepts only addresses on this machine.
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

// FirstLine receives a plugin's standard output. It sends the first line to C, without surrounding
// space and cut to the size of a handshake, and drops the rest.
type FirstLine struct {
	C    chan string // has room for the line; closed by the caller after the last write
	text []byte
	done bool
}

// NewFirstLine returns an empty FirstLine.
func NewFirstLine() *FirstLine { return &FirstLine{C: make(chan string, 1)} }

// Write implements [io.Writer].
func (w *FirstLine) Write(b []byte) (int, error) {
	if w.done {
		return len(b), nil
	}
	w.text = append(w.text, b[:min(len(b), maxHandshake)]...)
	line, _, whole := bytes.Cut(w.text, []byte("\n"))
	if whole || len(w.text) > maxHandshake {
		w.done, w.text = true, nil
		w.C <- strings.TrimSpace(string(line))
	}
	return len(b), nil
}

// Line returns the handshake for the address.
func (a Address) Line() string { return fmt.Sprintf("5|0|%s|%s\n", a.Network, a.Addr) }

// Dial connects to a plugin and removes the socket, which is no longer needed, so that no other
// process can connect.
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
