// Package machine says what the embedded cloud needs of a thing that can boot a
// root file system: a [Driver]. The sandbox driver makes Linux machines out of
// namespaces; machinetest has one that boots nothing, for tests of the API.
package machine

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"bake/cloud/network"
)

// Driver boots machines and does the file work that needs the machines' own
// user ids: files inside a layer belong to ids that only the driver can map.
type Driver interface {
	// Start boots spec and returns once its first process runs, which is before
	// anything answers on the network. The machine outlives ctx; it ends by its
	// own power-off, by Stop or Kill, or with the process that started it.
	// If Start fails nothing is left running and nothing is left mounted.
	Start(ctx context.Context, spec Spec) (Machine, error)

	// Unpack writes a tar stream below dir, which it creates, as one read-only
	// layer: owners, modes, times, hard links, devices and extended attributes
	// are kept, and OCI whiteouts become overlay whiteouts; device nodes are left
	// out where the driver may not make them. No entry can reach outside dir. On
	// error the caller removes dir.
	Unpack(ctx context.Context, tar io.Reader, dir string) error

	// Pack writes the layer in dir as a tar stream that Unpack turns into an
	// equal layer. Two calls give equal bytes.
	Pack(ctx context.Context, dir string, w io.Writer) error

	// Remove deletes dir and all below it. It is no error if dir does not exist.
	Remove(ctx context.Context, dir string) error

	// Clone copies the layer in the open directory src to dst, which must not
	// exist, with everything that Unpack keeps. Used for a snapshot of a machine
	// that goes on running.
	Clone(ctx context.Context, src *os.File, dst string) error

	// MakeVolume makes the directory dir, which must not exist, a volume of size
	// bytes; see [Spec.Dir]. Its content is a copy of what an overlay of layers,
	// topmost first, shows; without layers it is blank. On error the caller
	// removes dir.
	MakeVolume(ctx context.Context, dir string, layers []string, size int64) error

	// GrowVolume makes the volume in dir, which may be plugged, larger: size bytes. Dir may
	// be that of a machine, whose root it is then.
	GrowVolume(dir string, size int64) error

	// Private makes the directory dir, and those above it that are missing, and
	// takes what rights others have on it away if it exists. Nobody may enter it
	// but the user of this process and the machines' root, whose layers may be
	// below it.
	Private(dir string) error

	// Runs reports whether machines can run programs for a processor, in Go's words: nil,
	// or why not and what the user can do about it. "" is the host's own.
	Runs(arch string) error

	// Check reports what this host has and lacks for running machines.
	Check(ctx context.Context) []Finding
}

// Finding is one line of `bake doctor`.
type Finding struct {
	Name   string // what was looked at, such as "user namespaces"
	OK     bool
	Fatal  bool   // no machine can run without it
	Detail string // what was found, in one line
	Remedy string // what the user can do about it; empty when OK
}

// Spec describes one boot.
type Spec struct {
	ID string // instance id, unique on this host

	// Dir is the machine's own directory. The driver keeps the writable layer in
	// Dir/upper and may use other names beside it; all of it survives a stop, so
	// a later Start with the same Dir finds the same disk. The caller may rename
	// Dir/upper away between a stop and the next Start: that is how an image is
	// made, and the next Start begins with an empty one.
	//
	// Dir/volumes holds the volumes that the machine has besides its root: each
	// is a directory from MakeVolume under the name of a device, such as xvdf for
	// /dev/xvdf. The caller moves them there and away between a stop and a Start,
	// or before Plug and after Unplug.
	Dir string

	// Layers are the read-only layers below Dir/upper, topmost first.
	Layers []string

	// Arch is the processor that the programs on the disk are for, in Go's words; empty is
	// the host's. What Runs denies cannot be started.
	Arch string

	// Type is the instance type that the machine says it has.
	Type string

	// Limits are how large the machine is. The driver holds it to them as far as
	// the host lets it; Check says how far that is.
	Limits Limits

	// RootSize is how large the machine sees its root file system, in bytes, as far as the
	// host lets the driver show it; 0 is as large as the host's. Nothing holds the machine to it.
	RootSize int64

	// Hostname of the machine, such as ip-172-31-0-5.
	Hostname string

	// First is set for the first boot of an instance: identity inherited from the
	// image (SSH host keys, machine id) is replaced before anything starts.
	First bool

	// Continues says, at the first boot, that the instance goes on with what another was
	// doing whose disk it has a copy of: its cloud-init has been there, if it had finished, and
	// what it does once for an instance is done.
	Continues bool

	// User is the login user that gets AuthorizedKeys, and passwordless sudo if
	// the machine has sudo. It is created when the image lacks it.
	User           string
	AuthorizedKeys []string

	// HasUserData delays the SSH server until cloud-init has run its init stage,
	// as the distribution orders it. Without user data there is nothing to wait
	// for and the two run side by side.
	HasUserData bool

	// Console is the file that the machine's console is appended to.
	Console string

	// Command, when not empty, runs instead of an init system, with the console
	// as its output; the machine ends with it and a non-zero exit status is the
	// error of Exit. Used to finish the bootstrap of a base.
	Command []string

	Network network.Config

	// Waiting, if not nil, is told once, before Start returns, for what the start
	// has to wait on this host, and what the user can do about it.
	Waiting func(why string)
}

