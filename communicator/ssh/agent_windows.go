package ssh

import (
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/windows"

	"bake/internal/envvar"
)

// startAgent tells the user how to start an agent.
const startAgent = "start one with: Start-Service ssh-agent; ssh-add"

// agentSocket returns the named pipe of the user's agent: the one in SSH_AUTH_SOCK, or else
// that of Windows. It returns "" if no agent runs.
func agentSocket(env []string) string {
	if pipe := envvar.Get(env, "SSH_AUTH_SOCK"); pipe != "" {
		return pipe
	}
	const pipe = `\\.\pipe\openssh-ssh-agent`
	if _, err := os.Stat(pipe); err != nil {
		return ""
	}
	return pipe
}

func dialAgent(_ context.Context, pipe string) (io.ReadWriteCloser, error) {
	return os.OpenFile(pipe, os.O_RDWR|windows.FILE_FLAG_OVERLAPPED, 0) // which can be read and written at once
}

func forwardAgent(client *ssh.Client, pipe string) error {
	channels := client.HandleChannelOpen("auth-agent@openssh.com")
	if channels == nil {
		return errors.New("the agent is forwarded already")
	}
	go func() {
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				continue
			}
			go ssh.DiscardRequests(requests)
			go func() {
				defer channel.Close()
				conn, err := dialAgent(context.Background(), pipe)
				if err != nil {
					return // the end of the channel informs the machine
				}
				go func() {
					defer conn.Close() // ends the other direction too
					_, _ = io.Copy(conn, channel)
				}()
				_, _ = io.Copy(channel, conn)
			}()
		}
	}()
	return nil
}
