package builder

import (
	"context"
	"time"

	"bake/step"
)

// Distribution says where images are to be beside the places where their builders put
// them. The zero value is nowhere.
type Distribution struct {
	Regions    []string
	Accounts   []string          // by their numbers, beside that of the builder
	Copy       bool              // each account gets images of its own; otherwise those of the builder are shared with it
	Role       string            // to take on in an account, which it has "{account}" for; empty: none
	ExternalID string            // that the trust policy of the role asks for; may be empty
	Keys       map[string]string // to encrypt copies with, by region
}

// Outlet is what hands out the images of one builder. It is for one goroutine at a time.
type Outlet interface {
	// Check looks whether images could be distributed now.
	Check(ctx context.Context) error

	// Distribute brings images, which are by region, where they are to be, with their tags.
	// What is there already is taken. With an error there are those places that have an
	// image nevertheless: each of them is whole.
	Distribute(ctx context.Context, s *step.Scope, images map[string]string) ([]Placed, error)

	// Channel tells what a channel, which is a parameter, says of images that were placed.
	Channel(ctx context.Context, parameter string, at []Placed) (ChannelState, error)

	// Enter has a channel name the images that were placed, each in its own region and
	// account: all of them, or as before none. what has happened is for its history.
	Enter(ctx context.Context, s *step.Scope, parameter, what string, at []Placed) error

	// Tags are those of an image that was placed in the builder's own account.
	Tags(ctx context.Context, at Placed) (map[string]string, error)
}

// Placed is an image of an account in a region, as those who use it there know it.
type Placed struct {
	Account string
	Region  string
	ID      string
	Shared  bool // it belongs to another account, the builder's

	// Resource is what deleting the image deletes, if the distribution has copied it in the
	// builder's own account.
	Resource step.Resource
}

// ChannelState is what a channel says of images in all places.
type ChannelState struct {
	Names bool      // it names each of them now
	Since time.Time // it has named all of them
	Moved time.Time // it was moved last, in any place; zero: it names nothing

	// TakenBack says that it named one of them, and was moved from that to an image that it
	// had named before: somebody does not want it there.
	TakenBack bool
}
