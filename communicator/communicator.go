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

// Communicator runs commands on one machine and moves files to and from it.
// It reconnects by itself when the connection was lost between two calls.
// Methods are safe for concurrent use.
type Communicator interface {
	// Run runs c in the login user's shell and waits for it. The error is not
	// nil only if the exit status is unknown: it is ErrDisconnected when the
	// connection went away while the command ran, or the cause of ctx.
	Run(ctx context.Context, c Command) (Status, error)

	// Put writes every file and directory of src below the directory dst, which
	// must exist on the machine; "~" at its start means the login user's home.
	// Directories that exist already are kept. Permission bits are kept, owners
	// and times are not; symbolic links are followed where src follows them.
	Put(ctx context.Context, dst string, src fs.FS) error

	// Get writes the file or directory src of the machine into dst under its
	// base name, with its permission bits; if src ends in "/." it writes what is
	// in that directory. Nothing it writes can leave dst.
	Get(ctx context.Context, src string, dst *os.Root) error

	Close() error
}

// Command is one command line for the machine's shell.
type Command struct {
	Line   string    // sent as it is
	Stdin  io.Reader // nil: empty
	Stdout io.Writer // nil: dropped
	Stderr io.Writer // nil: dropped
}

// Status is how a command ended.
type Status struct {
	Code   int    // exit status; 128 + n when it was ended by signal n and no status was given
	Signal string // name without SIG, such as "KILL"; empty if it exited by itself
}

// ErrDisconnected says that the connection was lost while a command ran, so that
// its exit status is unknown. Rebooting the machine does this.
var ErrDisconnected = errors.New("the connection to the machine was lost while the command ran")

// ErrNoCommands says that the machine does not run commands for the user: nothing
// of what was asked for has begun.
var ErrNoCommands = errors.New("the machine does not run commands for this user")

// Forwarder is a communicator that can connect to what its machine can connect to.
type Forwarder interface {
	// Forward connects to a TCP address, host:port as the machine understands it. The
	// error is ErrNoForwarding if the machine does that for nobody, ErrDisconnected if
	// there is no machine any more, and otherwise that of the address.
	Forward(ctx context.Context, addr string) (net.Conn, error)
}

// ErrNoForwarding says that the machine does not forward connections.
var ErrNoForwarding = errors.New("the machine does not forward connections")

// ErrNoMachine is what a communicator of type "none" says to file transfers.
var ErrNoMachine = errors.New(`the communicator is "none": there is no machine to move files to or from`)

// Describer is a communicator that knows how it reached the machine.
type Describer interface {
	// Describe tells it, as things are now.
	Describe() Connection
}

// Connection is how a communicator reached the machine.
type Connection struct {
	Host     string
	Port     int
	User     string
	Password string // empty if something else let in
	WinRM    bool   // it is one of WinRM
	TLS      bool   // of WinRM: over HTTPS
	Insecure bool   // likewise, and any certificate is taken
	NTLM     bool   // of WinRM: the login is by NTLM, not by HTTP basic authentication
}

// Access is what a user's own SSH client needs to know of the way to a machine,
// beyond the values of build.*.
type Access struct {
	Port     int      // of the machine's SSH server, wherever it is forwarded to
	KeyFile  string   // the user's own private key, if that lets in
	CertFile string   // its certificate, if it needs one
	Agent    bool     // keys of the user's SSH agent are tried
	HostKeys []string // those that are known to be the machine's, as in authorized_keys; none: any is taken
	Direct   bool     // the host can be dialed without the help of anybody
	Proxy    []string // a command that connects its standard input and output to %h at %p; none: dial
	Through  string   // what alone leads there, in words, if no SSH client can take that way
}

// Accessible is a communicator whose machine a user can log in to with SSH.
type Accessible interface {
	// Access tells how, as things are now.
	Access() Access

	// Dial connects to the machine's SSH server once more, the way it was reached.
	Dial(ctx context.Context) (net.Conn, error)
}

// Reopener is a communicator that can connect to its machine once more.
type Reopener interface {
	// Another returns a communicator to the same machine and user that logs in by
	// itself when it is first used. The caller closes it.
	Another() Communicator
}
