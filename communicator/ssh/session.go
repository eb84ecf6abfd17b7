package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/communicator"
	"bake/internal/delay"
)

// silentError is the error of a machine that has not answered for so long.
type silentError struct {
	format string
	time   time.Duration
}

func (e *silentError) Error() string { return fmt.Sprintf(e.format, e.time) }

// errSilent is the error of a step that the machine does not answer in time.
var errSilent = &silentError{"the machine did not answer within %s", handshakeTimeout}

// within returns the results of f. If ctx ends first it returns the cause of ctx; if f takes longer
// than a login may, it returns errSilent. f itself cannot be stopped: a result that it returns too
// late is passed to drop, unless drop is nil.
func within[T any](ctx context.Context, f func() (T, error), drop func(T)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, handshakeTimeout, errSilent)
	defer cancel()
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := f()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
		if drop != nil {
			go func() {
				if r := <-done; r.err == nil {
					drop(r.v)
				}
			}()
		}
		var none T
		return none, context.Cause(ctx)
	}
}

// session is a session channel of a link. An operation that waits for the machine ends with its
// context, with the link, or when it takes longer than a login may.
type session struct {
	ssh.Channel
	exited chan struct{} // closed when the fields below are set
	status communicator.Status
	err    error // why there is no status
}

// newSession opens a session.
func (l *link) newSession(ctx context.Context) (*session, error) {
	return within(ctx, func() (*session, error) {
		start := time.Now()
		channel, requests, err := l.OpenChannel("session", nil)
		if err != nil {
			return nil, err
		}
		l.timed(time.Since(start))
		s := &session{Channel: channel, exited: make(chan struct{})}
		go s.attend(requests)
		return s, nil
	}, (*session).close)
}

// attend waits for the exit status. The status comes before the end of the output if a process that
// the command has started holds the output open.
func (s *session) attend(requests <-chan *ssh.Request) {
	s.err = errors.New("the session ended without an exit status")
	var once sync.Once
	exited := func() { once.Do(func() { close(s.exited) }) }
	defer exited()
	for r := range requests {
		switch r.Type {
		case "exit-status":
			if len(r.Payload) >= 4 {
				s.status, s.err = communicator.Status{Code: int(binary.BigEndian.Uint32(r.Payload))}, nil
				exited()
				ssh.DiscardRequests(requests)
				return
			}
		case "exit-signal":
			var signal struct {
				Name       string
				CoreDumped bool
				Error      string
				Lang       string
			}
			if err := ssh.Unmarshal(r.Payload, &signal); err == nil {
				s.status, s.err = communicator.Status{Code: 128 + max(slices.Index(signals, signal.Name), 0), Signal: signal.Name}, nil
				exited()
				ssh.DiscardRequests(requests)
				return
			}
		default: // such as OpenSSH's keepalive
			if r.WantReply {
				_ = r.Reply(false, nil)
			}
		}
	}
}

// signals are the names of RFC 4254 for signals, at their numbers.
var signals = []string{
	1: "HUP", 2: "INT", 3: "QUIT", 4: "ILL", 6: "ABRT", 8: "FPE", 9: "KILL", 10: "USR1", 11: "SEGV", 12: "USR2", 13: "PIPE", 14: "ALRM", 15: "TERM",
}

// errRefused is the error of a request that the machine has declined.
var errRefused = errors.New("the machine refuses")

// request sends a request and waits for the answer.
func (s *session) request(ctx context.Context, name string, payload any) error {
	_, err := within(ctx, func() (struct{}, error) {
		ok, err := s.SendRequest(name, true, ssh.Marshal(payload))
		if err == nil && !ok {
			err = errRefused
		}
		return struct{}{}, err
	}, nil)
	return err
}

