package builder

import (
	"context"
	"time"

	"bake/step"
)

// Distribution lists the regions and accounts that images are distributed to, in addition to
// where their builders put them. The zero value distributes nothing.
type Distribution struct {
	Regions    []string
	Accounts   []string          // account IDs, except that of the builder
	Copy       bool              // give each account its own copies; otherwise share the builder's images with it
	Role       string            // ARN of the role to assume in an account, with "{account}" for its ID; empty: none
	ExternalID string            // the external ID for assuming Role; may be empty
	Keys       map[string]string // KMS keys to encrypt copies with, by region
}

// Distributor distributes the images of one builder and moves their channels. It is not safe
// for concurrent use.
type Distributor interface {
	// Check returns an error if images could not be distributed. It changes nothing.
	Check(ctx context.Context) error

	// Distribute copies and shares images, keyed by region, with their tags. Copies that
	// exist are reused. It returns the placements that are complete, even with an error.
	Distribute(ctx context.Context, s *step.Scope, images map[string]string) ([]Placement, error)

	// Channel returns the state of the channel with this parameter name, for the images at.
	Channel(ctx context.Context, parameter string, at []Placement) (ChannelState, error)

	// MoveChannel makes a channel name the images at, each in its own region and account:
	// in all of them or in none. reason is recorded in its history.
	MoveChannel(ctx context.Context, s *step.Scope, parameter, reason string, at []Placement) error

	// Tags returns the tags of an image in the builder's own account.
	Tags(ctx context.Context, at Placement) (map[string]string, error)
}

// Placement is an image as an account sees it in a region.
type Placement struct {
	Account string
	Region  string
	ID      string
	Shared  bool // it belongs to the builder's account, which is another one

	// Resource is the image in the ledger, if the distribution copied it within the builder's
	// own account.
	Resource step.Resource
}

// ChannelState is the state of a channel over all placements of an image.
type ChannelState struct {
	Names bool      // the channel names the image everywhere
	Since time.Time // since when
	Moved time.Time // when it was last moved, anywhere; zero: it names no image

	// TakenBack reports that the channel was rolled back from the image to an earlier one.
	TakenBack bool
}
