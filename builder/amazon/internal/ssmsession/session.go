// Package ssmsession connects to a port of a machine through AWS Session Manager: a
// session of the document AWS-StartPortForwardingSession. It implements the data
// channel itself and does not need the program session-manager-plugin.
//
// The channel is a stream of numbered messages over a WebSocket. Messages are repeated
// until they are acknowledged, and the receiver puts them in order, so nothing is lost
// when the WebSocket breaks and the session is resumed on another one.
package ssmsession

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"bake/builder/amazon/internal/agentmessage"
	"bake/internal/delay"
)

// Stream is the address of a session's data channel, with a single-use token that opens
// it.
type Stream struct{ ID, URL, Token string }

// API are the calls of Systems Manager that a session needs.
type API struct {
	// Start begins a session, and Resume reconnects to the session id. A Stream without a
	// token means that the session has ended.
	Start  func(ctx context.Context) (Stream, error)
	Resume func(ctx context.Context, id string) (Stream, error)
	// Terminate ends the session id.
	Terminate func(ctx context.Context, id string) error
	// DataKey makes a data key of DataKeySize bytes with KMS, for a session that must be
	// encrypted. encrypted is the same key in a form that the machine's agent can decrypt.
	DataKey func(ctx context.Context, session, keyID string) (plain, encrypted []byte, err error)
	// HTTP opens the WebSocket; nil is http.DefaultClient.
	HTTP *http.Client
}

const (
	chunk     = 1024 // bytes of the stream in a message, as the agent sends them
	window    = 512  // maximum number of unacknowledged messages
	early     = 4096 // maximum number of messages kept until the preceding ones arrive
	readLimit = 1 << 20

	firstWait = 200 * time.Millisecond // for an acknowledgement, before anything is known
	longWait  = 2 * time.Second
	tick      = 50 * time.Millisecond

	firstPause = 200 * time.Millisecond // between attempts to resume
	longPause  = 10 * time.Second
	patience   = 5 * time.Minute  // for attempts to resume, and for the acknowledgement of a message
	openLimit  = 30 * time.Second // for a WebSocket, and for the call that resumes a session
	writeLimit = 30 * time.Second
	pingEvery  = 30 * time.Second
	flush      = 2 * time.Second // for unsent data when the caller closes
	goodbye    = 5 * time.Second // for the whole termination
)

// errEnded is the error of a session that this side has ended.
var errEnded = errors.New("the session has ended")

// Dial starts a session and returns its connection when the machine's agent has answered.
// Close ends the session.
func Dial(ctx context.Context, api API) (net.Conn, error) {
	stream, err := api.Start(ctx)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	s := &session{
		api: api, stream: stream, client: uuid.NewString(), far: far,
		local: make(chan []byte), deliver: make(chan []byte, early), early: map[int64]agentmessage.Message{},
		ready: make(chan struct{}), done: make(chan struct{}),
	}
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel = cancel
	go s.readLocal()
	go s.writeLocal()
	go func() {
		defer cancel(nil)
		s.run(run)
	}()
	select {
	case <-s.ready:
		return &conn{near, s}, nil
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		cancel(context.Cause(ctx))
		<-s.done
		return nil, context.Cause(ctx)
	}
}

// conn is the caller's end of a session.
type conn struct {
	net.Conn
	s *session
}

// Read implements [net.Conn]. Its last error is the reason why the session ended.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	return n, c.explain(err)
}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	return n, c.explain(err)
}

func (c *conn) explain(err error) error {
	if err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	select {
	case <-c.s.done:
		if !errors.Is(c.s.err, errEnded) {
			return c.s.err
		}
	default:
	}
	return err
}

// Close implements [net.Conn]. It returns when the session has ended.
func (c *conn) Close() error {
	err := c.Conn.Close()
	defer time.AfterFunc(goodbye, func() { c.s.cancel(errEnded) }).Stop()
	<-c.s.done
	return err
}

// session is an active session. The fields below the line belong to run.
type session struct {
	api    API
	client string // id
	far    net.Conn
	cancel context.CancelCauseFunc

	local   chan []byte // data that the caller writes; closed when the caller closes
	deliver chan []byte // data for the caller to read, in order; closed at the end

	ready chan struct{} // closed when the handshake is complete
	done  chan struct{} // closed at the end; err is set then
	err   error

	// ---

	stream   Stream
	agreed   bool        // the handshake is complete
	keys     *cipherKeys // nil: the stream is not encrypted
	paused   bool
	closing  time.Time // when the caller closed; zero before
	out      []*sent   // in order, not acknowledged
	nextOut  int64
	nextIn   int64
	early    map[int64]agentmessage.Message
	rtt, dev time.Duration // of acknowledgements; 0 before the first
}