// terminal requests a pseudo-terminal without echo.
func (s *session) terminal(ctx context.Context) error {
	const echo, end = 53, 0
	return s.request(ctx, "pty-req", struct {
		Term                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{"xterm", 80, 40, 640, 320, string([]byte{echo, 0, 0, 0, 0, end})})
}

// close closes the session without waiting for the machine.
func (s *session) close() { go func() { _ = s.Channel.Close() }() } // Close blocks on a dead link

// busyTries is how often, a second apart, a session is requested from a machine that refuses to
// open one.
const busyTries = 5

// deadTries is how often a session is requested when each link turns out to be dead: the server of a machine
// that shuts down may still accept a connection.
const deadTries = 3

// session opens a session. If the current link turns out to be dead, it opens a new link first,
// and if that one is dead too, another one a second later.
func (c *Client) session(ctx context.Context) (*link, *session, error) {
	for tries := 1; ; tries++ {
		l, err := c.connected(ctx)
		if err != nil {
			return nil, nil, err
		}
		s, err := l.newSession(ctx)
		if err == nil {
			return l, s, nil
		}
		if cause := context.Cause(ctx); cause != nil {
			return nil, nil, cause
		}
		refused := (*ssh.OpenChannelError)(nil)
		if busy := errors.As(err, &refused); !busy && tries >= deadTries || tries > busyTries {
			return nil, nil, fmt.Errorf("the machine at %s refuses to open a session: %w", l.addr, err)
		}
		if refused == nil {
			l.Close()
			if tries == 1 {
				continue
			}
		} else {
			// The machine refused but is alive: all sessions that it allows may be in use for a moment.
			l.hostKeys.stop()
		}
		if err := delay.For(ctx, time.Second); err != nil {
			return nil, nil, err
		}
	}
}

// Run implements [communicator.Communicator].
func (c *Client) Run(ctx context.Context, cmd communicator.Command) (communicator.Status, error) {
	return c.run(ctx, cmd, true)
}

// run runs a command. users reports whether the command comes from the template and not
// from bake.
func (c *Client) run(ctx context.Context, cmd communicator.Command, users bool) (communicator.Status, error) {
	l, s, err := c.session(ctx)
	if err != nil {
		return communicator.Status{}, err
	}
	return c.runOver(ctx, l, s, cmd, users)
}

// runOver is like run, in an open session, which it closes.
func (c *Client) runOver(ctx context.Context, l *link, s *session, cmd communicator.Command, users bool) (communicator.Status, error) {
	defer s.close()
	var err error
	alive, rest := context.WithCancel(ctx)
	defer rest()
	go c.keepAlive(alive, l)
	if users && c.opts.Pty {
		if err := s.terminal(ctx); errors.Is(err, errRefused) {
			return communicator.Status{}, errors.New("the machine did not allocate a pseudo-terminal; set ssh_pty = false")
		} else if err != nil {
			return communicator.Status{}, c.lost(ctx, l, err)
		}
	}
	if c.agent.forward {
		_, _ = s.SendRequest("auth-agent-req@openssh.com", false, nil) // the server may decline, as with ssh -A
	}
	unheard := make(chan error, 2)
	out, errOut := newGate(cmd.Stdout, unheard), newGate(cmd.Stderr, unheard)
	defer out.shut(ctx)
	defer errOut.shut(ctx)
	if err := s.request(ctx, "exec", struct{ Line string }{cmd.Line}); errors.Is(err, errRefused) {
		return communicator.Status{}, fmt.Errorf("the machine at %s does not run commands for user %q; check ssh_username", l.addr, c.opts.Username)
	} else if err != nil {
		return communicator.Status{}, c.lost(ctx, l, err)
	}
	go feed(s, cmd.Stdin)
	if users {
		go c.followHostKeys(alive, l)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		var both sync.WaitGroup
		both.Go(func() { _, _ = io.CopyBuffer(out, s.Channel, make([]byte, outputBuffer)) })
		both.Go(func() { _, _ = io.CopyBuffer(errOut, s.Stderr(), make([]byte, outputBuffer)) })
		both.Wait()
	}()
	select {
	case <-s.exited:
	case err = <-unheard:
	case <-ctx.Done():
	}
	if err == nil && s.over() && s.err == nil {
		err = c.drain(ctx, s, drained, unheard, out, errOut)
	}
	switch {
	case err != nil:
		return communicator.Status{}, fmt.Errorf("passing on the output of a command: %w", err)
	case context.Cause(ctx) != nil:
		go func() { _, _ = s.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{"TERM"})) }()
		return communicator.Status{}, context.Cause(ctx)
	case s.err != nil:
		select {
		case <-drained: // the channel is closed
		case <-ctx.Done():
		}
		return communicator.Status{}, c.lost(ctx, l, s.err)
	}
	return s.status, nil
}

func (s *session) over() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// Limits on the wait for more output after a command has ended, while a process that it started
// holds its output open: since the last output, and in total.
const (
	quietGrace  = 5 * time.Second
	outputGrace = 30 * time.Second
)

// drain waits for the rest of the output of a command that has ended. It gives up with a warning if
// a process holds the output open.
func (c *Client) drain(ctx context.Context, s *session, drained <-chan struct{}, unheard <-chan error, out ...*gate) error {
	ended := time.Now()
	look := time.NewTicker(quietGrace / 10)
	defer look.Stop()
	for {
		select {
		case <-drained:
			return nil
		case err := <-unheard:
			return err
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
		last, busy := ended, false
		for _, g := range out {
			busy = busy || g.busy.Load()
			if t := time.Unix(0, g.last.Load()); t.After(last) {
				last = t
			}
		}
		if !busy && (time.Since(last) >= quietGrace || time.Since(ended) >= outputGrace) {
			c.scope.Warn(ctx, "The command ended with exit status %d, but a background process that it started still holds its output open; continuing without it. To start a process that outlives its command: nohup COMMAND >/dev/null 2>&1 &", s.status.Code)
			return nil
		}
	}
}

// lost returns the error of a lost connection, or the cause of ctx if that has ended. If the
// machine left something unanswered for too long, it closes the link.
func (c *Client) lost(ctx context.Context, l *link, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, errSilent) {
		l.Close()
	}
	return l.disconnected(err)
}

