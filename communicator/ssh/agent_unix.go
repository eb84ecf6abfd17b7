//go:build unix

package ssh

import (
	"context"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"bake/internal/envvar"
)

// startAgent tells the user how to start an agent.
const startAgent = "SSH_AUTH_SOCK is not set; start one with: eval $(ssh-agent) && ssh-add"

// agentSocket returns the path of the socket of the user's agent, or "" if no agent runs.
func agentSocket(env []string) string { return envvar.Get(env, "SSH_AUTH_SOCK") }

func dialAgent(ctx context.Context, socket string) (io.ReadWriteCloser, error) {
	return (&net.Dialer{Timeout: agentPatience}).DialContext(ctx, "unix", socket)
}

func forwardAgent(client *ssh.Client, socket string) error {
	return agent.ForwardToRemote(client, socket)
}
