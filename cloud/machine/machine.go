// Package machine defines the interface of the embedded cloud to machines: a [Driver] boots root
// file systems. The sandbox driver builds Linux machines from namespaces. The driver in machinetest
// boots nothing and is for tests of the API.
package machine

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"bake/cloud/network"
)

// Driver boots machines. It also does the file operations that need the machines' user ids, since
// only the driver can map the owners of files in layers.
type Driver interface {
	// Start boots spec and returns once the first process runs, which is before
	// anything answers on the network. The machine outlives ctx. It ends when
	// it powers off, on Stop or Kill, or with the process that started it. If
	// Start fails, nothing is left running or mounted.
	Start(ctx context.Context, spec Spec) (Machine, error)

	// Unpack extracts a tar stream into dir, which it creates, as one read-only
	// layer. It keeps owners, modes, times, hard links, devices and extended
	// attributes, and turns OCI whiteouts into overlay whiteouts. It leaves out
	// device nodes if the driver may not create them. No entry can reach
	// outside dir. On error the caller removes dir.
	Unpack(ctx context.Context, tar io.Reader, dir string) error

	// Pack writes the layer in dir as a tar stream that Unpack turns into an
	// equal layer. Packing the same layer twice gives the same bytes.
	Pack(ctx context.Context, dir string, w io.Writer) error

	// PackMerged writes the merged content of an overlay of layers, topmost
	// first, as a tar stream that Unpack turns into a single layer.
	PackMerged(ctx context.Context, layers []string, w io.Writer) error

	// Remove deletes dir and everything below it. It is not an error if dir
	// does not exist.
	Remove(ctx context.Context, dir string) error

	// Clone copies the layer in the open directory src to dst, which must not exist. It keeps
	// everything that Unpack keeps. It is used for snapshots of running machines.
	Clone(ctx context.Context, src *os.File, dst string) error

	// MakeVolume creates the directory dir, which must not exist, as a volume
	// of size bytes; see [Spec.Dir]. The volume starts as a copy of the overlay
	// of layers, topmost first; without layers it is blank. On error the caller
	// removes dir.
	MakeVolume(ctx context.Context, dir string, layers []string, size int64) error

	// GrowVolume grows the volume in dir to size bytes. The volume may be
	// plugged. If dir is a machine's directory, its root is grown.
	GrowVolume(dir string, size int64) error

	// Private creates the directory dir and its missing parents. If dir exists,
	// Private removes the permissions of other users. Only the user of this
	// process and the machines' root, whose layers may be below dir, can enter
	// it.
	Private(dir string) error

	// Runs reports whether machines can run programs for the processor arch, a
	// GOARCH value; "" means the host's. The error says why not and what the
	// user can do about it.
	Runs(arch string) error

	// Check reports what this host offers and lacks for running machines.
	Check(ctx context.Context) []Finding
}

// Finding is one line of `bake doctor`.
type Finding struct {
	Name   string // what was checked, such as "user namespaces"
	OK     bool
	Fatal  bool   // no machine can run without it
	Detail string // what was found, in one line
	Remedy string // what the user can do about it; empty when OK

	StateDir bool // another state directory may not have this problem
}

// Spec describes one boot.
type Spec struct {
	ID string // instance id, unique on this host

	// Dir is the machine's own directory. The driver keeps the writable layer
	// in Dir/upper and may use other names in Dir; all of it survives a stop,
	// so a later Start with the same Dir finds the same disk. The caller may
	// rename Dir/upper away between a stop and the next Start: that is how an
	// image is made, and the next Start begins with an empty layer.
	//
	// Dir/volumes holds the machine's volumes other than its root. Each is a
	// directory from MakeVolume, named after its device, such as xvdf for
	// /dev/xvdf. The caller moves them in and out between a stop and a Start,
	// or before Plug and after Unplug.
	Dir string

	// Layers are the read-only layers below Dir/upper, topmost first.
	Layers []string

	// Arch is the processor architecture of the programs on the disk, a GOARCH
	// value; empty means the host's. Start fails if Runs rejects it.
	Arch string

	// Type is the instance type that the machine reports.
	Type string

	// Limits are the machine's resource limits. The driver enforces them as far
	// as the host allows; Check reports how far that is.
	Limits Limits

	// RootSize is the size in bytes that the machine sees for its root file
	// system, where the host lets the driver show one; 0 means the size of the
	// host's. It is not enforced.
	RootSize int64

	// Hostname is the machine's host name, such as ip-172-31-0-5.
	Hostname string

	// First is set for the first boot of an instance. The identity inherited
	// from the image (SSH host keys, machine id) is replaced before anything
	// starts.
	First bool

	// Continues says, at the first boot, that the disk is a copy of another
	// instance's disk and that this instance continues that one's work: if its
	// cloud-init had finished, the steps that cloud-init runs once per instance
	// count as done.
	Continues bool

	// User is the login user. It gets AuthorizedKeys, and passwordless sudo if
	// the machine has sudo. It is created if the image lacks it.
	User           string
	AuthorizedKeys []string

	// HasUserData delays the SSH server until cloud-init has run its init
	// stage, the order that the distribution prescribes. Without user data the
	// two start in parallel.
	HasUserData bool

	// Console is the file that the machine's console is appended to.
	Console string

	// Command, if not empty, runs instead of an init system, with the console as its output. The
	// machine ends when the command does; a non-zero exit status becomes the error of Exit. It is
	// used to finish the bootstrap of a base.
	Command []string

	Network network.Config

	// Waiting, if not nil, is called at most once, before Start returns, if Start must wait for
	// something on this host. why says what it is, and what the user can do about it.
	Waiting func(why string)
}

