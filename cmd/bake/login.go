package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// logins tells how to log in to the machines of a run. The keys are files that only
// this user can read, and that are deleted with what the run has made.
type logins struct {
	dir   string
	local bool // the machines are those of the local cloud
}

// keysDir is where the keys of a run's machines are.
func keysDir(state, run string) string { return filepath.Join(runsDir(state), run+".keys") }

// command returns the shell command that logs in to the machine of a build, whose
// values of build.* are data; empty if it has no SSH.
func (l *logins) command(build string, data map[string]any) string {
	text := func(name string) string {
		if data[name] == nil {
			return ""
		}
		return fmt.Sprint(data[name])
	}
	host, user, port, key := text("Host"), text("User"), text("Port"), text("SSHPrivateKey")
	if host == "" || user == "" || text("WinRMPassword") != "" {
		return ""
	}
	file := ""
	if strings.Contains(key, "PRIVATE KEY") {
		file = filepath.Join(l.dir, strings.ReplaceAll(build, string(filepath.Separator), "_")+".pem")
		if err := os.MkdirAll(l.dir, 0o700); err != nil {
			return ""
		}
		if err := os.WriteFile(file, []byte(strings.TrimRight(key, "\n")+"\n"), 0o600); err != nil {
			return ""
		}
	}
	return sshCommand(file, user, host, port, l.local)
}

// movedBy is what the local cloud adds to the ports of machines that cannot be
// opened on this host.
const movedBy = 20000

// servedPort is the port of this host at which a machine's port is served: another
// one if this user may not listen on it, or somebody else does on all addresses.
func servedPort(port int) int {
	l, err := net.Listen("tcp4", fmt.Sprintf("127.255.255.254:%d", port))
	if err != nil {
		return port + movedBy
	}
	l.Close()
	return port
}
