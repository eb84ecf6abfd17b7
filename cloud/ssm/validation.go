package ssm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"bake/cloud/durable"
	"bake/cloud/wire"
)

// unvalidated is a new version of a parameter of the data type aws:ec2:image that has not
// been validated yet. If its image exists for the account, it becomes a version of the
// parameter; otherwise it is dropped without notice, as on AWS.
type unvalidated struct {
	ID        string // of the parameter
	Parameter parameter
}

// validationDelay is how long a version stays unvalidated unless the options say
// otherwise. It applies even where everything else is instant: a client that reads at once
// must not find the version.
const validationDelay = 500 * time.Millisecond

// unvalidatedKey returns a key that sorts by a parameter's version numbers.
func unvalidatedKey(id string, number int64) string { return fmt.Sprintf("%s.%019d", id, number) }

func (u *unvalidated) version() *version { return u.Parameter.latest() }

// validate validates the versions whose delay is over.
func (s *Service) validate(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // the caller is not the client that wrote the versions
	after := cmp.Or(s.opts.Validate, validationDelay)
	var due []*unvalidated
	err := s.guarded.Update(func(st *state) error {
		for _, key := range st.unvalidated.IDs() { // the oldest of each parameter first
			if u := st.unvalidated.Rows[key]; !st.now().Before(u.version().Modified.Add(after)) {
				due = append(due, u)
			}
		}
		return nil
	})
	for _, u := range due {
		caller := wire.Caller{Account: u.Parameter.Account, Region: u.Parameter.Region}
		_, invalid := s.opts.Images.DescribeImages(wire.WithCaller(ctx, caller), &ec2.DescribeImagesInput{ImageIds: []string{u.version().Value}})
		err = errors.Join(err, s.guarded.Update(func(st *state) error { return st.settle(u, invalid == nil) }))
	}
	return err
}

// settle makes u a version of its parameter if it is valid, and drops it otherwise.
func (s *state) settle(u *unvalidated, valid bool) error {
	key := unvalidatedKey(u.ID, u.version().Number)
	if s.unvalidated.Rows[key] != u {
		return nil // settled or deleted meanwhile
	}
	if !valid {
		return s.unvalidated.Drop(key)
	}
	next := u.Parameter
	v := *u.version()
	next.Versions = nil
	if old, ok := s.parameters.Get(u.ID); ok {
		next.Versions, next.Tags = append(next.Versions, old.Versions...), old.Tags
	}
	return errors.Join(s.add(u.ID, &next, v), s.unvalidated.Drop(key))
}

// written returns the parameter or, if it has no validated version yet, its first
// unvalidated version; nil if there is neither.
func (s *state) written(id string) *parameter {
	if p, ok := s.parameters.Get(id); ok {
		return p
	}
	for _, u := range s.waiting(id) {
		return &u.Parameter
	}
	return nil
}

// waiting returns the unvalidated versions of a parameter, oldest first.
func (s *state) waiting(id string) (all []*unvalidated) {
	for _, key := range s.unvalidated.IDs() {
		if u := s.unvalidated.Rows[key]; u.ID == id {
			all = append(all, u)
		}
	}
	return all
}

// lastNumber returns the number of the parameter's newest version, validated or not; 0 if
// it has none.
func (s *state) lastNumber(id string) (n int64) {
	if p, ok := s.parameters.Get(id); ok {
		n = p.latest().Number
	}
	for _, u := range s.waiting(id) {
		n = max(n, u.version().Number)
	}
	return n
}

// forget drops the unvalidated versions of a parameter.
func (s *state) forget(id string) (err error) {
	for _, u := range s.waiting(id) {
		err = errors.Join(err, s.unvalidated.Drop(unvalidatedKey(id, u.version().Number)))
	}
	return err
}

// validated turns a method of the state into an action that validates due versions before
// it calls the method.
//
//go:noinline
func validated[In, Out any](s *Service, method func(*state, context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	return func(ctx context.Context, in In) (out Out, err error) {
		if err := s.validate(ctx); err != nil {
			return out, err
		}
		return durable.Action(s.guarded, method)(ctx, in)
	}
}
