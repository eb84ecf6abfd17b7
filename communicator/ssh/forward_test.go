package ssh_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/communicator/commtest"
	"bake/communicator/ssh"
)

// forwarder logs in to a server, which exists for the test.
func forwarder(t *testing.T, start func(t testing.TB, key gossh.PublicKey) *commtest.Server) communicator.Forwarder {
	t.Helper()
	key := newKey(t)
	c := connect(t, t.Context(), options(start(t, key.Signer.PublicKey())), ssh.Target{Signers: []gossh.Signer{key.Signer}})
	return c.(communicator.Forwarder)
}

func TestForward(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	for name, start := range servers {
		t.Run(name, func(t *testing.T) {
			f := forwarder(t, start)
			conn, err := f.Forward(t.Context(), ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			got := make([]byte, 5)
			if _, err := conn.Write([]byte("hello")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
				t.Errorf("%q, %v", got, err)
			}
			_, err = f.Forward(t.Context(), "127.0.0.1:1")
			if err == nil || errors.Is(err, communicator.ErrNoForwarding) || errors.Is(err, communicator.ErrDisconnected) {
				t.Errorf("a closed port: %v", err)
			}
			late := errors.New("late")
			ctx, cancel := context.WithDeadlineCause(t.Context(), time.Now(), late)
			defer cancel()
			if _, err := f.Forward(ctx, ln.Addr().String()); !errors.Is(err, late) {
				t.Errorf("after its time: %v", err)
			}
		})
	}
}

func TestForwardRefused(t *testing.T) {
	f := forwarder(t, func(t testing.TB, key gossh.PublicKey) *commtest.Server {
		host := newKey(t)
		return commtest.SSHD(t, key, host.PrivateKey, host.Signer.PublicKey(), "AllowTcpForwarding no")
	})
	if _, err := f.Forward(t.Context(), "127.0.0.1:1"); !errors.Is(err, communicator.ErrNoForwarding) {
		t.Error(err)
	}
}
