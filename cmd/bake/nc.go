package main

import (
	"context"
	"fmt"
	"net"

	"github.com/spf13/cobra"

	"bake/internal/local"
	"bake/internal/relay"
	"bake/run/localcloud"
)

func (p *program) ncCommand() *cobra.Command {
	var endpoint, through string
	cmd := &cobra.Command{
		Use:   "nc HOST PORT",
		Short: "Connect standard input and output to a port of a local machine",
		Long: `Connect standard input and output to a port of a local machine, while 'bake cloud up'
is running. This reaches the ports that the host does not let an ordinary user listen
on, such as 22, and is meant for SSH.`,
		Example: `  ssh -o ProxyCommand='bake nc %h %p' admin@127.10.0.4`,
		Args:    exactly("the host", "the port"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.nc(cmd.Context(), endpoint, through, net.JoinHostPort(args[0], args[1]))
		},
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "`URL` of the local cloud, if it runs on another host")
	// For SSH clients of programs that a build runs, such as Ansible.
	cmd.Flags().StringVar(&through, "through", "", "`socket` of the build that serves the machine")
	cmd.Flags().Lookup("through").Hidden = true
	return cmd
}

func (p *program) nc(ctx context.Context, endpoint, through, addr string) (err error) {
	var conn net.Conn
	if through != "" {
		conn, err = relay.Connect(ctx, through, addr)
	} else {
		conn, err = p.cloudConn(ctx, endpoint, addr)
	}
	if err != nil {
		return err
	}
	return relay.Join(conn, p.stdin, p.stdout)
}

// cloudConn connects to a port of a local machine.
func (p *program) cloudConn(ctx context.Context, endpoint, addr string) (net.Conn, error) {
	if endpoint == "" {
		dir, err := p.env.cloudDir()
		if err != nil {
			return nil, err
		}
		if endpoint, err = local.Endpoint(dir); err != nil {
			return nil, fmt.Errorf("the local cloud is not running; start it with 'bake cloud up' (%w)", err)
		}
	}
	return localcloud.Connect(ctx, endpoint, addr)
}
