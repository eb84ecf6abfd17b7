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
	ctx, stop, release := p.interrupts(t.Context(), func(n int, _ error) { told <- n })
	defer release()
	send := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	send(syscall.SIGTERM)
	if n := <-told; n != 1 || ctx.Err() == nil || stop.Err() != nil {
		t.Fatalf("after signal %d: %v, %v", n, ctx.Err(), stop.Err())
	}
	send(syscall.SIGTERM)
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
