package ssh

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/internal/delay"
)

// The OpenSSH extension by which a server sends all its host keys after the login, and
// proves that it has the private keys.
const (
	hostKeysRequest = "hostkeys-00@openssh.com"
	proveRequest    = "hostkeys-prove-00@openssh.com"
)

// learnProved learns the other host keys of a server that has just let a user in,
// as OpenSSH's UpdateHostKeys does.
func (h *hostKeys) learnProved(ctx context.Context, conn ssh.Conn, requests <-chan *ssh.Request) {
	if h.mode != Pin || !strings.Contains(string(conn.ServerVersion()), "OpenSSH") {
		return
	}
	// The server tells its keys before it answers anything else.
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		_, _, _ = conn.SendRequest("keepalive@openssh.com", true, nil)
	}()
	var told []ssh.PublicKey
	take := func(r *ssh.Request) {
		if r.Type == hostKeysRequest {
			told = parseBlobs(r.Payload)
		} else if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
	for waiting := true; waiting; {
		select {
		case r, open := <-requests:
			if !open {
				return
			}
			take(r)
		case <-answered:
			waiting = false
		case <-ctx.Done():
			return
		}
	}
	for {
		select {
		case r, open := <-requests:
			if !open {
				return
			}
			take(r)
			continue
		default:
		}
		break
	}
	if told = h.unknown(told); len(told) == 0 {
		return
	}
	proved, err := within(ctx, func() ([]ssh.PublicKey, error) { return prove(conn, told) }, nil)
	if err == nil {
		h.learn(proved)
	}
}

// parseBlobs returns the keys in a list of strings. It skips strings that are not keys.
func parseBlobs(list []byte) (keys []ssh.PublicKey) {
	for len(list) > 0 && len(keys) < maxPinned {
		var next struct {
			Blob []byte
			Rest []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(list, &next) != nil {
			return keys
		}
		if key, err := ssh.ParsePublicKey(next.Blob); err == nil {
			keys = append(keys, key)
		}
		list = next.Rest
	}
	return keys
}

// prove requests the server's signatures for keys and returns the keys with a valid one.
func prove(conn ssh.Conn, keys []ssh.PublicKey) (proved []ssh.PublicKey, err error) {
	var ask []byte
	for _, k := range keys {
		ask = append(ask, ssh.Marshal(struct{ Blob []byte }{k.Marshal()})...)
	}
	ok, answer, err := conn.SendRequest(proveRequest, true, ask)
	if err != nil || !ok {
		return nil, err
	}
	for _, k := range keys {
		var next struct {
			Signature []byte
			Rest      []byte `ssh:"rest"`
		}
		var signature ssh.Signature
		if ssh.Unmarshal(answer, &next) != nil || ssh.Unmarshal(next.Signature, &signature) != nil {
			return proved, nil
		}
		answer = next.Rest
		signed := ssh.Marshal(struct {
			Name    string
			Session []byte
			Blob    []byte
		}{proveRequest, conn.SessionID(), k.Marshal()})
		if k.Verify(signed, &signature) == nil {
			proved = append(proved, k)
		}
	}
	return proved, nil
}

// keyReader reads the public host keys on a machine's disk, in a session of a trusted link: a shell
// there prints them for each line that it reads. So a key that the build creates is known before
// the connection breaks.
type keyReader struct {
	turn chan struct{} // holds a token while someone reads

	mu      sync.Mutex
	session *session // nil: not started
	stopped bool     // for good
	lines   *bufio.Reader
}

// stop ends the session, which counts among those that the machine allows.
func (r *keyReader) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	if r.session != nil {
		r.session.close()
	}
}

var errStopped = errors.New("host keys are not read any more")

const (
	keysInterval = 100 * time.Millisecond
	keysPatience = 5 * time.Second

	// readKeys prints the keys, and an empty line, for each line that it reads; without the keys if
	// they are the same as before. It starts no other program.
	readKeys = `while read -r ask; do new=; for f in /etc/ssh/ssh_host_*_key.pub /etc/ssh/*/ssh_host_*_key.pub /usr/local/etc/ssh/ssh_host_*_key.pub; do ` +
		`[ ! -r "$f" ] || { read -r k <"$f"; new="$new$k` + "\n" + `"; }; done; [ "$new" = "$old" ] || printf %s "$new"; old=$new; echo; done`
)

// followHostKeys learns the keys on the machine while a command runs, until ctx ends, and once more
// after that; with ssh_read_write_timeout only then, because the answers would hide that the command
// is silent.
func (c *Client) followHostKeys(ctx context.Context, l *link) {
	if c.hostKeys.mode != Pin {
		return
	}
	meanwhile := c.opts.ReadWriteTimeout == 0
	for meanwhile && delay.For(ctx, keysInterval) == nil {
		c.readHostKeys(ctx, l, true)
	}
	<-ctx.Done()
	c.readHostKeys(ctx, l, !meanwhile)
}

// readHostKeys learns the keys on the machine. It starts a shell for that only if start is set,
// because the running command has a session already and the next command may need another. The end
// of ctx does not stop it; it has its own time limit.
func (c *Client) readHostKeys(ctx context.Context, l *link, start bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysPatience)
	defer cancel()
	r := l.hostKeys
	select {
	case r.turn <- struct{}{}:
		defer func() { <-r.turn }()
	case <-ctx.Done():
		return
	}
	r.mu.Lock()
	s, stopped := r.session, r.stopped
	r.mu.Unlock()
	if stopped || s == nil && !start || l.isDown() {
		return
	}
	if s == nil {
		var err error
		if s, err = r.begin(ctx, l); err != nil {
			r.stop()
			return
		}
	}
	keys, err := within(ctx, func() ([]ssh.PublicKey, error) { return r.read(s) }, nil)
	if err != nil {
		r.stop() // a late answer would be taken for the next one's
		return
	}
	if learned := c.hostKeys.learn(keys); len(learned) > 0 {
		var names []string
		for _, k := range learned {
			names = append(names, describe(k))
		}
		c.scope.Say(ctx, "The machine has generated new host keys, which are accepted from now on: %s.", strings.Join(names, ", "))
	}
}

// begin starts the shell.
func (r *keyReader) begin(ctx context.Context, l *link) (*session, error) {
	s, err := l.newSession(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.request(ctx, "exec", struct{ Line string }{shellLine(readKeys)}); err != nil {
		s.close()
		return nil, err
	}
	go func() { _, _ = io.Copy(io.Discard, s.Stderr()) }()
	lines := bufio.NewReaderSize(s.Channel, 16<<10)
	_, err = within(ctx, func() (_ struct{}, err error) {
		for line := ""; err == nil && line != scriptMark+"\n"; { // what comes before is the login shell's
			line, err = nextLine(lines)
		}
		return struct{}{}, err
	}, nil)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.stopped {
		s.close()
		return nil, errors.Join(err, errStopped)
	}
	r.session, r.lines = s, lines
	return s, nil
}

func nextLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	return string(line), err
}

// read asks the shell once.
func (r *keyReader) read(s *session) (keys []ssh.PublicKey, err error) {
	if _, err := io.WriteString(s.Channel, "\n"); err != nil {
		return nil, err
	}
	for range 2 * maxPinned {
		line, err := nextLine(r.lines)
		if err != nil || line == "\n" {
			return keys, err
		}
		if key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil {
			keys = append(keys, key)
		}
	}
	return nil, bufio.ErrTooLong
}
