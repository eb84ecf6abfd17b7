// Package ec2 is the embedded EC2: the state of images, instances and what belongs to
// them, and the transitions between states. Each method with the name of an EC2 action
// implements that action: methods of the state run under its lock; methods of [Service]
// may wait. The caller's account and region are in the context (see [wire.WithCaller]).
package ec2

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/confined"
	"bake/cloud/durable"
	"bake/cloud/machine"
	"bake/cloud/network"
	"bake/cloud/wire"
)

// Images is the service's interface to an image store. A layer is a directory tree that
// never changes. No other service may have layers in the same store.
type Images interface {
	// Publications returns the images that publishers offer to everybody.
	Publications() ([]Publication, error)
	// Recall adds the image of that name to the publications, if a publisher once offered
	// it. note is a message for the user, or empty.
	Recall(name string) (note string, err error)
	// Ensure makes the layers of a publication's base present, which may take minutes the
	// first time, and returns their ids, topmost first.
	Ensure(ctx context.Context, base string, progress func(Progress)) ([]string, error)
	// NewID returns a new layer id for Freeze.
	NewID() string
	// Freeze turns the directory dir into the layer id by renaming it. After a crash,
	// either dir is unchanged or the layer exists.
	Freeze(ctx context.Context, id string, dir confined.Dir) error
	// Clone makes a layer from a copy of the directory dir and returns its id. The layer
	// survives a crash of the host only after Flush.
	Clone(ctx context.Context, dir confined.Dir) (string, error)
	Flush() error
	// Hold prevents Collect from deleting anything until release is called.
	Hold(ctx context.Context) (release func(), err error)
	// ImportDisk makes a layer from the root file system in a disk image. format is one of
	// ImportImage's.
	ImportDisk(ctx context.Context, image *os.File, format string) (ImportedDisk, error)
	// ExportDisk writes a raw disk of size bytes with the merged content of layers, topmost first,
	// and calls use with its file, which is deleted afterwards. It calls report with its progress
	// until use is called.
	ExportDisk(ctx context.Context, layers []string, size int64, report func(done, of int64), use func(*os.File) error) error
	// StoreImage writes layers and about, a description of their image, as one file. It calls
	// report with its progress.
	StoreImage(ctx context.Context, w io.Writer, about []byte, layers []string, report func(done, of int64)) error
	// About returns the description in such a file. The file is untrusted.
	About(r io.Reader) ([]byte, error)
	// RestoreImage makes the layers in such a file and returns their ids in order. On
	// error it makes none.
	RestoreImage(ctx context.Context, r io.Reader) (layers []string, err error)
	// Paths returns the directories of layers; a layer that does not exist is an error.
	Paths(layers []string) ([]string, error)
	// Size returns the size of a layer as a tar, in bytes. The first call reads the layer
	// to compute it. It returns 0 for a layer that does not exist.
	Size(ctx context.Context, layer string) (int64, error)
	// InBases reports which of the layers belong to bases.
	InBases(layers []string) (map[string]bool, error)
	// Collect deletes imported bases that no publication names, and layers that belong to
	// no base, except those in use and those made so recently that their use may not be
	// recorded yet.
	Collect(ctx context.Context, inUse func() (layers, bases []string)) error
}

// ImportedDisk is the result of ImportDisk.
type ImportedDisk struct {
	Layer string
	User  string // login user
	Size  int64  // of the disk, in bytes
}

// Publication is an image that a publisher offers in every region.
type Publication struct {
	ID           string // the only way to find it; empty means derived from the other fields
	Owner        string // account id
	OwnerAlias   string // such as "amazon"; may be empty
	Name         string
	Description  string
	Architecture string // "x86_64" or "arm64"
	Created      time.Time
	Base         string // argument of Ensure
	User         string // login user
	RootDevice   string // empty means /dev/xvda
	VolumeType   string // of the root; empty means gp3
	Size         int32  // of the root volume, in GiB; 0 means 8
	Ephemeral    int    // number of instance stores in the mapping, from /dev/sdb on
	BootMode     string
	ImdsSupport  string
	Deprecated   time.Time // the time of deprecation; zero means never
	Parameters   []string  // public Systems Manager parameters that name it
}

