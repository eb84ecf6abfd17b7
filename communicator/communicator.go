// Package communicator defines how bake talks to a machine.
package communicator

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
)

// Communicator runs commands on one machine and transfers files to and from it. If the connection
// was lost between two calls, it reconnects. Methods are safe for concurrent use.
type Communicator interface {
	// Run runs c in the login user's shell and waits for it. An error means that the exit status is
	// unknown: it is ErrDisconnected if the connection was lost while the command ran, or the cause
	// of ctx.
	Run(ctx context.Context, c Command) (Status, error)

	// Put writes every file and directory of src into the directory dst, which must exist on the
	// machine; "~" at its start means the login user's home. Existing directories are kept.
	// Permission bits are kept, owners and times are not; symbolic links are followed where src
	// follows them.
	Put(ctx context.Context, dst string, src fs.FS) error

	// Get writes the file or directory src of the machine into dst under its base name, with its
	// permission bits. If src ends in "/.", it writes the content of that directory. It cannot
	// write outside dst.
	Get(ctx context.Context, src string, dst *os.Root) error

	Close() error
}

// Command is a command line for the machine's shell.
type Command struct {
	Line   string    // sent unchanged
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // nil: dropped
	Stderr io.Writer // nil: dropped
}

// Status is how a command ended.
type Status struct {
	Code   int    // exit status; 128 + n if it was ended by signal n and no status was given
	Signal string // name without SIG, such as "KILL"; empty if it exited normally
}

// ErrDisconnected is the error if the connection was lost while a command ran, so that its
// exit status is unknown. A reboot of the machine causes it.
var ErrDisconnected = errors.New("the connection to the machine was lost while the command ran")

// ErrNoCommands is the error if the machine does not run commands for the user. The
// requested command did not start.
var ErrNoCommands = errors.New("the machine does not run commands for this user")

// Forwarder is a communicator that can open connections from its machine.
type Forwarder interface {
	// Forward connects to a TCP address, host:port as the machine resolves it. The error is
	// ErrNoForwarding if the machine does not forward at all, ErrDisconnected if the machine is
	// gone, and otherwise about the address.
	Forward(ctx context.Context, addr string) (net.Conn, error)
}

// ErrNoForwarding is the error if the machine does not forward connections.
var ErrNoForwarding = errors.New("the machine does not forward connections")

// ErrNoMachine is the error of file transfers with the communicator "none".
var ErrNoMachine = errors.New(`the communicator is "none": there is no machine to move files to or from`)

// Describer is a communicator that knows how it reached the machine.
type Describer interface {
	// Describe returns how the machine is currently reached.
	Describe() Connection
}

// Connection is how a communicator reached the machine.
type Connection struct {
	Host     string
	Port     int
	User     string
	Password string // empty if another method was used
	WinRM    bool   // the communicator is WinRM
	TLS      bool   // for WinRM: over HTTPS
	Insecure bool   // for WinRM: any certificate is accepted
	NTLM     bool   // for WinRM: the login uses NTLM, not HTTP basic authentication
}

// Access is what a user's own SSH client needs to know to connect to a machine, beyond the values
// of build.*.
type Access struct {
	Port     int      // of the machine's SSH server, even if it is forwarded elsewhere
	KeyFile  string   // the user's own private key, if it can log in
	CertFile string   // its certificate, if it needs one
	Agent    bool     // keys of the user's SSH agent are tried
	HostKeys []string // the machine's known keys, as in authorized_keys; if none, any key is accepted
	Direct   bool     // the host can be dialed directly
	Proxy    []string // a command that connects its standard input and output to %h at %p; if none, dial
	Through  string   // if no SSH client can connect the same way: what the connection goes through, in words
}

// Accessible is a communicator whose machine a user can log in to with SSH.
type Accessible interface {
	// Access returns the current values.
	Access() Access

	// Dial opens another connection to the machine's SSH server, the same way.
	Dial(ctx context.Context) (net.Conn, error)
}

// Restarter is a communicator that notices that its machine restarts before the connection breaks.
type Restarter interface {
	// Restarts reports whether the machine is shutting down. If it is, the next call waits until the
	// machine is up again.
	Restarts(ctx context.Context) bool
}

// Reopener is a communicator that can open a second connection to its machine.
type Reopener interface {
	// Another returns a communicator for the same machine and user. It logs in when it is first
	// used. The caller closes it.
	Another() Communicator
}
