package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/yamux"
)

// pair is a host and a plugin, connected.
type pair struct {
	host, plugin *Mux
	main         func(context.Context) (*Conn, error)
	conn         net.Conn // the host's end
}

func connect(t *testing.T) *pair {
	t.Helper()
	h, p := net.Pipe()
	return connectOver(t, h, p)
}

func connectOver(t *testing.T, h, p net.Conn) *pair {
	t.Helper()
	plugin, accept, err := NewServer(p)
	if err != nil {
		t.Fatal(err)
	}
	host, err := NewMux(h)
	if err != nil {
		t.Fatal(err)
	}

	return &pair{host: host, plugin: plugin, main: accept, conn: h}
}

func (p *pair) close() { p.host.Close(); p.plugin.Close() }

// serve answers calls of the client that it returns. It works in a synctest bubble, as
// yamux does not, which reuses timers.
func serve(t *testing.T, methods Methods) *Client {
	t.Helper()
	h, p := net.Pipe()
	go Serve(t.Context(), p, methods, nil)
	return NewClient(h)
}

type words struct {
	Words []string
	N     int
}

func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := make(chan struct{})
		c := serve(t, Methods{
			"Echo.Back":  Handle(func(_ context.Context, a words) (any, error) { return a, nil }),
			"Echo.Fail":  Handle(func(context.Context, any) (any, error) { return nil, errors.New("no luck") }),
			"Echo.Mute":  Handle(func(context.Context, any) (any, error) { return nil, errors.New("") }),
			"Echo.Slow":  Handle(func(context.Context, any) (any, error) { <-slow; return "late", nil }),
			"Echo.Never": Handle(func(ctx context.Context, _ any) (any, error) { <-ctx.Done(); return nil, ctx.Err() }),
			"Echo.Chan":  Handle(func(context.Context, any) (any, error) { return make(chan int), nil }),
		})
		ctx := t.Context()
		late := make(chan string)
		go func() {
			var reply string
			if err := c.Call(ctx, "Echo.Slow", nil, &reply); err != nil {
				reply = err.Error()
			}
			late <- reply
		}()
		synctest.Wait()
		var wait sync.WaitGroup
		for i := range 50 { // answers come in any order
			wait.Go(func() {
				var reply words
				err := c.Call(ctx, "Echo.Back", words{[]string{fmt.Sprint(i)}, i}, &reply)
				if err != nil || reply.N != i || reply.Words[0] != fmt.Sprint(i) {
					t.Errorf("%d: %v, %v", i, reply, err)
				}
			})
		}
		wait.Wait()
		for method, want := range map[string]string{"Echo.Fail": "no luck", "Echo.Mute": "unknown error", "Echo.None": "rpc: can't find service Echo.None", "Echo.Chan": "a chan int cannot be sent to a plugin"} {
			if err := c.Call(ctx, method, nil, nil); err == nil || err.Error() != want {
				t.Errorf("%s: %v", method, err)
			} else if _, remote := errors.AsType[RemoteError](err); !remote {
				t.Errorf("%s: a %T", method, err)
			}
		}
		if err := c.Call(ctx, "Echo.Back", map[string]any{"N": "x"}, nil); err == nil || !strings.Contains(err.Error(), "N: it is text, not int") {
			t.Errorf("wrong arguments: %v", err)
		}
		var n int
		if err := c.Call(ctx, "Echo.Back", words{}, &n); err == nil || err.Error() != "the answer to Echo.Back has the wrong type: it is a map, not int" {
			t.Errorf("a wrong answer: %v", err)
		}
		if err := c.Call(ctx, "Echo.Back", make(chan int), nil); err == nil {
			t.Error("a channel was sent")
		}
		stopped, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("had enough"))
		defer cancel()
		if err := c.Call(stopped, "Echo.Never", nil, nil); err == nil || err.Error() != "had enough" {
			t.Errorf("cancelled: %v", err)
		}
		close(slow)
		if got := <-late; got != "late" {
			t.Errorf("slow: %s", got)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := c.Call(ctx, "Echo.Back", words{}, nil); !errors.Is(err, ErrGone) {
			t.Errorf("after Close: %v", err)
		}
	})
}