// Progress is the progress of preparing a base.
type Progress struct {
	Base        string
	Phase       string // such as "download packages"; empty at the end
	Done, Total int64  // bytes; a Total of 0 means unknown
	Note        string // a message for the user, if not empty
}

// Objects is the service's interface to S3.
type Objects interface {
	// Get opens an object.
	Get(c wire.Caller, bucket, key string) (*os.File, error)
	// Accepts returns an error if the caller cannot create an object with these headers.
	Accepts(c wire.Caller, bucket, key string, header http.Header) error
	// Store creates an object, with headers as sent by a client. If the reader fails, no
	// object is created.
	Store(c wire.Caller, bucket, key string, header http.Header, content io.Reader) error
	// StoreFile creates an object with the content of a file. It calls said with the number of
	// bytes written and, just before the object becomes visible, with the file's size twice. If
	// said returns an error, no object is created.
	StoreFile(c wire.Caller, bucket, key string, header http.Header, f *os.File, said func(done, of int64) error) error
}

// Clock is the service's source of time.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or with the cause of ctx if ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// SystemClock is the host's clock.
type SystemClock struct{}

// Now implements [Clock].
func (SystemClock) Now() time.Time { return time.Now() }

// Sleep implements [Clock].
func (SystemClock) Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Options configure a service. Dir, Driver, Images and Objects are required.
type Options struct {
	Dir    string // for the state; must be on the image store's file system
	Driver machine.Driver
	Images Images
	Clock  Clock // nil means SystemClock

	Objects Objects
	// Parameter returns the value and the data type of a Systems Manager parameter; the
	// name may end in :VERSION. It is called without the service's lock. If it is nil,
	// image ids cannot refer to parameters.
	Parameter func(ctx context.Context, name string) (value, dataType string, err error)
	// ImageParameters returns the image ids in the caller's parameters, keyed by the
	// parameters' ARNs. Nil means none. It is called like Parameter.
	ImageParameters func(ctx context.Context) (map[string]string, error)
	// Member reports whether an account belongs to an organization or an organizational
	// unit, given by ARN. Nil means that there are none.
	Member   func(account, arn string) bool
	Profiles Profiles // nil accepts any well-formed name, without credentials

	// Reach says what machines may connect to outside the cloud; nil means every public
	// address and nothing else.
	Reach *network.Reach

	Delays Delays // the zero value means no delay

	// RecycleBin is how long deregistered images and deleted snapshots are kept; 0 means
	// not at all.
	RecycleBin time.Duration

	Faults *Faults

	// Progress is called with the progress of preparing a base, from any goroutine.
	Progress func(Progress)
	// Log is for developers.
	Log *slog.Logger

	// Wrote is called after every change of the state on disk, with the state locked;
	// tests copy the directory in it.
	Wrote func()
}

// Service is the embedded EC2 of all accounts and regions. Its methods are called without
// the lock of its state; methods of the state hold it.
type Service struct {
	*env
	guarded *durable.Guarded[*state] // see update and view
	stop    context.CancelCauseFunc
	work    sync.WaitGroup

	measured  sync.Map      // sizes of layers, which never change
	measuring chan struct{} // full while a layer is measured

	ahead atomic.Pointer[func() (*rsa.PrivateKey, error)] // see ExpectKey

	launchingFleet sync.Mutex // held during a fleet launch, so that a client token is used only once
}

// env is shared by a service and its state. It needs no lock: its fields are constant or
// safe for concurrent use.
type env struct {
	opts Options
	ctx  context.Context // for work that outlives its request; ends with the service
	slow atomic.Pointer[Delays]

	progress progress
}

// delays returns the delays of transitions that begin now.
func (e *env) delays() Delays { return *e.slow.Load() }

// SetDelays sets the delays of transitions that begin from now on.
func (s *Service) SetDelays(delays Delays) { s.slow.Store(&delays) }

// SetFaults replaces the fault rules. faults must not be used afterwards.
func (s *Service) SetFaults(faults *Faults) { s.opts.Faults.Replace(faults) }