// sent is a message that has not been acknowledged yet.
type sent struct {
	agentmessage.Message
	first, last time.Time
	tries       int
}

func (s *session) readLocal() {
	defer close(s.local)
	for {
		b := make([]byte, chunk)
		n, err := s.far.Read(b)
		if n > 0 {
			select {
			case s.local <- b[:n]:
			case <-s.done:
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (s *session) writeLocal() {
	for b := range s.deliver {
		if _, err := s.far.Write(b); err != nil {
			break // the caller has closed; the rest is discarded
		}
	}
	<-s.done
	_ = s.far.Close() // the caller reads the end
	for range s.deliver {
	}
}

// run continues the session on one WebSocket after another until it ends.
func (s *session) run(ctx context.Context) {
	pauseFor, broken := firstPause, time.Time{}
	for {
		began := time.Now()
		err := s.carry(ctx)
		var lost *lostError
		if !errors.As(err, &lost) {
			s.end(ctx, err)
			return
		}
		if time.Since(began) > longPause {
			pauseFor, broken = firstPause, time.Time{}
		}
		if broken.IsZero() {
			broken = time.Now()
		}
		for {
			if !s.closing.IsZero() || time.Since(broken) > patience {
				s.end(ctx, fmt.Errorf("the connection to Session Manager broke: %w", lost.error))
				return
			}
			if err := delay.For(ctx, pauseFor); err != nil {
				s.end(ctx, err)
				return
			}
			pauseFor = min(2*pauseFor, longPause)
			resume, cancel := context.WithTimeout(ctx, openLimit)
			next, err := s.api.Resume(resume, s.stream.ID)
			cancel()
			if err == nil && next.Token == "" {
				s.end(ctx, fmt.Errorf("the session was ended while its connection was broken (%w)", lost.error))
				return
			}
			if err == nil {
				s.stream.Token = next.Token
				if next.URL != "" {
					s.stream.URL = next.URL
				}
				break
			}
			if ctx.Err() != nil {
				s.end(ctx, context.Cause(ctx))
				return
			}
			if errors.Is(err, ErrGone) {
				s.end(ctx, err)
				return
			}
		}
	}
}

// ErrGone is the error of Resume when the session no longer exists.
var ErrGone = errors.New("the session does not exist any more")

// end records err and ends the session.
func (s *session) end(ctx context.Context, err error) {
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	_ = s.api.Terminate(stop, s.stream.ID) // AWS ends unused sessions
	s.err = err
	close(s.deliver)
	close(s.done)
}

// lostError is the error of a broken WebSocket.
type lostError struct{ error }

func (e *lostError) Unwrap() error { return e.error }

// carry opens the data channel on a WebSocket and transfers messages over it. The error is
// a *lostError if the session can continue on another WebSocket.
func (s *session) carry(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ws, err := s.open(ctx)
	if err != nil {
		return &lostError{err}
	}
	defer ws.CloseNow() //nolint:errcheck // it has ended
	ws.SetReadLimit(readLimit)
	text, err := json.Marshal(opening{"1.0", uuid.NewString(), s.stream.Token, s.client, clientVersion})
	if err != nil {
		return err
	}
	s.write(ctx, ws, websocket.MessageText, text)
	s.paused = false
	for _, o := range s.out { // they may or may not have arrived
		o.last = time.Time{}
	}
	incoming, broken := make(chan []byte, 2*window), make(chan error, 2)
	go read(ctx, ws, incoming, broken)
	go keepAlive(ctx, ws, broken)
	return s.exchange(ctx, ws, incoming, broken)
}

// open opens a WebSocket. It treats a server that accepts the connection and then stays
// silent as a lost connection.
func (s *session) open(ctx context.Context) (*websocket.Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, openLimit, fmt.Errorf("the data channel of Session Manager was not open within %s", openLimit))
	defer cancel()
	ws, _, err := websocket.Dial(ctx, s.stream.URL, &websocket.DialOptions{HTTPClient: s.api.HTTP})
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	return ws, err
}

func read(ctx context.Context, ws *websocket.Conn, incoming chan<- []byte, broken chan<- error) {
	for {
		kind, data, err := ws.Read(ctx)
		if err != nil {
			broken <- err
			return
		}
		if kind != websocket.MessageBinary {
			continue
		}
		select {
		case incoming <- data:
		case <-ctx.Done():
			return
		}
	}
}

// keepAlive detects a connection that no longer works although it was not closed.
func keepAlive(ctx context.Context, ws *websocket.Conn, broken chan<- error) {
	for delay.For(ctx, pingEvery) == nil {
		pong, cancel := context.WithTimeout(ctx, pingEvery)
		err := ws.Ping(pong)
		cancel()
		if err != nil {
			broken <- err
			return
		}
	}
}

func (s *session) exchange(ctx context.Context, ws *websocket.Conn, incoming <-chan []byte, broken <-chan error) error {
	ticks := time.NewTicker(tick)
	defer ticks.Stop()
	for {
		if err := s.resend(ctx, ws, time.Now()); err != nil {
			return err
		}
		local := s.local
		if !s.agreed || s.paused || len(s.out) >= window || !s.closing.IsZero() {
			local = nil
		}
		select {
		case data := <-incoming:
			if err := s.receive(ctx, ws, data); err != nil {
				return err
			}
		case b, open := <-local:
			if !open {
				s.closing = time.Now()
				continue
			}
			if s.keys != nil {
				b = s.keys.seal(b)
			}
			s.send(ctx, ws, agentmessage.PayloadData, b)
		case <-ticks.C:
			if !s.closing.IsZero() && (len(s.out) == 0 || time.Since(s.closing) > flush) {
				return s.terminate(ctx, ws)
			}
		case err := <-broken:
			for { // data received before the end may contain the reason
				select {
				case data := <-incoming:
					if err := s.receive(ctx, ws, data); err != nil {
						return err
					}
					continue
				default:
				}
				return &lostError{err}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// terminate tells the agent that the session ends.
func (s *session) terminate(ctx context.Context, ws *websocket.Conn) error {
	s.send(ctx, ws, agentmessage.PayloadFlag, binary.BigEndian.AppendUint32(nil, agentmessage.FlagTerminateSession))
	_ = ws.Close(websocket.StatusNormalClosure, "") // the call that ends the session informs the agent too
	return errEnded
}

// send sends a new message of the stream.
func (s *session) send(ctx context.Context, ws *websocket.Conn, of uint32, payload []byte) {
	m := agentmessage.Message{Kind: agentmessage.InputData, Seq: s.nextOut, ID: uuid.New(), PayloadType: of, Payload: payload}
	if m.Seq == 0 {
		m.Flags = 1
	}
	s.nextOut++
	now := time.Now()
	s.out = append(s.out, &sent{m, now, now, 1})
	s.write(ctx, ws, websocket.MessageBinary, m.Encode(now))
}

// write sends b. It ignores errors: if a WebSocket cannot be written, reading it fails too,
// after all received data was read, and reports the error.
func (s *session) write(ctx context.Context, ws *websocket.Conn, kind websocket.MessageType, b []byte) {
	ctx, cancel := context.WithTimeout(ctx, writeLimit)
	defer cancel()
	_ = ws.Write(ctx, kind, b)
}

// resend repeats messages that have not been acknowledged in time.
func (s *session) resend(ctx context.Context, ws *websocket.Conn, now time.Time) error {
	wait := firstWait
	if s.rtt > 0 {
		wait = min(max(s.rtt+4*s.dev, firstWait), longWait)
	}
	if s.paused {
		return nil
	}
	for _, o := range s.out {
		if now.Sub(o.last) < min(wait<<min(o.tries-1, 4), longWait) {
			continue
		}
		if now.Sub(o.first) > patience {
			return fmt.Errorf("the machine's agent has not acknowledged anything for %s", patience)
		}
		o.last, o.tries = now, o.tries+1
		s.write(ctx, ws, websocket.MessageBinary, o.Encode(now))
	}
	return nil
}

// receive processes a message. It drops a damaged message, because the sender will repeat
// it.
func (s *session) receive(ctx context.Context, ws *websocket.Conn, data []byte) error {
	m, err := agentmessage.Decode(data)
	if err != nil {
		return nil
	}
	switch m.Kind {
	case agentmessage.Acknowledge:
		var a agentmessage.Ack
		if json.Unmarshal(m.Payload, &a) == nil {
			s.acknowledged(a.Seq, time.Now())
		}
	case agentmessage.Pause:
		s.paused = true
	case agentmessage.Start:
		s.paused = false
	case agentmessage.Closed:
		var why struct{ Output string }
		_ = json.Unmarshal(m.Payload, &why) // the reason is optional
		if why.Output == "" {
			return errors.New("the machine's agent closed the session")
		}
		return fmt.Errorf("the machine's agent closed the session: %s", why.Output)
	case agentmessage.OutputData:
		return s.inOrder(ctx, ws, m)
	}
	return nil
}

// inOrder acknowledges a message of the machine's stream. It processes the message in
// order, followed by later ones that had to wait for it.
func (s *session) inOrder(ctx context.Context, ws *websocket.Conn, m agentmessage.Message) error {
	if m.Seq > s.nextIn && len(s.early) >= early || len(s.deliver) > early-len(s.early)-2 {
		return nil // no room; the sender will repeat it
	}
	reply, err := agentmessage.Acknowledging(m)
	if err != nil {
		return err
	}
	s.write(ctx, ws, websocket.MessageBinary, reply.Encode(time.Now()))
	if m.Seq < s.nextIn {
		return nil // its acknowledgement was lost
	}
	s.early[m.Seq] = m
	for {
		next, ok := s.early[s.nextIn]
		if !ok {
			return nil
		}
		delete(s.early, s.nextIn)
		s.nextIn++
		if err := s.process(ctx, ws, next); err != nil {
			return err
		}
	}
}

func (s *session) process(ctx context.Context, ws *websocket.Conn, m agentmessage.Message) error {
	switch m.PayloadType {
	case agentmessage.PayloadHandshakeRequest:
		if s.agreed {
			return errors.New("the machine's agent begins another handshake")
		}
		var request handshakeRequest
		if err := json.Unmarshal(m.Payload, &request); err != nil {
			return fmt.Errorf("the agent's handshake cannot be read: %w", err)
		}
		response, keys, unusable := request.answer(func(keyID string) (plain, encrypted []byte, err error) {
			if s.api.DataKey == nil {
				return nil, nil, errors.New("KMS is not available here")
			}
			ctx, cancel := context.WithTimeout(ctx, openLimit)
			defer cancel()
			return s.api.DataKey(ctx, s.stream.ID, keyID)
		})
		s.keys = keys
		payload, err := json.Marshal(response)
		if err != nil {
			return err
		}
		s.send(ctx, ws, agentmessage.PayloadHandshakeResponse, payload)
		return unusable
	case agentmessage.PayloadChallenge:
		return s.challenged(ctx, ws, m.Payload)
	case agentmessage.PayloadHandshakeComplete:
		if !s.agreed {
			s.agreed = true
			close(s.ready)
		}
	case agentmessage.PayloadFlag:
		if len(m.Payload) == 4 && binary.BigEndian.Uint32(m.Payload) == agentmessage.FlagConnectToPortError {
			return errors.New("the machine's agent cannot connect to the port")
		}
	case agentmessage.PayloadData:
		data := m.Payload
		if s.keys != nil {
			var err error
			if data, err = s.keys.open(data); err != nil {
				return err
			}
		}
		s.deliver <- data // inOrder has ensured that there is room
	}
	return nil
}

// challenge is the message with which each side proves that it has the keys.
type challenge struct{ Challenge []byte }

// challenged answers the agent's challenge.
func (s *session) challenged(ctx context.Context, ws *websocket.Conn, payload []byte) error {
	var c challenge
	if err := json.Unmarshal(payload, &c); err != nil || s.keys == nil {
		return errors.New("the machine's agent challenges a session that is not encrypted")
	}
	plain, err := s.keys.open(c.Challenge)
	if err != nil {
		return err
	}
	answer, err := json.Marshal(challenge{s.keys.seal(plain)})
	if err != nil {
		return err
	}
	s.send(ctx, ws, agentmessage.PayloadChallengeResponse, answer)
	return nil
}

// acknowledged removes the message seq and updates the estimate of the round-trip time.
func (s *session) acknowledged(seq int64, now time.Time) {
	for i, o := range s.out {
		if o.Seq != seq {
			continue
		}
		if o.tries == 1 { // otherwise it is not known which transmission this acknowledges
			rtt := now.Sub(o.last)
			if s.rtt == 0 {
				s.rtt, s.dev = rtt, rtt/2
			} else {
				s.dev = (3*s.dev + (s.rtt - rtt).Abs()) / 4
				s.rtt = (7*s.rtt + rtt) / 8
			}
		}
		s.out = append(s.out[:i], s.out[i+1:]...)
		return
	}
}
