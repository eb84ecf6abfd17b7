package wire

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/semaphore"
)

// ErrGone is the error of an operation that the other end can no longer answer.
var ErrGone = errors.New("the plugin process went away")

// RemoteError is an error that the other end has returned.
type RemoteError string

func (e RemoteError) Error() string { return string(e) }

// maxCalls is the maximum number of calls on one stream that run at the same time, as long
// as their arguments together take no more than [maxMessage] bytes; further calls wait.
const maxCalls = 256

// request and response are the headers of the arguments and the reply.
type request struct {
	ServiceMethod string
	Seq           uint64
}

type response struct {
	ServiceMethod string
	Seq           uint64
	Error         string
}

// Client calls methods of the other end of a stream. Calls may run concurrently.
type Client struct {
	conn io.ReadWriteCloser
	out  chan []byte
	done chan struct{} // closed when no further call is possible

	mu      sync.Mutex
	seq     uint64
	pending map[uint64]chan answer
	err     error // why done is closed
}

type answer struct {
	body any
	err  error
}

// NewClient returns a client for the stream, which it takes over.
func NewClient(conn io.ReadWriteCloser) *Client {
	c := &Client{conn: conn, out: make(chan []byte), done: make(chan struct{}), pending: map[uint64]chan answer{}}
	go c.read()
	go c.write()
	return c
}

// Close ends the stream; pending calls fail.
func (c *Client) Close() error {
	c.fail(ErrGone)
	return c.conn.Close()
}

// Call sends args and stores the answer in reply, a pointer or nil. If there is no answer, the
// error wraps [ErrGone]. The end of ctx ends the wait, but not the call.
func (c *Client) Call(ctx context.Context, method string, args, reply any) error {
	body, err := marshal(args)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	ch := make(chan answer, 1)
	seq, err := c.expect(ch)
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	head, err := marshal(request{method, seq})
	if err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	select {
	case c.out <- append(head, body...):
	case <-c.done: // ch has the error
	case <-ctx.Done():
		c.forget(seq)
		return context.Cause(ctx)
	}
	select {
	case a := <-ch:
		if remote, ok := errors.AsType[RemoteError](a.err); ok {
			return remote
		}
		if a.err != nil {
			return fmt.Errorf("%s: %w", method, a.err)
		}
		if reply == nil {
			return nil
		}
		if err := Assign(reply, a.body); err != nil {
			return &AnswerError{method, err}
		}
		return nil
	case <-ctx.Done():
		c.forget(seq)
		return context.Cause(ctx)
	}
}

// AnswerError is the error of a call that was answered with a value of the wrong type.
type AnswerError struct {
	method string
	err    error
}

func (e *AnswerError) Error() string {
	return fmt.Sprintf("the answer to %s has the wrong type: %v", e.method, e.err)
}

// Unwrap implements errors.Unwrap.
func (e *AnswerError) Unwrap() error { return e.err }

// expect registers a call that waits for an answer.
func (c *Client) expect(ch chan answer) (seq uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.seq++
	c.pending[c.seq] = ch
	return c.seq, nil
}

func (c *Client) forget(seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, seq)
}

// fail makes all pending and future calls fail.
func (c *Client) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = err
	for _, ch := range c.pending {
		ch <- answer{err: err}
	}
	clear(c.pending)
	close(c.done)
}

func (c *Client) write() {
	for {
		select {
		case call := <-c.out:
			if _, err := c.conn.Write(call); err != nil {
				c.fail(fmt.Errorf("%w: %w", ErrGone, err))
				return
			}
		case <-c.done:
			return
		}
	}
}

func (c *Client) read() {
	in := &ending{Reader: c.conn}
	r := bufio.NewReader(in)
	for {
		var head response
		body, _, err := readMessage(r, &head)
		if err != nil {
			if !in.ended {
				err = &UnreadableError{err}
			}
			c.fail(broken(err))
			c.conn.Close()
			return
		}
		c.mu.Lock()
		ch := c.pending[head.Seq]
		delete(c.pending, head.Seq)
		c.mu.Unlock()
		switch {
		case ch == nil: // the caller no longer waits
		case head.Error != "":
			ch <- answer{err: RemoteError(head.Error)}
		default:
			ch <- answer{body: body}
		}
	}
}

