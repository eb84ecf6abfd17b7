package ec2

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"path/filepath"
	"sync"

	"bake/cloud/durable"
)

// state is what the service knows, in memory and on disk. It is reached through the
// service's update and view only, so its methods hold the lock. They do not wait for
// machines, and cannot lock again: they have no service, but by start and background.
type state struct {
	*env
	start func(func(*Service)) // runs a function when the lock is let go, and before Close returns

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

// openState reads the state in the service's directory.
func openState(e *env, start func(func(*Service))) (*state, error) {
	s := &state{env: e, start: start, runners: map[string]*runner{}, disks: map[string]*sync.Mutex{},
		hidden: map[string]int{}, policies: map[string]*policy{}}
	return s, errors.Join(
		open(e, "images", &s.images),
		open(e, "snapshots", &s.snapshots),
		open(e, "volumes", &s.volumes),
		open(e, "instances", &s.instances),
		open(e, "key-pairs", &s.keys),
		open(e, "security-groups", &s.groups),
		open(e, "imports", &s.imports),
		open(e, "networks", &s.networks),
		open(e, "launch-templates", &s.templates),
		open(e, "spot-requests", &s.spots),
		open(e, "foreign-tags", &s.foreign),
	)
}

func open[T any](e *env, kind string, into **table[T]) (err error) {
	*into, err = openTable[T](filepath.Join(e.opts.Dir, kind), e.opts.Wrote)
	return err
}

// background is start for what the next Open does if Close has begun. The context ends
// with the service.
func (s *state) background(f func(context.Context, *Service)) {
	if !s.closed {
		s.start(func(svc *Service) { f(svc.ctx, svc) })
	}
}

// table is a [durable.Table] under the names that this package uses.
type table[T any] struct {
	*durable.Table[T]
	rows map[string]*T
}

func openTable[T any](dir string, wrote func()) (*table[T], error) {
	t, err := durable.OpenTable[T](dir, wrote)
	if err != nil {
		return nil, err
	}
	return &table[T]{t, t.Rows}, nil
}

func (t *table[T]) get(id string) (*T, bool)              { return t.Get(id) }
func (t *table[T]) all() []*T                             { return t.All() }
func (t *table[T]) put(id string, row *T) error           { return t.Put(id, row) }
func (t *table[T]) edit(id string, change func(*T)) error { return t.Edit(id, change) }
func (t *table[T]) drop(id string) error                  { return t.Drop(id) }
func (t *table[T]) ids() []string                         { return t.IDs() }

// newID returns an id like EC2's: prefix, a hyphen, 17 hexadecimal digits.
func newID(prefix string) string {
	var b [9]byte
	_, _ = rand.Read(b[:]) // never fails
	return prefix + "-0" + hex.EncodeToString(b[:])[:16]
}
