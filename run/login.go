package run

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"bake/builder"
	"bake/communicator"
	"bake/internal/login"
	"bake/run/localcloud"
)

// logins records how to log in to the machines of a run, for bake ssh, until the resources
// of the run are deleted.
type logins struct {
	dir, run string
	onLocal  bool     // the machines are those of the local cloud
	endpoint string   // of the local cloud that the environment names; empty: none
	connect  []string // as in [Options]
}

// text describes how to log in to the machine of a build; empty if it has no SSH.
func (l *logins) text(ctx context.Context, build string, m builder.Machine) string {
	value := func(name string) string { return m.Data[name].Text }
	reached, ok := m.Communicator.(communicator.Accessible)
	if !ok || value("User") == "" {
		return ""
	}
	access := reached.Access()
	machine := login.Machine{Run: l.run, Build: build, User: value("User"), Host: value("Host"),
		KeyFile: access.KeyFile, Cert: access.CertFile, Proxy: access.Proxy, Through: access.Through}
	machine.Port, _ = strconv.Atoi(value("Port"))
	if l.connect != nil && l.onLocal && len(machine.Proxy) == 0 && !dialed(machine.Host, machine.Port) {
		// The cloud identifies its machines by id, and connects to each of their ports.
		machine.Host, machine.Port, machine.Proxy, machine.Through = value("ID"), access.Port, l.connect, ""
	}
	if l.connect != nil && !l.onLocal && l.endpoint != "" && len(machine.Proxy) == 0 && machine.Through == "" {
		at := net.JoinHostPort(machine.Host, strconv.Itoa(machine.Port))
		if localcloud.OnlyThrough(ctx, l.endpoint, at) {
			machine.Proxy = append(slices.Clone(l.connect), "-endpoint="+l.endpoint)
		}
	}
	key := value("SSHPrivateKey")
	if machine.KeyFile != "" || !strings.Contains(key, "PRIVATE KEY") {
		key = "" // the user has the key already
	}
	machine, err := login.Save(l.dir, machine, key)
	switch {
	case err != nil:
		return fmt.Sprintf("You cannot log in to the machine: its key could not be saved (%v)", err)
	case machine.Through != "":
		return "The machine can be reached only through " + machine.Through + ", which SSH clients cannot use"
	}
	return "Log in to the machine:  " + machine.Command()
}

// dialed reports whether clients can dial the port of a machine of the local cloud directly.
func dialed(host string, port int) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() && localcloud.ServedPort(port) == port
}