// ending is a reader that notes when it has failed.
type ending struct {
	io.Reader
	ended bool
}

// Read implements [io.Reader].
func (e *ending) Read(b []byte) (int, error) {
	n, err := e.Reader.Read(b)
	e.ended = e.ended || err != nil
	return n, err
}

// UnreadableError is the error of a message of the other end that is too large, or no message at
// all. Nothing after it can be read.
type UnreadableError struct{ err error }

func (e *UnreadableError) Error() string { return "it sent an unreadable message: " + e.err.Error() }

// Unwrap implements errors.Unwrap.
func (e *UnreadableError) Unwrap() error { return e.err }

// broken returns the error of a stream that ended with err.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrGone
	}
	if _, ok := errors.AsType[*UnreadableError](err); ok {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	return fmt.Errorf("%w: its connection broke: %w", ErrGone, err)
}

// readMessage reads the header of a call or an answer into head, and the body after it. size is the
// memory that the body takes, in bytes.
func readMessage(r Reader, head any) (body any, size int, err error) {
	v, err := decode(r)
	if err != nil {
		return nil, 0, err
	}
	if err := Assign(head, v); err != nil {
		return nil, 0, fmt.Errorf("the head of a message: %w", err)
	}
	d := decoder{r: r, left: maxMessage}
	body, err = d.value(0)
	return body, maxMessage - d.left, truncated(err)
}

// Method answers one kind of call. ctx ends when the stream ends.
type Method func(ctx context.Context, args any) (any, error)

// Methods are the methods of a stream, by "Service.Method".
type Methods map[string]Method

// Handle turns a function with typed arguments into a Method.
func Handle[A any](fn func(ctx context.Context, args A) (any, error)) Method {
	return func(ctx context.Context, v any) (any, error) {
		var a A
		if err := Assign(&a, v); err != nil {
			return nil, fmt.Errorf("the arguments: %w", err)
		}
		return fn(ctx, a)
	}
}

// Serve answers calls until the stream or ctx ends, and closes the stream. find, if not nil, is
// called for methods that are not in the list. No method runs any more when Serve returns.
func Serve(ctx context.Context, conn io.ReadWriteCloser, methods Methods, find func(name string) Method) {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	memory := semaphore.NewWeighted(maxMessage)
	var writing sync.Mutex
	r := bufio.NewReader(conn)
	for {
		var head request
		args, size, err := readMessage(r, &head)
		if err != nil {
			return
		}
		size = max(size, maxMessage/maxCalls)
		if memory.Acquire(ctx, int64(size)) != nil {
			return
		}
		m := methods[head.ServiceMethod]
		if m == nil && find != nil {
			m = find(head.ServiceMethod)
		}
		running.Go(func() {
			defer memory.Release(int64(size))
			answer := reply(ctx, head, m, args)
			writing.Lock()
			defer writing.Unlock()
			if _, err := conn.Write(answer); err != nil {
				cancel()
			}
		})
	}
}

// reply calls a method and encodes its result as the answer.
func reply(ctx context.Context, call request, m Method, args any) []byte {
	head := response{ServiceMethod: call.ServiceMethod, Seq: call.Seq}
	var result any
	err := fmt.Errorf("rpc: can't find service %s", call.ServiceMethod)
	if m != nil {
		result, err = m(ctx, args)
	}
	var body []byte
	if err == nil {
		body, err = marshal(result)
	}
	if err != nil {
		if head.Error = err.Error(); head.Error == "" {
			head.Error = "unknown error"
		}
		body, _ = marshal(nil)
	}
	answer, _ := marshal(head)
	return append(answer, body...)
}