// TestCallsHaveLimits: the number of concurrent calls is limited; further ones wait.
func TestCallsHaveLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		release := make(chan struct{})
		c := serve(t, Methods{"Probe.Block": Handle(func(context.Context, any) (any, error) {
			n := running.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			<-release
			running.Add(-1)
			return nil, nil
		})})
		var wait sync.WaitGroup
		for range maxCalls + 20 {
			wait.Go(func() {
				if err := c.Call(t.Context(), "Probe.Block", nil, nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := running.Load(); n != maxCalls {
			t.Errorf("%d calls run", n)
		}
		close(release)
		wait.Wait()
		if n := most.Load(); n != maxCalls {
			t.Errorf("%d calls ran at a time", n)
		}
		// Their memory is limited too.
		running.Store(0)
		most.Store(0)
		release = make(chan struct{})
		for range 5 {
			wait.Go(func() {
				if err := c.Call(t.Context(), "Probe.Block", make([]any, maxMessage/2/valueCost-1000), nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := running.Load(); n != 2 {
			t.Errorf("%d great calls run", n)
		}
		close(release)
		wait.Wait()
		c.Close()
	})
}

// TestDeathAtEveryByte: the connection is cut after each number of bytes of a session in
// which both sides call each other; every call fails at once, and nothing keeps running.
func TestDeathAtEveryByte(t *testing.T) {
	limit := 0
	for ; ; limit++ {
		h, p := net.Pipe()
		done := session(t, connectOver(t, &cutter{Conn: h, left: limit}, p))
		if done {
			break
		}
		if t.Failed() {
			t.Fatalf("cut after %d bytes", limit)
		}
	}
	if limit < 300 {
		t.Errorf("the session has %d bytes only", limit)
	}
}

// cutter lets left bytes pass, in either direction, and then closes the connection.
type cutter struct {
	net.Conn
	mu   sync.Mutex
	left int
}

func (c *cutter) allow(n int) (int, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > c.left {
		n = c.left
	}
	c.left -= n
	return n, c.left > 0
}

func (c *cutter) Write(b []byte) (int, error) {
	n, more := c.allow(len(b))
	n, err := c.Conn.Write(b[:n])
	if !more {
		c.Close()
		err = io.ErrClosedPipe
	}
	return n, err
}

func (c *cutter) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b[:min(len(b), 7)])
	if n, more := c.allow(n); !more {
		c.Close()
		return n, io.EOF
	}
	return n, err
}

// session calls the plugin, which calls back twice on a separate stream, and reads some
// data. It reports whether everything succeeded.
func session(t *testing.T, p *pair) bool {
	defer p.close()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("it hangs"))
	defer cancel()
	go func() {
		c, err := p.main(ctx)
		if err != nil {
			return
		}
		Serve(ctx, c, Methods{"Builder.Run": Handle(func(ctx context.Context, id uint32) (any, error) {
			conn, err := p.plugin.Dial(ctx, id)
			if err != nil {
				return nil, err
			}
			back := NewClient(conn)
			defer back.Close()
			for range 2 {
				if err := back.Call(ctx, "Ui.Say", "hello", nil); err != nil {
					return nil, err
				}
			}
			return 7, nil
		})}, nil)
	}()
	main, err := p.host.Dial(ctx, 0)
	if err != nil {
		useful(t, err)
		return false
	}
	c := NewClient(main)
	defer c.Close()
	id, accept := p.host.Listen()
	served := make(chan struct{})
	go func() {
		defer close(served)
		if conn, err := accept(ctx); err == nil {
			Serve(ctx, conn, Methods{"Ui.Say": Handle(func(context.Context, string) (any, error) { return nil, nil })}, nil)
		} else {
			useful(t, err)
		}
	}()
	calls := make(chan error, 2)
	var reply uint32
	go func() { calls <- c.Call(ctx, "Builder.Run", id, &reply) }()
	go func() { calls <- c.Call(ctx, "Builder.Never", nil, nil) }()
	ok := true
	for range 2 {
		err := <-calls
		if _, remote := errors.AsType[RemoteError](err); err != nil && !remote {
			useful(t, err)
			ok = false
		} else if remote && !strings.Contains(err.Error(), "Builder.Never") {
			ok = false // the plugin has noticed before
		}
	}
	ok = ok && reply == 7
	if ok {
		<-served
	} else {
		p.close()
		<-served
	}
	return ok
}

func useful(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
}

// TestGarbage: invalid data ends the client with an error that says so.
func TestGarbage(t *testing.T) {
	for name, answer := range map[string]string{
		"not MessagePack": "\xc1\xc1",
		"no head":         "\x01\xc0",
		"a wrong head":    "\x81\xa3Seq\xa1x\xc0",
		"too deep":        "\x80" + strings.Repeat("\x91", 200),
		"too much":        "\x80\xdb\xff\xff\xff\xff",
	} {
		h, p := net.Pipe()
		c := NewClient(h)
		go func() {
			buf := make([]byte, 1000)
			_, _ = p.Read(buf)
			_, _ = io.WriteString(p, answer)
		}()
		err := c.Call(t.Context(), "Builder.Run", nil, nil)
		if !errors.Is(err, ErrGone) || !strings.HasPrefix(err.Error(), "Builder.Run: the plugin process went away: it sent an unreadable message: ") {
			t.Errorf("%s: %v", name, err)
		}
		c.Close()
		p.Close()
	}
}

// TestStreams: both sides dial and accept; a stream without an agreed number is refused.
func TestStreams(t *testing.T) {
	p := connect(t)
	defer p.close()
	ctx := t.Context()
	for _, m := range [][2]*Mux{{p.host, p.plugin}, {p.plugin, p.host}} {
		id, accept := m[0].Listen()
		go func() {
			c, err := m[1].Dial(ctx, id)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, "some data")
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
			if b, err := io.ReadAll(c); string(b) != "an answer" || err != nil {
				t.Errorf("%q, %v", b, err)
			}
			c.Close()
		}()
		c, err := accept(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); string(b) != "some data" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		_, _ = io.WriteString(c, "an answer")
		c.Close()
	}
	if _, err := p.host.Dial(ctx, 99); err == nil {
		t.Error("a stream that nobody waits for was opened")
	}
	// A wait was cancelled, so its number is unknown.
	id, accept := p.host.Listen()
	short, cancel := context.WithTimeoutCause(ctx, time.Millisecond, errors.New("no longer"))
	defer cancel()
	if _, err := accept(short); err == nil || err.Error() != fmt.Sprintf("stream %d: no longer", id) {
		t.Errorf("%v", err)
	}
	if _, err := p.plugin.Dial(ctx, id); err == nil {
		t.Error("a number was good after the wait for it")
	}
	// The same number twice is an error.
	id, accept = p.host.Listen()
	first := make(chan error, 1)
	go func() { _, err := p.plugin.Dial(ctx, id); first <- err }()
	for dialled := false; !dialled; time.Sleep(time.Millisecond) {
		p.host.mu.Lock()
		dialled = p.host.waiting[id] == nil
		p.host.mu.Unlock()
	}
	if _, err := p.plugin.Dial(ctx, id); err == nil {
		t.Error("one number was good for two streams")
	}
	if _, err := accept(ctx); err != nil {
		t.Error(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// TestCloseEndsReads: closing a stream ends waiting reads on both sides.
func TestCloseEndsReads(t *testing.T) {
	p := connect(t)
	defer p.close()
	id, accept := p.host.Listen()
	wrote := make(chan error)
	go func() {
		c, err := p.plugin.Dial(t.Context(), id)
		if err == nil {
			_, err = c.Write(make([]byte, 10<<20)) // many windows
			c.Close()
		}
		wrote <- err
	}()
	c, err := accept(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-wrote; err != nil {
		t.Error(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	// A read that waits ends.
	id, accept = p.host.Listen()
	go func() { _, _ = p.plugin.Dial(t.Context(), id) }()
	if c, err = accept(t.Context()); err != nil {
		t.Fatal(err)
	}
	read := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
	c.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read during Close: %v", err)
	}
}

// TestSilence: a side that does not write or read costs seconds at most.
func TestSilence(t *testing.T) {
	h, p := net.Pipe()
	host, err := NewMux(h)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	host.greeting = 10 * time.Millisecond
	if _, err := host.Dial(t.Context(), 0); err == nil || err.Error() != "stream 0: it was not accepted in time" {
		t.Errorf("%v", err) // nothing reads at all
	}
	p.Close()

	pr := connect(t)
	defer pr.close()
	pr.host.greeting, pr.plugin.greeting = 10*time.Millisecond, 10*time.Millisecond
	id, _ := pr.host.Listen() // accept is not called
	if _, err := pr.plugin.Dial(t.Context(), id); err == nil {
		t.Error("nobody has accepted")
	}
	// A stream whose number never comes is closed.
	s, err := pr.plugin.session.OpenStream()
	if err != nil {
		t.Fatal(err)
	}
	if n, err := s.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes", n)
	}
}

// TestTooManyStreams: an end that opens streams without limit is cut off.
func TestTooManyStreams(t *testing.T) {
	p := connect(t)
	defer p.close()
	var streams []*yamux.Stream
	for range maxStreams + 1 {
		s, err := p.plugin.session.OpenStream()
		if err != nil {
			break
		}
		streams = append(streams, s)
	}
	<-p.host.Closed()
	if err := p.host.Err(); !errors.Is(err, errLimit) || len(streams) < maxStreams {
		t.Errorf("%d streams: %v", len(streams), err)
	}
	if _, err := p.host.Dial(t.Context(), 1); !errors.Is(err, errLimit) {
		t.Errorf("after that: %v", err)
	}
}

// TestNothingStays: a session leaves no goroutine.
func TestNothingStays(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 3 {
		if !session(t, connect(t)) {
			t.Fatal("the session failed")
		}
	}
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

func TestHandshake(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "packer-plugin123")
	for line, want := range map[string]Address{
		"5|0|unix|" + socket + "\n":   {"unix", socket},
		"5|0|tcp|127.0.0.1:10000\r\n": {"tcp", "127.0.0.1:10000"},
		"5|0|tcp|[::1]:10000":         {"tcp", "[::1]:10000"},
	} {
		if got, err := ParseHandshake(line); err != nil || got != want {
			t.Errorf("%q: %v, %v", line, got, err)
		}
	}
	for _, line := range []string{
		"", "hello", "5|0|unix", "5|0|unix|/a|b", "4|0|unix|/a", "5|1|unix|/a", "5|0|unix|relative", "5|0|tcp|10.0.0.1:80", "5|0|tcp|localhost:80", "5|0|udp|127.0.0.1:1",
	} {
		if got, err := ParseHandshake(line); err == nil {
			t.Errorf("%q: %v", line, got)
		}
	}
	a := Address{"tcp", "127.0.0.1:1"}
	if got, err := ParseHandshake(a.Line()); got != a {
		t.Errorf("%v, %v", got, err)
	}
}

// TestServeEnds: when Serve returns, no method runs any more, and nothing is read.
func TestServeEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, end := range []string{"ctx", "stream"} {
			h, p := net.Pipe()
			ctx, cancel := context.WithCancel(t.Context())
			var running atomic.Bool
			served := make(chan struct{})
			go func() {
				defer close(served)
				Serve(ctx, p, nil, func(name string) Method {
					return func(ctx context.Context, _ any) (any, error) {
						running.Store(true)
						<-ctx.Done()
						time.Sleep(time.Second)
						running.Store(false)
						return name, nil
					}
				})
			}()
			c := NewClient(h)
			failed := make(chan error, 1)
			go func() { failed <- c.Call(t.Context(), "Any.Thing", nil, nil) }()
			synctest.Wait()
			if !running.Load() {
				t.Errorf("%s: the method does not run", end)
			}
			if end == "ctx" {
				cancel()
			} else {
				c.Close()
			}
			<-served
			if running.Load() {
				t.Errorf("%s: the method still runs", end)
			}
			if err := <-failed; !errors.Is(err, ErrGone) {
				t.Errorf("%s: %v", end, err)
			}
			cancel()
			c.Close()
		}
	})
}

// TestCloseDoesNotWait for a side that does not read, so that not even the close arrives.
func TestCloseDoesNotWait(t *testing.T) {
	h, p := net.Pipe()
	host, err := NewMux(h)
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	opened := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(p, make([]byte, 12)) // the head that opens a stream, and no more
		opened <- err
	}()
	s, err := host.session.OpenStream()
	if err := errors.Join(err, <-opened); err != nil {
		t.Fatal(err)
	}
	c := newConn(s)
	if err := c.CloseWrite(); err != nil {
		t.Error(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