// Limits are the size of a machine. A zero is none.
type Limits struct {
	CPUs      int
	Memory    int64 // bytes
	Processes int
}

// Machine is one running boot of a [Spec].
type Machine interface {
	// Dial connects to a TCP port of the machine from inside its network, past
	// any security group. It is what listeners on the public address use. As long as a
	// machine starts and nothing in it listens it may wait, for some seconds, instead
	// of being refused.
	Dial(ctx context.Context, port uint16) (net.Conn, error)

	// Exec runs a command as the machine's root and waits until it has ended and nobody has
	// its output any more. The status is that of a shell: 128 and the number of one for a
	// signal. When ctx ends its process group is killed, and the error is ctx's cause; when
	// the machine ends or is to, that happens too, and it is [ErrEnded]. Any other error says
	// that it did not begin.
	Exec(ctx context.Context, c Command) (status int, err error)

	// Stop asks the machine to shut down and waits for it. When ctx ends first
	// the machine is killed. After Stop the disk is at rest.
	Stop(ctx context.Context) error

	// Kill ends the machine as a power cut does.
	Kill() error

	// Freeze suspends every process, and with them the disk, until Thaw has been called
	// as often as Freeze, or the machine is to stop. Thaw's error is [ErrReleased] if the
	// processes have gone on before it for that; so is that of a later Freeze.
	Freeze(ctx context.Context) error
	Thaw() error

	// NetworkChanged makes the machine look at its network policy again.
	NetworkChanged()

	// Plug makes the volume that the caller has put in Dir/volumes/name appear as
	// the device of that name. Unplug takes it away; it is an error if the machine
	// has its file system mounted.
	Plug(ctx context.Context, name string) error
	Unplug(ctx context.Context, name string) error

	// Done is closed when the machine has ended and its disk is at rest.
	Done() <-chan struct{}

	// Exit says how the machine ended. It may be called once Done is closed.
	Exit() Exit
}

// Command is what a machine is to run.
type Command struct {
	// Script is one of sh, unless its first line names another interpreter, see execve(2).
	// It is nowhere on the machine's disk. Standard input is empty.
	Script []byte

	Dir string // where it begins; empty is the machine's root

	// Stdout and Stderr get what is printed, in pieces and not at the same time. An error of
	// theirs ends the command.
	Stdout, Stderr io.Writer
}

// ErrEnded says that a machine has ended.
var ErrEnded = errors.New("the machine has ended")

// ErrReleased says that a machine which was to be suspended goes on, since it is to stop:
// what was read of its disk may be of several moments.
var ErrReleased = errors.New("the machine is not suspended, since it is to stop")

// Exit is how a machine ended.
type Exit struct {
	Reason Reason
	Err    error // why it crashed
}

// Reason is the kind of an [Exit].
type Reason string

// Why a machine has ended.
const (
	Stopped  Reason = "stopped"   // by Stop or Kill
	PowerOff Reason = "power-off" // from inside: poweroff, halt, or the end of Command
	Reboot   Reason = "reboot"    // from inside; the caller starts it again
	Crashed  Reason = "crashed"
)

// VolumesDir is where in its directory a machine's volumes are, and VolumeContent
// where in a volume's directory the tree of its file system is, which can become
// a layer when nothing has it mounted.
const (
	VolumesDir    = "volumes"
	VolumeContent = "content"
)
