package network

import (
	"io"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// tcpPair returns the two ends of a connection.
func tcpPair(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	return c.(*net.TCPConn), s.(*net.TCPConn)
}

// TestPipeAcknowledges checks that a conversation of small messages leaves no acknowledgment
// to the kernel, which would delay it, and that what follows in a stream arrives too.
func TestPipeAcknowledges(t *testing.T) {
	client, public := tcpPair(t)
	private, server := tcpPair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		pipe(t.Context(), public, private)
	}()
	say := func(from, to net.Conn) {
		t.Helper()
		if _, err := from.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		say(client, server)
		say(server, client)
	}
	raw, err := private.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var quick int
	if cerr := raw.Control(func(fd uintptr) { quick, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK) }); cerr != nil || err != nil || quick != 1 {
		t.Errorf("acknowledgments of what the server sends are delayed: %d, %v, %v", quick, err, cerr)
	}
	const rest = 3*promptBytes + 1
	go func() {
		_, _ = server.Write(make([]byte, rest))
		server.Close()
	}()
	if n, err := io.Copy(io.Discard, client); n != rest || err != nil {
		t.Errorf("%d bytes of %d came: %v", n, rest, err)
	}
	client.Close()
	<-done
}
