package fleet

import (
	"context"
	"errors"
	"slices"
	"sync"

	embedded "bake/internal/local"
	"bake/run/localcloud"
	"bake/step"
)

// Shared is the local cloud of all cells of fleets, with their accounts and roles. It is opened when
// the first cell needs it.
type Shared struct {
	Options func(emit func(step.Event)) (embedded.Options, error) // in addition to the accounts of the cells
	Fleets  []*Fleet

	mu    sync.Mutex
	cloud *localcloud.Cloud
}

// Open returns the cloud. The first call opens it, sending events to emit. The cloud stays
// open after ctx ends.
func (s *Shared) Open(ctx context.Context, emit func(step.Event)) (*localcloud.Cloud, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cloud != nil {
		return s.cloud, nil
	}
	o, err := s.Options(emit)
	if err != nil {
		return nil, err
	}
	roles := map[string]bool{}
	for _, f := range s.Fleets {
		for _, id := range f.Accounts() {
			if !slices.Contains(o.AccountIDs, id) {
				o.AccountIDs = append(o.AccountIDs, id)
			}
		}
		for _, c := range f.Cells {
			roles[c.Role] = true
		}
	}
	delete(roles, "")
	made, err := localcloud.Open(context.WithoutCancel(ctx), o)
	if err != nil {
		return nil, err
	}
	for role := range roles {
		if err := made.EnsureRole(ctx, role); err != nil {
			return nil, errors.Join(err, made.Close(ctx))
		}
	}
	s.cloud = made
	return made, nil
}

// Close closes the cloud, if it was opened, once nothing runs there any more.
func (s *Shared) Close(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cloud == nil {
		return nil
	}
	return s.cloud.Close(ctx)
}
