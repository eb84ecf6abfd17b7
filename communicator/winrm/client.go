// Package winrm talks to a Windows machine over WinRM: it waits until the machine is up, runs
// commands in cmd.exe, and transfers files through PowerShell.
package winrm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"bake/communicator"
	"bake/internal/delay"
	"bake/step"
)

// Target is what a builder knows about the machine that it created. Every field may be nil.
type Target struct {
	// Addr returns the address of the machine. It is called before each attempt to connect. An
	// error ends connecting, unless NotYet reports that it means that there is no address yet. The
	// setting winrm_host, if set, replaces the address.
	Addr   func(ctx context.Context) (host string, err error)
	NotYet func(error) bool

	// Dial replaces the connection over the network, and proxies.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client is a [communicator.Communicator] for one machine. It keeps no connection: each command has
// its own WinRM shell.
type Client struct {
	opts   *Settings
	target Target
	http   *http.Client
	closed chan struct{}
	close  func()

	mu sync.Mutex
	at endpoint // where the machine was last reached
}

// Connect waits until the machine accepts a login and runs PowerShell, for as long as o allows.
// pause is how long to wait after that before it connects again.
func Connect(ctx context.Context, s *step.Scope, o *Settings, pause time.Duration, t Target) (*Client, error) {
	closed := make(chan struct{})
	c := &Client{
		opts: o, target: t, http: newHTTP(o, t.Dial, s.Run.Env), closed: closed, close: sync.OnceFunc(func() { close(closed) }),
	}
	s.Say(ctx, "Waiting for WinRM to become available...")
	if err := c.hello(ctx); err != nil {
		return nil, err
	}
	if pause > 0 {
		s.Say(ctx, "Reached the machine; pausing %s before connecting again.", pause)
		if err := delay.For(ctx, pause); err != nil {
			return nil, err
		}
		if err := c.hello(ctx); err != nil {
			return nil, err
		}
	}
	s.Say(ctx, "Connected to WinRM!")
	return c, nil
}

// hello waits until PowerShell answers, which may be some time after WinRM does.
func (c *Client) hello(ctx context.Context) error {
	const greeting = "WinRM connected."
	said := errors.New("PowerShell does not answer")
	return c.retry(ctx, func(ctx context.Context) error {
		out := communicator.Head{Max: 64 << 10}
		status, err := c.attempt(ctx, communicator.Command{Line: powerShell("# bake: hello\n$ProgressPreference = 'SilentlyContinue'; echo '" + greeting + "'"), Stdout: &out})
		switch {
		case err != nil:
			return err
		case !strings.Contains(out.String(), greeting):
			return fmt.Errorf("%w: it ended with status %d", said, status.Code)
		}
		return nil
	})
}

var errTimeout = errors.New("timeout waiting for WinRM")

// Pauses between attempts.
const (
	firstPause = 200 * time.Millisecond
	longPause  = 5 * time.Second
)

// retry calls f until it succeeds, the limit of the settings is reached, or further attempts are
// pointless.
func (c *Client) retry(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.opts.WinRMTimeout, errTimeout)
	defer cancel()
	pauses := &backoff.ExponentialBackOff{InitialInterval: firstPause, MaxInterval: longPause, Multiplier: 1.5, RandomizationFactor: 0.1}
	pauses.Reset()
	var last error
	for {
		err := f(ctx)
		var f *fatalError
		switch {
		case err == nil:
			return nil
		case errors.As(err, &f):
			return f.error
		case untrusted(err):
			return fmt.Errorf("the machine's certificate is not trusted (%w); set winrm_insecure = true to accept any", err)
		}
		if context.Cause(ctx) == nil || last == nil {
			last = err // an error after the end only reflects the end
		}
		if delay.For(ctx, pauses.NextBackOff()) == nil {
			continue
		}
		if cause := context.Cause(ctx); !errors.Is(cause, errTimeout) {
			return cause
		}
		if errors.Is(last, errLogin) {
			return fmt.Errorf("the machine did not let user %q in within %s (winrm_timeout): check winrm_username and winrm_password, and that the machine allows this login (Basic over HTTP needs AllowUnencrypted; see winrm_use_ssl and winrm_use_ntlm)", c.opts.WinRMUsername, c.opts.WinRMTimeout)
		}
		return fmt.Errorf("%w: the machine could not be reached within %s (winrm_timeout); the last attempt failed: %w", errTimeout, c.opts.WinRMTimeout, last)
	}
}

// fatalError is an error that further attempts do not cure.
type fatalError struct{ error }

// locate returns the machine's current endpoint.
func (c *Client) locate(ctx context.Context) (endpoint, error) {
	host := c.opts.WinRMHost
	if host == "" && c.target.Addr != nil {
		var err error
		if host, err = c.target.Addr(ctx); err != nil {
			if c.target.NotYet != nil && c.target.NotYet(err) {
				return endpoint{}, err
			}
			return endpoint{}, &fatalError{err}
		}
	}
	if host == "" {
		return endpoint{}, &fatalError{errors.New("there is no host to connect to; set winrm_host")}
	}
	return newEndpoint(host, c.opts.ServicePort(), c.opts.WinRMUseSSL), nil
}

// Describe implements [communicator.Describer].
func (c *Client) Describe() communicator.Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return communicator.Connection{
		Host: c.at.host, Port: c.at.port, User: c.opts.WinRMUsername, Password: c.opts.WinRMPassword,
		WinRM: true, TLS: c.opts.WinRMUseSSL, Insecure: c.opts.WinRMInsecure, NTLM: c.opts.WinRMUseNTLM,
	}
}

