// Package ec2 is the embedded EC2: the state of images, instances and what
// belongs to them, and the transitions between states. The methods named as EC2's
// actions are those actions: of the state, under its lock, or of [Service] if they
// wait for something. The caller's account and region come in the context (see
// [wire.WithCaller]).
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

// Images is what the service needs of an image store. A layer is a directory
// tree that never changes; no other service has layers in the same store.
type Images interface {
	// Publications are the images that publishers offer to everybody.
	Publications() ([]Publication, error)
	// Recall adds the image of that name to the publications, if it is one that a
	// publisher had besides those. note is what the user should know of it.
	Recall(name string) (note string, err error)
	// Ensure makes the layers of a publication's base present, which may take
	// minutes the first time, and returns their ids, topmost first.
	Ensure(ctx context.Context, base string, progress func(Progress)) ([]string, error)
	// NewID returns an id for Freeze.
	NewID() string
	// Freeze makes the directory dir the layer id, by renaming it. When the
	// process dies in it, either dir is as it was or the layer exists.
	Freeze(ctx context.Context, id string, dir confined.Dir) error
	// Clone makes a layer of a copy of the directory dir and returns its id. Flush has it
	// survive a crash of the host.
	Clone(ctx context.Context, dir confined.Dir) (string, error)
	Flush() error
	// Hold keeps Collect from deleting anything until release is called.
	Hold(ctx context.Context) (release func(), err error)
	// ImportDisk makes a layer of the root file system in a disk image, whose format
	// is in the words of ImportImage.
	ImportDisk(ctx context.Context, image *os.File, format string) (ImportedDisk, error)
	// ExportDisk makes a raw disk of size bytes of what layers, topmost first, show together, and
	// calls use with its file, which is no more afterwards.
	ExportDisk(ctx context.Context, layers []string, size int64, use func(*os.File) error) error
	// StoreImage writes layers, and what is known of the image that has them, as one file.
	StoreImage(ctx context.Context, w io.Writer, about []byte, layers []string) error
	// About returns what is known of the image in such a file, which may come from anywhere.
	About(r io.Reader) ([]byte, error)
	// RestoreImage makes the layers in such a file, in their order. On error there are none.
	RestoreImage(ctx context.Context, r io.Reader) (layers []string, err error)
	// Paths are the directories of layers; it is an error if one does not exist.
	Paths(layers []string) ([]string, error)
	// Size is how many bytes a layer has as a tar: worked out, by reading it, when first
	// asked for. It is 0 for one that does not exist.
	Size(ctx context.Context, layer string) (int64, error)
	// InBases says which of the layers bases are made of.
	InBases(layers []string) (map[string]bool, error)
	// Collect deletes the imported bases that no publication names, and the layers that
	// are no base's, except what is in use and what was made so recently that its use may
	// not be recorded yet.
	Collect(ctx context.Context, inUse func() (layers, bases []string)) error
}

// ImportedDisk is what a disk image has become.
type ImportedDisk struct {
	Layer string
	User  string // who logs in
	Size  int64  // of the disk, in bytes
}

// Publication is an image that a publisher offers in every region.
type Publication struct {
	ID           string // by which alone it is found; empty for one that follows from the rest
	Owner        string // account id
	OwnerAlias   string // such as "amazon"; may be empty
	Name         string
	Description  string
	Architecture string // "x86_64" or "arm64"
	Created      time.Time
	Base         string // what Ensure takes
	User         string // who logs in
	RootDevice   string // empty is /dev/xvda
	VolumeType   string // of the root; empty is gp3
	Size         int32  // of the root volume, GiB; 0 is 8
	Ephemeral    int    // instance stores that it maps, from /dev/sdb on
	BootMode     string
	ImdsSupport  string
	Deprecated   time.Time // when it is; zero is never
	Parameters   []string  // public ones of Systems Manager that lead to it
}

// Progress is how far the preparation of a base is.
type Progress struct {
	Base        string
	Phase       string // such as "download packages"; empty when the preparation has ended
	Done, Total int64  // bytes; a Total of 0 means that it is not known
	Note        string // something the user should know, if not empty
}

// Objects are what callers have in S3.
type Objects interface {
	// Get opens an object.
	Get(c wire.Caller, bucket, key string) (*os.File, error)
	// Bucket returns why a caller cannot put objects into a bucket.
	Bucket(c wire.Caller, bucket string) error
	// Store makes an object, with headers as a client would send them. If the reader fails, there is none.
	Store(c wire.Caller, bucket, key string, header http.Header, content io.Reader) error
}

// Clock is the service's time.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or with ctx's cause when ctx ends first.
	Sleep(ctx context.Context, d time.Duration) error
}