// disconnected returns the error of a lost connection. It says so if the connection was closed
// because the machine did not answer; otherwise err says how the loss was noticed.
func (l *link) disconnected(err error) error {
	if l.dead.Load() {
		err = errDead
	}
	return fmt.Errorf("%w (%w)", communicator.ErrDisconnected, err)
}

// feed sends r as a command's standard input. It is not an error if the command ends without
// reading all of it.
func feed(s *session, r io.Reader) {
	if r != nil {
		// Most scripts fit into the first, small buffer.
		n, err := io.CopyBuffer(struct{ io.Writer }{s.Channel}, io.LimitReader(r, outputBuffer), make([]byte, outputBuffer))
		if err == nil && n == outputBuffer {
			_, _ = io.CopyBuffer(struct{ io.Writer }{s.Channel}, struct{ io.Reader }{r}, make([]byte, streamBuffer))
		}
	}
	_ = s.CloseWrite()
}

// Buffer sizes. streamBuffer is for input to the channel, which splits it into packets.
// outputBuffer is for a command's output, and small because hundreds of commands may run.
const (
	streamBuffer = 256 << 10
	outputBuffer = 8 << 10
)

// gate passes writes on until it is shut or a write fails. A nil writer drops them.
type gate struct {
	failed chan<- error
	busy   atomic.Bool   // a write is in progress
	last   atomic.Int64  // when the last one ended, in Unix nanoseconds
	turn   chan struct{} // holds a token while w is used
	w      io.Writer
}

func newGate(w io.Writer, failed chan<- error) *gate {
	return &gate{failed: failed, turn: make(chan struct{}, 1), w: w}
}

// Write never fails: a session whose output is not read would not end.
func (g *gate) Write(b []byte) (int, error) {
	g.turn <- struct{}{}
	defer func() { <-g.turn }()
	if g.w != nil {
		g.busy.Store(true)
		_, err := g.w.Write(b)
		g.busy.Store(false)
		if err != nil {
			g.w = nil
			g.failed <- err
		}
	}
	g.last.Store(time.Now().UnixNano())
	return len(b), nil
}

// stuckWrite is how long a write in progress may delay the end of a command.
const stuckWrite = 2 * time.Second

// shut waits for a write in progress and prevents further ones. When ctx has ended, it does not
// wait for long.
func (g *gate) shut(ctx context.Context) {
	over := ctx.Done()
	var stuck <-chan time.Time
	for {
		select {
		case g.turn <- struct{}{}:
			g.w = nil
			<-g.turn
			return
		case <-over:
			over, stuck = nil, time.After(stuckWrite)
		case <-stuck:
			return
		}
	}
}

// Limits for a machine that does not answer a keepalive: when the user is warned, and when the
// connection is closed.
const (
	quietAfter = 15 * time.Second
	deadAfter  = time.Minute
)

var errDead = &silentError{"the machine did not answer for %s", deadAfter}

// keepAlive sends keepalive requests until ctx ends, and closes a link that does not answer them.
func (c *Client) keepAlive(ctx context.Context, l *link) {
	interval := c.opts.KeepAliveInterval
	if interval <= 0 {
		return
	}
	for delay.For(ctx, interval) == nil {
		err := c.answer(ctx, l, func() error {
			_, _, err := l.SendRequest("keepalive@openssh.com", true, nil)
			return err
		})
		if err != nil && ctx.Err() == nil {
			l.dead.Store(errors.Is(err, errDead))
			l.Close()
			return
		}
	}
}

// answer calls ask, which sends the machine a request, and waits for its return, until ctx ends or
// deadAfter has passed. If the answer is late the user is warned, once for all that wait for the
// same link.
func (c *Client) answer(ctx context.Context, l *link, ask func() error) error {
	answered := make(chan error, 1)
	go func() { answered <- ask() }()
	quiet, dead := time.NewTimer(quietAfter), time.NewTimer(deadAfter)
	defer quiet.Stop()
	defer dead.Stop()
	for {
		select {
		case err := <-answered:
			if err == nil && l.quiet.CompareAndSwap(true, false) {
				c.scope.Say(ctx, "The machine at %s answers again.", l.addr)
			}
			return err
		case <-quiet.C:
			if l.quiet.CompareAndSwap(false, true) {
				c.scope.Warn(ctx, "The machine at %s has not answered for %s. Its connection is closed if it does not answer within %s.", l.addr, quietAfter, deadAfter-quietAfter)
			}
		case <-dead.C:
			return errDead
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
