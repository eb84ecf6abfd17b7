//go:build unix

package main

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// TestEcho: timeout(1) signals a process and then its group. This counts as one signal, which lets
// bake clean up, unlike a user's second Ctrl-C.
func TestEcho(t *testing.T) {
	p := &program{stdout: &output{}, stderr: &output{}}
	told := make(chan int, 3)
	send := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Error(err)
		}
	}
	ctx, stop, release := p.interrupts(t.Context(), func(n int, _ error) {
		if n == 1 { // on a busy host, the echo is there long before the first signal is reported
			send(syscall.SIGTERM)
			time.Sleep(1100 * time.Millisecond)
		}
		told <- n
	})
	defer release()
	send(syscall.SIGTERM)
	<-ctx.Done()
	if n := <-told; n != 1 || stop.Err() != nil {
		t.Fatalf("after signal %d: %v", n, stop.Err())
	}
	select {
	case n := <-told:
		t.Errorf("the echo was taken for signal %d", n)
	case <-time.After(100 * time.Millisecond):
	}
	send(syscall.SIGINT)
	select {
	case <-stop.Done():
	case <-time.After(time.Minute):
		t.Error("Ctrl-C does not end the teardown")
	}
}