// SystemClock is the time of the host.
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

// Options are what a service is made of. Dir, Driver, Images and Objects are
// required.
type Options struct {
	Dir    string // for the state; on the file system of the image store
	Driver machine.Driver
	Images Images
	Clock  Clock // nil is SystemClock

	Objects Objects
	// Parameter returns the value and the data type of a parameter of Systems
	// Manager; the name may end in :VERSION. It is called without the service's
	// lock. Nil: image ids cannot refer to parameters.
	Parameter func(ctx context.Context, name string) (value, dataType string, err error)
	// ImageParameters returns the ids of images that the caller's parameters hold, by
	// their ARNs. Nil: there are none. It is called like Parameter.
	ImageParameters func(ctx context.Context) (map[string]string, error)
	// Member reports whether an account is in an organization or an organizational
	// unit, by its ARN; nil: there are none.
	Member   func(account, arn string) bool
	Profiles Profiles // nil: any well-formed name is one, whose role is lent to nobody

	// Reach says what machines may connect to outside of the cloud; nil is every
	// public address and nothing else.
	Reach *network.Reach

	Delays Delays // the zero value is no delay

	// RecycleBin is how long deregistered images and deleted snapshots are kept; 0 is not at all.
	RecycleBin time.Duration

	Faults *Faults

	// Progress hears how the preparation of a base goes, from any goroutine.
	Progress func(Progress)
	// Log is for developers.
	Log *slog.Logger

	// Wrote is called after every change of the state on disk, with the state
	// locked; tests copy the directory there.
	Wrote func()
}

// Service is the embedded EC2 of all accounts and regions. Its methods do not hold the
// lock of its state; those of the state do.
type Service struct {
	*env
	guarded *durable.Guarded[*state] // see update and view
	stop    context.CancelCauseFunc
	work    sync.WaitGroup

	measured  sync.Map      // sizes of layers: a layer does not change
	measuring chan struct{} // holds one while a layer is measured

	ahead atomic.Pointer[func() (*rsa.PrivateKey, error)] // see Prepare

	launchingFleet sync.Mutex // one at a time, so that a client token is used once
}

// env is what a service and its state share. It needs no lock: what is in it does not
// change, or can be changed at any time.
type env struct {
	opts Options
	ctx  context.Context // of work that goes on after its request, until the service's stop
	slow atomic.Pointer[Delays]
}

// delays returns how long transitions that begin now take.
func (e *env) delays() Delays { return *e.slow.Load() }

// SetDelays sets how long transitions take that begin from now on.
func (s *Service) SetDelays(delays Delays) { s.slow.Store(&delays) }

// SetFaults puts the rules of faults, which must not be used after that, in the place of
// those that hold.
func (s *Service) SetFaults(faults *Faults) { s.opts.Faults.Replace(faults) }

// Rehearsed returns the delays and the rules for faults that hold.
func (s *Service) Rehearsed() (Delays, *Faults) { return s.delays(), s.opts.Faults }

// Open returns the service whose state is in opts.Dir and puts right what a
// crash has left. Instances that ran then are stopped.
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

// update lets f read and change the state.
func (s *Service) update(f func(*state) error) error { return s.guarded.Update(f) }

// view returns what f finds in the state.
func view[T any](s *Service, f func(*state) T) T { return durable.View(s.guarded, f) }

// try returns what f makes of the state, or why it cannot.
func try[T any](s *Service, f func(*state) (T, error)) (T, error) { return durable.Do(s.guarded, f) }

// locked makes an action of a method of the state.
//
//go:noinline
func locked[In, Out any](s *Service, action func(*state, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return durable.Action(s.guarded, func(st *state, ctx context.Context, in In) (Out, error) {
		st.looked = wire.CallerFrom(ctx).Looks
		defer func() { st.looked = false }()
		return action(st, ctx, in)
	})
}

// Close shuts every machine down; when ctx ends first it kills them. The state
// stays, with the instances stopped.
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

// Endpoint returns the handler of the service's requests.
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

// DescribeImages and DescribeInstances are the actions, for Systems Manager.
func (s *Service) DescribeImages(ctx context.Context, in *ec2.DescribeImagesInput) (*ec2.DescribeImagesOutput, error) {
	return locked(s, (*state).DescribeImages)(ctx, in)
}

func (s *Service) DescribeInstances(ctx context.Context, in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	return locked(s, (*state).DescribeInstances)(ctx, in)
}

// now returns the service's time, to the second as in EC2's answers.
func (e *env) now() time.Time { return e.opts.Clock.Now().UTC().Truncate(time.Second) }
