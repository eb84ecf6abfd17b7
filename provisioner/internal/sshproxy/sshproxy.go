// Package sshproxy is an SSH server that forwards requests of its clients to a machine,
// over any communicator. It supports commands, with their input and output, and file
// transfers: by SFTP, and by scp even for machines without that program.
package sshproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"bake/communicator"
)

// Server configures who may log in, and to which machine.
type Server struct {
	Machine   communicator.Communicator
	User      string
	ClientKey ssh.PublicKey
	HostKey   ssh.Signer

	// SFTP is the command that serves SFTP on the machine. Empty: OpenSSH's SFTP server,
	// wherever it is installed.
	SFTP string

	// Copy serves scp with the communicator's own transfers, for machines whose commands
	// are not those of Unix.
	Copy bool
}

// findSFTP runs OpenSSH's SFTP server. The paths are those of Debian; Red Hat; Arch and
// others; Alpine; and macOS.
const findSFTP = `for f in /usr/lib/openssh/sftp-server /usr/libexec/openssh/sftp-server /usr/lib/sftp-server /usr/lib/ssh/sftp-server /usr/libexec/sftp-server; do ` +
	`[ ! -x "$f" ] || exec "$f"; done; echo "there is no sftp-server on the machine" >&2; exit 127`

// handshakeTimeout is how long a client may take to log in.
const handshakeTimeout = time.Minute

// Serve serves clients until ctx ends, and returns when all connections are closed.
func (s *Server) Serve(ctx context.Context, listener net.Listener) {
	config := &ssh.ServerConfig{PublicKeyCallback: s.admit}
	config.AddHostKey(s.HostKey)
	defer context.AfterFunc(ctx, func() { _ = listener.Close() })()
	var clients sync.WaitGroup
	defer clients.Wait()
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // closed
		}
		clients.Go(func() { s.client(ctx, conn, config) })
	}
}

func (s *Server) admit(conn ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	if conn.User() != s.User || !bytes.Equal(key.Marshal(), s.ClientKey.Marshal()) {
		return nil, errors.New("neither this user nor this key is let in")
	}
	return nil, nil
}

// client serves one client.
func (s *Server) client(ctx context.Context, conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errGone)
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(handshakeTimeout)); err != nil {
		return
	}
	server, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil || conn.SetDeadline(time.Time{}) != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	go func() {
		_ = server.Wait()
		cancel(errGone)
	}()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for wanted := range channels {
		if wanted.ChannelType() != "session" {
			_ = wanted.Reject(ssh.UnknownChannelType, "bake passes on commands and files only")
			continue
		}
		channel, requests, err := wanted.Accept()
		if err != nil {
			return
		}
		sessions.Go(func() { s.session(ctx, channel, requests) })
	}
}

var errGone = errors.New("the SSH client has closed the connection")

// session serves one session: the requests before its command, and the command.
func (s *Server) session(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errGone)
	defer func() { _ = channel.Close() }() // the client may be gone
	reply := func(r *ssh.Request, ok bool) {
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
	}
	for r := range requests {
		var what struct{ Text string }
		switch {
		case r.Type == "exec" && ssh.Unmarshal(r.Payload, &what) == nil:
		case r.Type == "subsystem" && ssh.Unmarshal(r.Payload, &what) == nil && what.Text == "sftp":
			what.Text = s.SFTP
			if what.Text == "" {
				what.Text = findSFTP
			}
		case r.Type == "pty-req": // commands run without a terminal, unless the communicator is configured to use one
			reply(r, true)
			continue
		default:
			reply(r, false)
			continue
		}
		reply(r, true)
		go func() {
			for r := range requests { // such as signals; the command ends with its channel
				reply(r, false)
			}
			cancel(errGone)
		}()
		s.command(ctx, channel, what.Text)
		return
	}
}

// command runs one command of a session, and sends its exit status. If the status is
// unknown, the session ends without one, which SSH clients treat as a lost connection.
func (s *Server) command(ctx context.Context, channel ssh.Channel, line string) {
	var code int
	var err error
	if c, ok := parseCopy(line); ok && s.Copy {
		code, err = s.copy(ctx, channel, c)
	} else {
		var st communicator.Status
		st, err = s.Machine.Run(ctx, communicator.Command{Line: line, Stdin: channel, Stdout: channel, Stderr: channel.Stderr()})
		code = st.Code
	}
	if err != nil {
		if !errors.Is(err, errGone) {
			fmt.Fprintf(channel.Stderr(), "bake: %s\r\n", strings.ReplaceAll(err.Error(), "\n", "\r\n"))
		}
		return
	}
	_ = channel.CloseWrite()
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)})) // the client may be gone
}
