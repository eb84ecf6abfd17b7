package relay

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// halves is one end of a connection whose other end can continue after it has read all data.
type halves struct{ net.Conn }

func (halves) CloseWrite() error { return nil }

// TestJoinOutlivesTerminal: a connection continues without the terminal, until its input ends and
// the other side has had time to end too.
func TestJoinOutlivesTerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		in, client := io.Pipe()
		hangup, ended := make(chan os.Signal, 1), make(chan error, 1)
		go func() { ended <- join(halves{near}, in, io.Discard, hangup) }()
		hangup <- syscall.SIGHUP
		time.Sleep(time.Hour)
		go client.Write([]byte("x"))
		if _, err := io.ReadFull(far, make([]byte, 1)); err != nil {
			t.Fatalf("after the terminal has gone: %v", err)
		}
		client.Close()
		begin := time.Now()
		<-ended
		if took := time.Since(begin); took != abandoned {
			t.Errorf("it ends %s after its input", took)
		}
	})
}

// TestJoinWaits: while there is a terminal, the other side may take any time to answer.
func TestJoinWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		in, client := io.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- join(halves{near}, in, io.Discard, nil) }()
		client.Close()
		time.Sleep(time.Hour)
		if _, err := far.Write([]byte("late")); err != nil {
			t.Errorf("the late answer: %v", err)
		}
		far.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