// Limits are the size of a machine. A zero field means no limit.
type Limits struct {
	CPUs      int
	Memory    int64 // bytes
	Processes int
}

// Machine is one running boot of a [Spec].
type Machine interface {
	// Dial connects to a TCP port of the machine from inside its network, past
	// any security group. The listeners on the public address use it. While a
	// machine starts and nothing in it listens yet, Dial may wait for some
	// seconds instead of being refused.
	Dial(ctx context.Context, port uint16) (net.Conn, error)

	// Exec runs a command as the machine's root. It waits until the command has
	// ended and no process holds its output any more. The status is that of a
	// shell: 128 plus the number for a signal. When ctx ends, the command's
	// process group is killed and the error is ctx's cause. When the machine
	// ends or is being stopped, the group is killed too and the error is
	// [ErrEnded]. Any other error means that the command did not start.
	Exec(ctx context.Context, c Command) (status int, err error)

	// Stop asks the machine to shut down and waits until it has. If ctx ends
	// first, the machine is killed. After Stop the disk no longer changes.
	Stop(ctx context.Context) error

	// Kill ends the machine like a power cut.
	Kill() error

	// Freeze suspends every process, and so stops writes to the disk, until
	// Thaw has been called as often as Freeze or the machine is being stopped.
	// Thaw returns [ErrReleased] if a stop resumed the processes before it; so
	// does a later Freeze.
	Freeze(ctx context.Context) error
	Thaw() error

	// NetworkChanged makes the machine read its network policy again.
	NetworkChanged()

	// Plug attaches the volume in Dir/volumes/name as the device of that name.
	// Unplug detaches it, and fails if the machine has its file system mounted.
	Plug(ctx context.Context, name string) error
	Unplug(ctx context.Context, name string) error

	// Done is closed when the machine has ended and its disk no longer changes.
	Done() <-chan struct{}

	// Exit says how the machine ended. It may be called once Done is closed.
	Exit() Exit
}

// Command is a command to run in a machine.
type Command struct {
	// Script is a shell script, unless its first line names another
	// interpreter, see execve(2). It is not stored on the machine's disk.
	// Standard input is empty.
	Script []byte

	Dir string // working directory; empty is the machine's root

	// Stdout and Stderr receive the output in pieces, never concurrently. A
	// write error ends the command.
	Stdout, Stderr io.Writer
}

// ErrEnded says that a machine has ended.
var ErrEnded = errors.New("the machine has ended")

// ErrReleased says that a suspended machine was resumed because it is being
// stopped. Data read from its disk may come from different moments.
var ErrReleased = errors.New("the machine was resumed because it is being stopped")

// Exit is how a machine ended.
type Exit struct {
	Reason Reason
	Err    error // why it crashed
}

// Reason is the kind of an [Exit].
type Reason string

// The reasons why a machine ends.
const (
	Stopped  Reason = "stopped"   // by Stop or Kill
	PowerOff Reason = "power-off" // from inside: poweroff, halt, or the end of Command
	Reboot   Reason = "reboot"    // from inside; the caller starts it again
	Crashed  Reason = "crashed"
)

// VolumesDir is the name of the directory of volumes in a machine's directory.
// VolumeContent is the name of the file system tree in a volume's directory;
// the tree can become a layer when it is not mounted.
const (
	VolumesDir    = "volumes"
	VolumeContent = "content"
)

// OwnersFile is the name of the file, in the directory of a driver, that says to which of the
// host's ids the files of machines there belong.
const OwnersFile = "owners.json"
