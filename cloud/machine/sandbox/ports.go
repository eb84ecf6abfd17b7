package sandbox

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// listeningPorts returns the TCP ports on which something listens in the
// network namespace of this process. It leaves out ports that only the
// machine's own loopback interface reaches.
func listeningPorts() ([]uint16, error) {
	ports, err := diagnosedPorts()
	if err != nil { // a kernel without this interface
		return listedPorts("/proc/self/net/tcp", "/proc/self/net/tcp6")
	}
	return ports, nil
}

// listenersOnly is struct inet_diag_req_v2 of sock_diag(7): it asks for the
// listening TCP sockets of a family. The kernel then leaves alone its table of
// connections, which may have hundreds of thousands of rows, empty or not.
type listenersOnly struct{ family uint8 }

func (l listenersOnly) Len() int { return 56 }

func (l listenersOnly) Serialize() []byte {
	const stateListen = 10
	b := make([]byte, l.Len())
	b[0], b[1] = l.family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(b[4:], 1<<stateListen)
	return b
}

// diagnosedPorts asks the kernel for the ports, see sock_diag(7).
func diagnosedPorts() (ports []uint16, err error) {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
		request.AddData(listenersOnly{family})
		sockets, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
		if err != nil {
			return nil, err
		}
		for _, s := range sockets {
			if port, ok := diagnosedPort(s); ok && !slices.Contains(ports, port) {
				ports = append(ports, port)
			}
		}
	}
	return ports, nil
}

// diagnosedPort returns the port from a struct inet_diag_msg, unless the socket
// is bound to a loopback address.
func diagnosedPort(socket []byte) (port uint16, ok bool) {
	const portAt, addressAt = 4, 8
	if len(socket) < addressAt+16 {
		return 0, false
	}
	size := 4
	if socket[0] == unix.AF_INET6 {
		size = 16
	}
	addr, _ := netip.AddrFromSlice(socket[addressAt : addressAt+size])
	return binary.BigEndian.Uint16(socket[portAt:]), !addr.IsLoopback()
}

// listedPorts reads the ports from files in the format of /proc/net/tcp, see
// proc(5). A file that does not exist lists none.
func listedPorts(files ...string) ([]uint16, error) {
	seen := make(map[uint16]bool)
	var ports []uint16
	for _, file := range files {
		b, err := os.ReadFile(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			const listen = "0A"
			fields := strings.Fields(line)
			if len(fields) < 4 || fields[3] != listen {
				continue
			}
			addr, hex, ok := strings.Cut(fields[1], ":")
			port, err := strconv.ParseUint(hex, 16, 16)
			if !ok || err != nil || seen[uint16(port)] || isLoopbackHex(addr) {
				continue
			}
			seen[uint16(port)] = true
			ports = append(ports, uint16(port))
		}
	}
	return ports, nil
}

// isLoopbackHex reports whether an address is in 127.0.0.0/8 or is ::1. The
// kernel prints it in hexadecimal, each group of four bytes in the host's byte
// order.
func isLoopbackHex(addr string) bool {
	switch len(addr) {
	case 8:
		return littleEndian() && addr[6:] == "7F" || !littleEndian() && addr[:2] == "7F"
	case 32:
		return addr[:24] == strings.Repeat("0", 24) && (addr[24:] == "01000000" || addr[24:] == "00000001")
	}
	return false
}
