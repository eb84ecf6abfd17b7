// Package ec2 is the embedded EC2: the state of images, instances and what
// belongs to them, and the transitions between states. The methods of [Service]
// named as EC2's actions are those actions; the caller's account and region
// come in the context (see [wire.WithCaller]).
package ec2

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

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
	// Ensure makes the layers of a publication's base present, which may take
	// minutes the first time, and returns their ids, topmost first.
	Ensure(ctx context.Context, base string, progress func(Progress)) ([]string, error)
	// NewID returns an id for Freeze.
	NewID() string
	// Freeze makes the directory dir the layer id, by renaming it. When the
	// process dies in it, either dir is as it was or the layer exists.
	Freeze(ctx context.Context, id string, dir confined.Dir) error
	// Clone makes a layer of a copy of the directory dir and returns its id.
	Clone(ctx context.Context, dir confined.Dir) (string, error)
	// ImportDisk makes a layer of the root file system in a disk image, whose format
	// is in the words of ImportImage.
	ImportDisk(ctx context.Context, image *os.File, format string) (ImportedDisk, error)
	// Paths are the directories of layers; it is an error if one does not exist.
	Paths(layers []string) ([]string, error)
	// Collect deletes the layers that are neither in use nor a base's, except
	// those made so recently that their use may not be recorded yet.
	Collect(ctx context.Context, inUse []string) error
}

// ImportedDisk is what a disk image has become.
type ImportedDisk struct {
	Layer string
	User  string // who logs in
	Size  int64  // of the disk, in bytes
}

// Publication is an image that a publisher offers in every region.
type Publication struct {
	Owner        string // account id
	OwnerAlias   string // such as "amazon"; may be empty
	Name         string
	Description  string
	Architecture string // "x86_64" or "arm64"
	Created      time.Time
	Base         string // what Ensure takes
	User         string // who logs in
	RootDevice   string // empty is /dev/xvda
	Size         int32  // of the root volume, GiB; 0 is 8
}

// Progress is how far the preparation of a base is.
type Progress struct {
	Base        string
	Phase       string // such as "download packages"; empty when the preparation has ended
	Done, Total int64  // bytes; a Total of 0 means that it is not known
	Note        string // something the user should know, if not empty
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

	// Objects opens an object in a bucket of the caller's.
	Objects func(caller wire.Caller, bucket, key string) (*os.File, error)
	// Parameter returns the value and the data type of a parameter of Systems
	// Manager; the name may end in :VERSION. It is called without the service's
	// lock. Nil: image ids cannot refer to parameters.
	Parameter func(ctx context.Context, name string) (value, dataType string, err error)
	Profiles  Profiles // nil: any well-formed name is one, whose role is lent to nobody

	// Reach says what machines may connect to outside of the cloud; nil is every
	// public address and nothing else.
	Reach *network.Reach

	Delays Delays // the zero value is no delay
	Faults *Faults

	// Progress hears how the preparation of a base goes, from any goroutine.
	Progress func(Progress)
	// Log is for developers.
	Log *slog.Logger

	// Wrote is called after every change of the state on disk, with the state
	// locked; tests copy the directory there.
	Wrote func()
}

// Service is the embedded EC2 of all accounts and regions.
type Service struct {
	opts Options

	// ctx is that of work that goes on after its request; stop ends it.
	ctx  context.Context
	stop context.CancelCauseFunc
	work sync.WaitGroup

	mu        sync.Mutex // guards all below, and every change of the state on disk
	closed    bool
	images    *table[image]
	snapshots *table[snapshot]
	volumes   *table[volumeRow]
	instances *table[instance]
	keys      *table[keyPair]
	groups    *table[group]
	imports   *table[importTask]
	networks  *table[vpcNetwork]
	templates *table[launchTemplate]
	spots     *table[spotRequest]
	foreign   *table[foreignTags] // by ACCOUNT.RESOURCE
	runners   map[string]*runner  // by instance
	disks     map[string]*sync.Mutex
	hidden    map[string]int // how often an id is yet to be not found
	policies  map[string]*policy

	collecting bool // layers will be collected again soon
}

// Open returns the service whose state is in opts.Dir and puts right what a
// crash has left. Instances that ran then are stopped.
func Open(ctx context.Context, opts Options) (*Service, error) {
	if opts.Clock == nil {
		opts.Clock = SystemClock{}
	}
	if opts.Profiles == nil {
		opts.Profiles = anyProfile{}
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
	s := &Service{opts: opts, runners: map[string]*runner{}, disks: map[string]*sync.Mutex{},
		hidden: map[string]int{}, policies: map[string]*policy{}}
	s.ctx, s.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	err := errors.Join(
		open(s, "images", &s.images),
		open(s, "snapshots", &s.snapshots),
		open(s, "volumes", &s.volumes),
		open(s, "instances", &s.instances),
		open(s, "key-pairs", &s.keys),
		open(s, "security-groups", &s.groups),
		open(s, "imports", &s.imports),
		open(s, "networks", &s.networks),
		open(s, "launch-templates", &s.templates),
		open(s, "spot-requests", &s.spots),
		open(s, "foreign-tags", &s.foreign),
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

func open[T any](s *Service, kind string, into **table[T]) (err error) {
	*into, err = openTable[T](filepath.Join(s.opts.Dir, kind), s.opts.Wrote)
	return err
}

// Close shuts every machine down; when ctx ends first it kills them. The state
// stays, with the instances stopped.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for id, r := range s.runners {
		r.aim(goalStop, reasonShutdown)
		s.halt(ctx, id, r)
	}
	s.mu.Unlock()
	s.stop(errClosed)
	s.work.Wait()
	return nil
}

var errClosed = &wire.Error{Code: "Unavailable", Message: "The embedded cloud is being closed.", Status: http.StatusServiceUnavailable}

// background runs f after the request that asks for it, and before Close
// returns; once Close has begun, the next Open does what f would. The lock is
// held.
func (s *Service) background(f func(ctx context.Context)) {
	if !s.closed {
		s.work.Go(func() { f(s.ctx) })
	}
}

// Endpoint returns the handler of the service's requests.
func (s *Service) Endpoint() (*wire.Service, error) {
	model, err := wire.Load("ec2")
	if err != nil {
		return nil, err
	}
	model.Sent = sent()
	model.Open = []string{reflect.TypeFor[types.InstanceType]().Name()}
	endpoint, err := wire.New(model, s.actions())
	if err != nil {
		return nil, err
	}
	endpoint.Before = s.Before
	return endpoint, nil
}

// now is the service's time, to the second as in EC2's answers.
func (s *Service) now() time.Time { return s.opts.Clock.Now().UTC().Truncate(time.Second) }