// Rehearsed returns the current delays and fault rules.
func (s *Service) Rehearsed() (Delays, *Faults) { return s.delays(), s.opts.Faults }

// Open returns the service with the state in opts.Dir, after repairing what a crash has
// left. Instances that were running are marked as stopped.
func Open(ctx context.Context, opts Options) (*Service, error) {
	if opts.Clock == nil {
		opts.Clock = SystemClock{}
	}
	if opts.Profiles == nil {
		opts.Profiles = anyProfile{}
	}
	if opts.Member == nil {
		opts.Member = func(string, string) bool { return false }
	}
	if opts.Progress == nil {
		opts.Progress = func(Progress) {}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Wrote == nil {
		opts.Wrote = func() {}
	}
	if opts.Faults == nil {
		none, err := NewFaults(0)
		if err != nil {
			return nil, err
		}
		opts.Faults = none
	}
	s := &Service{env: &env{opts: opts}, measuring: make(chan struct{}, 1)}
	s.slow.Store(&opts.Delays)
	s.ctx, s.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	st, err := openState(s.env, func(f func(*Service)) { s.work.Go(func() { f(s) }) })
	s.guarded = durable.Guard(st)
	err = errors.Join(
		err,
		opts.Driver.Private(filepath.Join(opts.Dir, "machines")),
		opts.Driver.Private(filepath.Join(opts.Dir, "console")),
		opts.Driver.Private(s.detachedDir("")),
	)
	if err == nil {
		err = s.repair(ctx)
	}
	if err == nil {
		err = durable.KeepReserve(opts.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded EC2: state in %s: %w", opts.Dir, err)
	}
	return s, nil
}

// update calls f with the locked state, which f may change.
func (s *Service) update(f func(*state) error) error { return s.guarded.Update(f) }

// view returns the result of f, called with the locked state.
func view[T any](s *Service, f func(*state) T) T { return durable.View(s.guarded, f) }

// try returns the result and error of f, called with the locked state.
func try[T any](s *Service, f func(*state) (T, error)) (T, error) { return durable.Do(s.guarded, f) }

// locked turns a method of the state into an action that holds the state's lock.
//
//go:noinline
func locked[In, Out any](s *Service, action func(*state, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return durable.Action(s.guarded, func(st *state, ctx context.Context, in In) (Out, error) {
		st.looked = wire.CallerFrom(ctx).Looks
		defer func() { st.looked = false }()
		return action(st, ctx, in)
	})
}

// Close shuts every machine down, and kills them if ctx ends first. The state on disk
// remains, with the instances stopped.
func (s *Service) Close(ctx context.Context) error {
	err := s.update(func(st *state) error {
		st.closed = true
		for id, r := range st.runners {
			r.aim(goalStop, reasonShutdown)
			st.halt(ctx, id, r)
		}
		return nil
	})
	s.stop(errClosed)
	s.work.Wait()
	return err
}

var errClosed = &wire.Error{Code: "Unavailable", Message: "The embedded cloud is being closed.", Status: http.StatusServiceUnavailable}

// Endpoint returns the handler of requests to the service.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("ec2")
	if err != nil {
		return nil, err
	}
	model.Sent = emptyMembers()
	model.Open = []string{reflect.TypeFor[types.InstanceType]().Name()}
	endpoint, err := wire.New(model, s.actions())
	if err != nil {
		return nil, err
	}
	endpoint.Before = s.Before("ec2")
	return endpoint, nil
}

// DescribeImages and DescribeInstances are exported for Systems Manager.
func (s *Service) DescribeImages(ctx context.Context, in *ec2.DescribeImagesInput) (*ec2.DescribeImagesOutput, error) {
	return locked(s, (*state).DescribeImages)(ctx, in)
}

func (s *Service) DescribeInstances(ctx context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	return locked(s, (*state).DescribeInstances)(ctx, in)
}

// now returns the service's time, truncated to seconds as in EC2's answers.
func (e *env) now() time.Time { return e.opts.Clock.Now().UTC().Truncate(time.Second) }
