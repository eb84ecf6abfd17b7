//go:build linux

package main

import (
	"net"
	"sync"
	"time"
)

// relay connects each of its connections to one that dial opens, and delays data by half
// of a round trip in either direction. It does not limit the amount of data in transit.
type relay struct {
	net.Listener
	delay   time.Duration
	buffers sync.Pool // for data in transit; shared, because the relay's own cost is part of every measurement
}

// newRelay starts a relay with a round trip of rtt.
func newRelay(rtt time.Duration, dial func() (net.Conn, error)) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{Listener: ln, delay: rtt / 2}
	r.buffers.New = func() any { return new(relayBuffer) }
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				far, err := dial()
				if err != nil {
					near.Close()
					return
				}
				go r.carry(near, far)
				r.carry(far, near)
			}()
		}
	}()
	return r, nil
}

func (r *relay) port() int { return r.Addr().(*net.TCPAddr).Port }

type relayBuffer [128 << 10]byte

// carry copies from one connection to another until the first ends.
func (r *relay) carry(from, to net.Conn) {
	type piece struct {
		buffer *relayBuffer
		n      int
		due    time.Time
	}
	var (
		mu    sync.Mutex
		more  = sync.NewCond(&mu)
		queue []piece
		ended bool
	)
	go func() {
		for {
			b := r.buffers.Get().(*relayBuffer)
			n, err := from.Read(b[:])
			mu.Lock()
			if n > 0 {
				queue = append(queue, piece{b, n, time.Now().Add(r.delay)})
			}
			ended = err != nil
			more.Signal()
			mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	for {
		mu.Lock()
		for len(queue) == 0 && !ended {
			more.Wait()
		}
		if len(queue) == 0 {
			mu.Unlock()
			break
		}
		p := queue[0]
		queue = queue[1:]
		mu.Unlock()
		time.Sleep(time.Until(p.due))
		_, err := to.Write(p.buffer[:p.n])
		r.buffers.Put(p.buffer)
		if err != nil {
			from.Close()
			break
		}
	}
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
