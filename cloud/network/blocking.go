package network

import (
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/link/nested"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// blockingEndpoint waits when the link accepts no more frames, instead of dropping them.
// TCP recovers from such losses at only a few segments per timeout.
type blockingEndpoint struct {
	nested.Endpoint
	fd int
}

// patience is how long one write waits before it drops the rest: a machine that reads
// nothing must not prevent the router from ending.
const patience = time.Second

func newBlockingEndpoint(card stack.LinkEndpoint, fd int) *blockingEndpoint {
	c := &blockingEndpoint{fd: fd}
	c.Init(card, c)
	return c
}

// WritePackets implements stack.LinkWriter.
func (c *blockingEndpoint) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	deadline := time.Now().Add(patience)
	for written := 0; ; {
		n, err := c.Endpoint.WritePackets(packets)
		written += n
		if _, full := err.(*tcpip.ErrWouldBlock); !full {
			return written, err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return written, err
		}
		// Ignore an error or a signal here: if it matters, the next write fails.
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}, int(left.Milliseconds())+1)
		var rest stack.PacketBufferList
		for _, p := range packets.AsSlice()[n:] {
			rest.PushBack(p) // the caller keeps its references
		}
		packets = rest
	}
}
