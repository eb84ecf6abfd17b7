package images

import (
	"context"
	"errors"
	"testing"

	"bake/builder/amazon/internal/access"
)

// TestNotChanged: requests that were never sent have changed nothing.
func TestNotChanged(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	interrupted := errors.New("interrupted")
	cancel(interrupted)
	a := &Account{session: &access.Session{}}
	with := Sharing{Accounts: []string{"111122223333"}}
	for name, do := range map[string]func(*Shared) error{
		"share": func(s *Shared) error {
			return a.share(ctx, s, SharingChange{With: []string{"444455556666"}, Snapshots: true})
		},
		"unshare": func(s *Shared) error { return a.unshare(ctx, s, SharingChange{All: true, Snapshots: true}) },
		"unshare the snapshots": func(s *Shared) error {
			s.Before = Sharing{}
			return a.unshare(ctx, s, SharingChange{All: true, Snapshots: true})
		},
	} {
		s := &Shared{Image: Image{ID: "ami-1", Region: "us-east-1"}, Before: with, parts: []part{{Snapshot{ID: "snap-1"}, with}}}
		if err := do(s); !errors.Is(err, interrupted) || s.Changed {
			t.Errorf("%s: changed: %t, %v", name, s.Changed, err)
		}
	}
}
