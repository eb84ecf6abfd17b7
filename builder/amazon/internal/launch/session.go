package launch

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"bake/builder/amazon/internal/access"
	"bake/builder/amazon/internal/ssmsession"
	"bake/communicator/ssh"
	"bake/internal/delay"
)

// sessions connect to one machine through Session Manager, with one session per
// connection.
type sessions struct {
	l  *Launcher
	id string // of the instance

	forwarded context.Context // ends with the local port; nil if there is none

	mu     sync.Mutex
	fatal  error // why no session will ever start
	warned bool  // the user has been warned that a key could not be installed
}

// sessions returns the connection to a machine through Session Manager, after the pause of
// pause_before_ssm. With session_manager_port, other programs can use it too, until ctx
// ends.
func (l *Launcher) sessions(ctx context.Context, id string) (*sessions, error) {
	s := &sessions{l: l, id: id}
	if l.PauseBeforeSSM > 0 {
		l.Scope.Say(ctx, "Waiting %s before the first session (pause_before_ssm)", l.PauseBeforeSSM)
		if err := delay.For(ctx, l.PauseBeforeSSM); err != nil {
			return nil, err
		}
	}
	if l.SessionManagerPort == 0 {
		return s, nil
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(l.SessionManagerPort)))
	if err != nil {
		return nil, l.Src.Errorf(&l.SessionManagerPort, "The local port cannot be used", "%s.", err)
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	s.forwarded = ctx
	go s.forward(ctx, listener)
	return s, nil
}

// addr returns the address of the machine for build.Host and build.Port: the forwarded
// port, if there is one.
func (s *sessions) addr(context.Context) (string, int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "localhost", s.l.SessionManagerPort, s.fatal
}

// sendPublicKey makes EC2 Instance Connect install the user's own key on the machine for a
// minute, unless the machine was launched with a key pair. It only warns about errors,
// because the key may already be installed.
func (s *sessions) sendPublicKey(ctx context.Context) {
	key, err := ssh.PublicKey(s.l.PrivateKeyFile)
	if err == nil {
		err = s.l.Session.InstanceConnect().Do(ctx, "SendSSHPublicKey", map[string]any{
			"InstanceId": s.id, "InstanceOSUser": s.l.Username, "SSHPublicKey": strings.TrimSpace(string(gossh.MarshalAuthorizedKey(key))),
		}, nil)
	}
	if err == nil || ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.warned {
		s.warned = true
		s.l.Scope.Warn(ctx, "EC2 Instance Connect did not give the machine the key in %s (ec2-instance-connect:SendSSHPublicKey): %s. Logging in works only if the machine accepts that key already", s.l.PrivateKeyFile, err)
	}
}

// name describes what connections to the machine go through; "" if other programs can
// use the local port.
func (s *sessions) name() string {
	if s.forwarded != nil && s.forwarded.Err() == nil {
		return ""
	}
	return "Session Manager (aws ssm start-session --target " + s.id + ")"
}

// stream is the API's description of the data channel of a session.
type stream struct{ SessionID, StreamURL, TokenValue string }

// dial opens a session. The machine's agent registers with AWS some time after the machine
// has started, and after each boot; until then dial returns an error, and the caller can
// retry. Any other error of the API is permanent.
func (s *sessions) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client := s.l.Session.SSM(s.l.Session.Region)
	return ssmsession.Dial(ctx, ssmsession.API{
		HTTP: s.l.Session.WebSocketHTTP(),
		Start: func(ctx context.Context) (ssmsession.Stream, error) {
			var out stream
			err := client.Finish(ctx, "StartSession", map[string]any{
				"Target": s.id, "DocumentName": "AWS-StartPortForwardingSession", "Reason": "bake",
				"Parameters": map[string][]string{"portNumber": {strconv.Itoa(s.l.Port)}},
			}, &out)
			if err != nil {
				s.refused(err)
				return ssmsession.Stream{}, err
			}
			return ssmsession.Stream{ID: out.SessionID, URL: out.StreamURL, Token: out.TokenValue}, nil
		},
		Resume: func(ctx context.Context, id string) (ssmsession.Stream, error) {
			var out stream
			err := client.Do(ctx, "ResumeSession", map[string]any{"SessionId": id}, &out)
			if access.Is(err, "DoesNotExistException") {
				return ssmsession.Stream{}, fmt.Errorf("%w: %w", ssmsession.ErrGone, err)
			}
			if err != nil {
				return ssmsession.Stream{}, err
			}
			return ssmsession.Stream{ID: id, URL: out.StreamURL, Token: out.TokenValue}, nil
		},
		DataKey: func(ctx context.Context, session, keyID string) (plain, encrypted []byte, err error) {
			var out struct{ Plaintext, CiphertextBlob []byte }
			err = s.l.Session.KMS(s.l.Session.Region, "").Do(ctx, "GenerateDataKey", map[string]any{
				"KeyId": keyID, "NumberOfBytes": ssmsession.DataKeySize,
				"EncryptionContext": map[string]string{"aws:ssm:SessionId": session, "aws:ssm:TargetId": s.id},
			}, &out)
			if access.Is(err, "AccessDeniedException") {
				err = fmt.Errorf("%w; this requires kms:GenerateDataKey for the user of bake and kms:Decrypt for the instance's role", err)
			}
			if err != nil {
				s.refused(err)
				return nil, nil, err
			}
			return out.Plaintext, out.CiphertextBlob, nil
		},
		Terminate: func(ctx context.Context, id string) error {
			return client.Do(ctx, "TerminateSession", map[string]any{"SessionId": id}, nil)
		},
	})
}

// refused records a permanent error of the API.
func (s *sessions) refused(err error) {
	if access.Refused(err) && !access.Is(err, "TargetNotConnected", "ThrottlingException", "RateExceeded") {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fatal = s.l.Src.Errorf(&s.l.SSHInterface, "Cannot open a session with the machine", "%s.", err)
	}
}

// sessionLimit is the maximum time to open a session for a connection to the local port.
const sessionLimit = time.Minute

// forward carries connections to the local port, each through a session.
func (s *sessions) forward(ctx context.Context, listener net.Listener) {
	for {
		local, err := listener.Accept()
		if err != nil {
			return // closed
		}
		go func() {
			defer local.Close()
			opening, cancel := context.WithTimeoutCause(ctx, sessionLimit, fmt.Errorf("no session with the machine within %s", sessionLimit))
			remote, err := s.dial(opening, "", "")
			cancel()
			if err != nil {
				s.l.Scope.Warn(ctx, "no session for a connection to local port %d: %s", s.l.SessionManagerPort, err)
				return
			}
			defer context.AfterFunc(ctx, func() { _ = local.Close() })()
			if s.l.sendsPublicKey() {
				s.sendPublicKey(ctx)
			}
			done := make(chan struct{}, 2)
			carry := func(to, from net.Conn) { // until either side ends
				_, _ = io.Copy(to, from)
				done <- struct{}{}
			}
			go carry(remote, local)
			go carry(local, remote)
			<-done // a session cannot be closed in one direction only
			_, _ = remote.Close(), local.Close()
			<-done
		}()
	}
}
