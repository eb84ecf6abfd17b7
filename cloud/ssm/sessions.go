package ssm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/coder/websocket"

	"bake/cloud/api/ssm"
	"bake/cloud/durable"
	"bake/cloud/lazyregexp"
	"bake/cloud/machine"
	"bake/cloud/wire"
)

// DataChannelPath is the prefix of the paths of the WebSockets that carry sessions.
const DataChannelPath = "/v1/data-channel/"

// Machines gives access to the instances that Session Manager reaches, in place of an
// agent on them.
type Machines interface {
	// Managed reports whether one of the caller's instances is running and has an instance
	// profile. Without a profile, an agent cannot register with Systems Manager.
	Managed(c wire.Caller, id string) bool
	// DialManaged connects to a port of a managed instance from inside it, like its agent.
	// Security groups do not apply.
	DialManaged(ctx context.Context, c wire.Caller, id string, port uint16) (net.Conn, error)
	// RunManaged runs a command on a managed instance, see [machine.Machine]. The error is
	// [machine.ErrEnded] if the instance is not managed.
	RunManaged(ctx context.Context, c wire.Caller, id string, command machine.Command) (status int, err error)
	// RebootManaged reboots a managed instance and returns when its machine has started
	// again. The services in it may not have started yet. The error is [machine.ErrEnded] if
	// the machine does not start or is no longer managed.
	RebootManaged(ctx context.Context, c wire.Caller, id string) error
	// DescribeInstances describes the caller's instances, as EC2 does.
	DescribeInstances(context.Context, *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error)
}

var targetPattern = lazyregexp.New(`^i-[0-9a-f]{8,17}$`)

// portDocument is the only document that sessions can use.
const portDocument = "AWS-StartPortForwardingSession"

// StartSession starts a session that forwards a port of an instance.
func (s *Service) StartSession(ctx context.Context, in *ssm.StartSessionInput) (*ssm.StartSessionOutput, error) {
	c := wire.CallerFrom(ctx)
	connected := targetPattern.Get().MatchString(*in.Target) && s.opts.Machines.Managed(c, *in.Target)
	if in.DocumentName == nil && connected {
		return nil, wire.Errorf("InvalidDocument", "The embedded cloud has no shell sessions, only sessions of the document %s.", portDocument)
	}
	if name := aws.ToString(in.DocumentName); in.DocumentName != nil && name != portDocument {
		return nil, wire.Errorf("InvalidDocument", "Document with name %s does not exist. The embedded cloud has %s.", name, portDocument)
	}
	port := uint64(80) // the document's default
	for name, values := range in.Parameters {
		if name != "portNumber" && name != "localPortNumber" || len(values) != 1 {
			return nil, wire.Errorf("InvalidParameters", "Parameter %s is not a parameter of the document, or does not have exactly one value.", name)
		}
		n, err := strconv.ParseUint(values[0], 10, 16)
		if err != nil {
			return nil, wire.Errorf("InvalidParameters", "The value %s of %s is not a port.", values[0], name)
		}
		if name == "portNumber" {
			port = n
		}
	}
	if !connected {
		return nil, wire.Errorf("TargetNotConnected", "%s is not connected.", *in.Target)
	}
	session := &session{
		id: "root-" + randomText(17), caller: c, target: *in.Target, port: uint16(port), machines: s.opts.Machines,
		attach: make(chan *websocket.Conn), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	return durable.Do(s.guarded, func(st *state) (*ssm.StartSessionOutput, error) {
		if st.closed {
			return nil, &wire.Error{Code: "InternalServerError", Message: "The embedded cloud is being closed.", Status: http.StatusServiceUnavailable}
		}
		st.sessions[session.id] = session
		session.token = randomText(32)
		s.work.Go(func() {
			session.run()
			_ = s.guarded.Update(func(st *state) error { delete(st.sessions, session.id); return nil })
		})
		return &ssm.StartSessionOutput{SessionId: &session.id, TokenValue: aws.String(session.token), StreamUrl: aws.String(session.url(c))}, nil
	})
}

// url returns the URL of a session's data channel, on the host at which the client reaches
// the API.
func (p *session) url(c wire.Caller) string {
	return "ws://" + c.Host + DataChannelPath + p.id + "?role=publish_subscribe"
}

func randomText(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// session returns the caller's session, or nil.
func (s *state) session(c wire.Caller, id string) *session {
	if p := s.sessions[id]; p != nil && p.caller.Account == c.Account && p.caller.Region == c.Region {
		return p
	}
	return nil
}

// ResumeSession returns a token for another WebSocket of a session.
func (s *state) ResumeSession(ctx context.Context, in *ssm.ResumeSessionInput) (*ssm.ResumeSessionOutput, error) {
	c := wire.CallerFrom(ctx)
	p := s.session(c, *in.SessionId)
	if p == nil {
		return nil, wire.Errorf("DoesNotExistException", "Session with ID %s doesn't exist.", *in.SessionId)
	}
	p.token = randomText(32)
	return &ssm.ResumeSessionOutput{SessionId: &p.id, TokenValue: aws.String(p.token), StreamUrl: aws.String(p.url(c))}, nil
}

// TerminateSession ends a session. It is no error if it does not exist.
func (s *Service) TerminateSession(ctx context.Context, in *ssm.TerminateSessionInput) (*ssm.TerminateSessionOutput, error) {
	p := durable.View(s.guarded, func(st *state) *session { return st.session(wire.CallerFrom(ctx), *in.SessionId) })
	if p != nil {
		p.terminate()
	}
	return &ssm.TerminateSessionOutput{SessionId: in.SessionId}, nil
}

// Sessions returns the number of sessions.
func (s *Service) Sessions() int {
	return durable.View(s.guarded, func(st *state) int { return len(st.sessions) })
}

// Close ends all sessions and commands.
func (s *Service) Close() {
	_ = s.guarded.Update(func(st *state) error {
		st.closed = true
		for _, p := range st.sessions {
			p.terminate()
		}
		for _, e := range st.running {
			e.cancel(errClosing)
		}
		return nil
	})
	s.work.Wait()
}

// opening is the first message on a WebSocket.
type opening struct {
	TokenValue string
}

const openingLimit = 10 * time.Second

// ServeHTTP accepts the WebSocket of a session. The token, which is valid once, is the
// only authorization.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), openingLimit)
	defer cancel()
	p, err := s.admit(ctx, ws, strings.TrimPrefix(r.URL.Path, DataChannelPath))
	if err != nil {
		_ = ws.Close(websocket.StatusPolicyViolation, err.Error()) // the WebSocket is not authorized
		return
	}
	select {
	case p.attach <- ws:
	case <-p.ended:
		_ = ws.CloseNow() // the session has ended
	}
}

func (s *Service) admit(ctx context.Context, ws *websocket.Conn, id string) (*session, error) {
	_, data, err := ws.Read(ctx)
	var first opening
	if err == nil {
		err = json.Unmarshal(data, &first)
	}
	if err != nil {
		return nil, errors.New("no token")
	}
	return durable.Do(s.guarded, func(st *state) (*session, error) {
		p := st.sessions[id]
		if p == nil || first.TokenValue == "" || first.TokenValue != p.token {
			return nil, errors.New("unknown session or token")
		}
		p.token = ""
		return p, nil
	})
}
