package web

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/crypto/ssh"

	"bake/internal/lazyregexp"
	"bake/run/localcloud"
)

// maxTerminals is the maximum number of open terminals.
const maxTerminals = 20

// connecting is the time limit for reaching a shell.
const connecting = 30 * time.Second

var (
	instancePattern = lazyregexp.New(`^i-[0-9a-f]{8,17}$`)
	userPattern     = lazyregexp.New(`^[a-z_][a-z0-9_-]{0,31}$`)
)

// terminal connects a WebSocket with a shell on an instance. The first message is a text
// {"key":"..."} with a private key, which may be empty. Binary messages are input and output of
// the terminal, a text {"cols":80,"rows":24} sets its size, and the last message, a text
// {"end":"..."}, is the reason why it has ended. The login uses EC2 Instance Connect, which
// accepts a key for a minute, and the private key.
func (c *Console) terminal(w http.ResponseWriter, r *http.Request) {
	account, ok := c.account(r.PathValue("account"))
	region, instance, user := r.PathValue("region"), r.PathValue("instance"), r.URL.Query().Get("user")
	if !ok || !regionPattern.Get().MatchString(region) || !instancePattern.Get().MatchString(instance) || !userPattern.Get().MatchString(user) {
		http.NotFound(w, r)
		return
	}
	if r.Header.Get("Origin") == "" { // browsers always send it with a WebSocket
		http.Error(w, "The console does not accept requests from other sites.", http.StatusForbidden)
		return
	}
	select {
	case c.terminals <- struct{}{}:
		defer func() { <-c.terminals }()
	default:
		http.Error(w, fmt.Sprintf("%d terminals are open: close one first.", maxTerminals), http.StatusServiceUnavailable)
		return
	}
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // the client has its answer
	}
	defer ws.CloseNow() //nolint:errcheck // the terminal has ended
	ws.SetReadLimit(64 << 10)
	err = c.shell(r.Context(), ws, account, region, instance, user)
	end := struct {
		End string `json:"end"`
	}{"The session has ended."}
	if err != nil {
		end.End = err.Error()
	}
	text, err := json.Marshal(end)
	if err == nil {
		_ = ws.Write(r.Context(), websocket.MessageText, text) // the page may have gone
	}
	_ = ws.Close(websocket.StatusNormalClosure, "") // likewise
}

// shell runs a shell on an instance until it or the WebSocket ends.
func (c *Console) shell(ctx context.Context, ws *websocket.Conn, a Account, region, instance, user string) error {
	outer := ctx // of the WebSocket, which still has to send the reason for the end
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin, began := context.WithTimeout(ctx, connecting)
	defer began()
	var first struct{ Key string }
	_, text, err := ws.Read(begin)
	if err == nil {
		err = json.Unmarshal(text, &first)
	}
	if err != nil {
		return fmt.Errorf("the first message: %w", err)
	}
	client, err := c.logIn(begin, a, region, instance, user, first.Key)
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }()
	context.AfterFunc(ctx, func() { _ = client.Close() }) // which ends the functions that wait for it
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer func() { _ = session.Close() }() // EOF if it has ended
	if err := session.RequestPty("xterm-256color", 24, 80, nil); err != nil {
		return err
	}
	in, err := session.StdinPipe()
	if err != nil {
		return err
	}
	session.Stdout, session.Stderr = frames{ctx, ws}, frames{ctx, ws}
	if err := session.Shell(); err != nil {
		return err
	}
	go func() {
		defer cancel()
		_ = typed(outer, ws, in, session) // the page has gone
	}()
	err = session.Wait()
	if _, ok := errors.AsType[*ssh.ExitError](err); ok || ctx.Err() != nil {
		return nil // the exit status of the last command of the shell
	}
	return err
}

// typed forwards the input from a page to a shell.
func typed(ctx context.Context, ws *websocket.Conn, in io.Writer, session *ssh.Session) error {
	for {
		kind, data, err := ws.Read(ctx)
		if err != nil {
			return err
		}
		if kind == websocket.MessageBinary {
			if _, err := in.Write(data); err != nil {
				return err
			}
			continue
		}
		var size struct{ Cols, Rows int }
		if err := json.Unmarshal(data, &size); err != nil {
			return err
		}
		if size.Cols > 0 && size.Cols <= 1000 && size.Rows > 0 && size.Rows <= 1000 {
			_ = session.WindowChange(size.Rows, size.Cols) // the end of the shell is reported elsewhere
		}
	}
}

// logIn connects to an instance with a temporary key and, if it is not empty, a private one.
func (c *Console) logIn(ctx context.Context, a Account, region, instance, user, private string) (*ssh.Client, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	signers := []ssh.Signer{signer}
	if private != "" {
		own, err := ssh.ParsePrivateKey([]byte(private))
		if err != nil {
			return nil, fmt.Errorf("the private key: %w", err)
		}
		signers = append(signers, own)
	}
	body, err := json.Marshal(map[string]string{
		"InstanceId": instance, "InstanceOSUser": user, "SSHPublicKey": strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))),
	})
	if err != nil {
		return nil, err
	}
	resp, err := c.call(ctx, a, region, "ec2-instance-connect", "application/x-amz-json-1.1", "AWSEC2InstanceConnectService.SendSSHPublicKey", body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var refused struct {
			Lower string `json:"message"`
			Upper string `json:"Message"`
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // the part that can be read is enough
		_ = json.Unmarshal(text, &refused)
		return nil, fmt.Errorf("%s: %s", resp.Status, refused.Lower+refused.Upper)
	}
	conn, err := localcloud.Connect(ctx, c.opts.Endpoint, instance+":22")
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	sshConn, channels, requests, err := ssh.NewClientConn(conn, instance, &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)},
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { return nil }, // the cloud itself connects to the instance
	})
	if err != nil {
		_ = conn.Close() // it did not become a client
		return nil, fmt.Errorf("log in as %s: %w. Keys are lent to images that have ec2-instance-connect, as Ubuntu's and Amazon's; for others, choose the private key of the instance's key pair", user, err)
	}
	return ssh.NewClient(sshConn, channels, requests), nil
}

// frames sends the output of a shell as messages.
type frames struct {
	ctx context.Context // of the session that writes
	ws  *websocket.Conn
}

func (f frames) Write(b []byte) (int, error) {
	if err := f.ws.Write(f.ctx, websocket.MessageBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}