// Close implements [communicator.Communicator].
func (c *Client) Close() error {
	c.close()
	c.http.CloseIdleConnections()
	return nil
}

var errClosed = errors.New("the connection to the machine has been closed")

// shell is a WinRM shell on the machine, in which one command runs.
type shell struct {
	c  *Client
	at endpoint
	id string
}

// open creates a shell, in one attempt.
func (c *Client) open(ctx context.Context) (*shell, error) {
	at, err := c.locate(ctx)
	if err != nil {
		return nil, err
	}
	out, err := c.post(ctx, at, openRequest(at.url))
	if err != nil {
		return nil, err
	}
	id, err := parseShell(out)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.at = at
	c.mu.Unlock()
	return &shell{c, at, id}, nil
}

// drop deletes the shell and ends what still runs in it.
func (s *shell) drop(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewellTimeout)
	defer cancel()
	// Errors do not matter: if the shell or the machine is gone, there is nothing to delete.
	_, _ = s.c.post(ctx, s.at, s.deleteRequest())
}

// Run implements [communicator.Communicator]. If the machine cannot be reached, Run waits for it,
// as Connect does. If the machine refuses to start the command, as it does during a shutdown, Run
// retries for a moment in other shells.
func (c *Client) Run(ctx context.Context, cmd communicator.Command) (status communicator.Status, err error) {
	var s *shell
	var command string
	refused := 0
	err = c.retry(ctx, func(ctx context.Context) (err error) {
		select {
		case <-c.closed:
			return &fatalError{errClosed}
		default:
		}
		if s, err = c.open(ctx); err != nil {
			return err
		}
		if command, err = s.start(ctx, cmd.Line); err == nil {
			return nil
		}
		s.drop(ctx)
		if refused++; refused < maxRefusals && errors.Is(err, errNotStarted) {
			return err
		}
		return &fatalError{err}
	})
	if err != nil {
		return status, err
	}
	return s.run(ctx, command, cmd)
}

// attempt is Run without waiting for the machine.
func (c *Client) attempt(ctx context.Context, cmd communicator.Command) (communicator.Status, error) {
	s, err := c.open(ctx)
	if err != nil {
		return communicator.Status{}, err
	}
	id, err := s.start(ctx, cmd.Line)
	if err != nil {
		s.drop(ctx)
		return communicator.Status{}, err
	}
	return s.run(ctx, id, cmd)
}

// maxRefusals is how often a command may be refused. It amounts to some seconds.
const maxRefusals = 8

var errNotStarted = errors.New("the machine did not start the command")

// start starts the command line. If the answer does not come from WinRM, or is a refusal, the
// command did not start; after any other error it may have.
func (s *shell) start(ctx context.Context, line string) (id string, err error) {
	if err := checkText(line); err != nil {
		return "", err
	}
	out, err := s.c.post(ctx, s.at, s.commandRequest(line))
	var f *fault
	switch {
	case errors.As(err, &f) || errors.Is(err, errLogin):
		return "", fmt.Errorf("%w: %w", errNotStarted, err)
	case err != nil:
		return "", s.lost(ctx, err)
	}
	return parseCommand(out)
}

// idlePause is the pause after an answer that came at once and was empty.
const idlePause = 50 * time.Millisecond

// run waits for a command and drops the shell.
func (s *shell) run(ctx context.Context, id string, cmd communicator.Command) (status communicator.Status, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer s.drop(ctx)
	defer cancel(nil)
	go s.feed(ctx, cancel, id, cmd.Stdin)
	for {
		out, err := s.c.post(ctx, s.at, s.receiveRequest(id))
		var f *fault
		if errors.As(err, &f) && f.code == timedOut {
			if err := delay.For(ctx, idlePause); err != nil {
				return status, err
			}
			continue
		}
		if err != nil {
			return status, s.lost(ctx, err)
		}
		silent := true
		done, code, err := parseReceipt(out, func(stderr bool, b []byte) error {
			silent = false
			if stderr {
				return write(cmd.Stderr, b)
			}
			return write(cmd.Stdout, b)
		})
		if err != nil || done {
			return communicator.Status{Code: code}, err
		}
		if silent {
			if err := delay.For(ctx, idlePause); err != nil {
				return status, err
			}
		}
	}
}

func write(w io.Writer, b []byte) error {
	if w == nil {
		return nil
	}
	_, err := w.Write(b)
	return err
}

// lost explains the error of a request about a running command: if the machine is gone, so are the
// shell and the command.
func (s *shell) lost(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return fmt.Errorf("%w (%w)", communicator.ErrDisconnected, err)
}

// chunk is the size of input in one request. Encoded, it stays below 150 kB, the smallest limit
// that a machine may have.
const chunk = 96 << 10

// feed sends input until the input, the command or ctx ends. An error of the input or the
// connection cancels the command. If there is no input, it is not an error if the machine does not
// accept the end of input.
func (s *shell) feed(ctx context.Context, cancel context.CancelCauseFunc, id string, r io.Reader) {
	none := r == nil
	if none {
		r = strings.NewReader("")
	}
	buf := make([]byte, chunk)
	for ctx.Err() == nil {
		n, err := io.ReadFull(r, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			cancel(err)
			return
		}
		_, err = s.c.post(ctx, s.at, s.sendRequest(id, buf[:n], end))
		var f *fault
		switch {
		case errors.As(err, &f):
			// The command no longer reads. It may have ended, which its output will show.
			if !none && delay.For(ctx, farewellTimeout) == nil {
				cancel(fmt.Errorf("the machine does not take the input of the command: %w", f))
			}
			return
		case err != nil:
			cancel(s.lost(ctx, err))
			return
		case end:
			return
		}
	}
}
