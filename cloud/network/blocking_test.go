package network

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// TestPatientCard writes more frames at once than the link can hold.
func TestPatientCard(t *testing.T) {
	const frames = 2000
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	raw, err := fdbased.New(&fdbased.Options{FDs: []int{pair[0]}, MTU: 1500, PacketDispatchMode: fdbased.RecvMMsg})
	if err != nil {
		t.Fatal(err)
	}
	card := newBlockingEndpoint(raw, pair[0])

	var list stack.PacketBufferList
	for i := range frames {
		list.PushBack(stack.NewPacketBuffer(stack.PacketBufferOptions{
			ReserveHeaderBytes: header.EthernetMinimumSize, Payload: buffer.MakeWithData([]byte{byte(i), 1, 2, 3}),
		}))
	}
	read := make(chan int)
	go func() {
		// The link is full before the first frame is read.
		for full := []unix.PollFd{{Fd: int32(pair[0]), Events: unix.POLLOUT}}; ; {
			if n, err := unix.Poll(full, 0); n == 0 && err == nil {
				break
			}
		}
		time.Sleep(50 * time.Millisecond) // give the writer time to find it full
		b := make([]byte, 100)
		for i := range frames {
			n, err := unix.Read(pair[1], b)
			if err != nil || n != 4 || b[0] != byte(i) {
				read <- i
				return
			}
		}
		read <- frames
	}()
	if n, err := card.WritePackets(list); n != frames || err != nil {
		unix.Shutdown(pair[0], unix.SHUT_WR)
		t.Errorf("%d of %d frames were written: %v", n, frames, err)
	}
	if n := <-read; n != frames {
		t.Errorf("%d of %d frames arrived", n, frames)
	}
	list.DecRef()
}

// TestPatienceEnds never reads the link.
func TestPatienceEnds(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	raw, err := fdbased.New(&fdbased.Options{FDs: []int{pair[0]}, MTU: 1500, PacketDispatchMode: fdbased.RecvMMsg})
	if err != nil {
		t.Fatal(err)
	}
	var list stack.PacketBufferList
	for range 10000 {
		list.PushBack(stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData([]byte("frame"))}))
	}
	if n, err := newBlockingEndpoint(raw, pair[0]).WritePackets(list); err == nil || n >= 10000 {
		t.Errorf("%d frames were written: %v", n, err)
	}
	list.DecRef()
}
