package builder

import (
	"context"
	"errors"
)

// Verifiable is a builder that calls [Hooks.Made].
type Verifiable interface {
	Builder

	// Verifiable returns why machines of its images cannot be launched and logged in to
	// as [Image.Boot] does; nil if they can. boot is what is going to be asked for.
	Verifiable(boot []Boot) error
}

// Image is an image that its builder has made and nobody has got yet.
type Image struct {
	ID     string
	Region string

	// The account that it is in, and the name that it is handed out under.
	Account, Name string

	// Previous finds the newest image of the account, in the region, that has a tag with that
	// value, and is not this one; nil if there is none.
	Previous func(ctx context.Context, tag, value string) (*PreviousImage, error)

	// Boot launches a machine of the image, with a key and a security group of its own and
	// without user data, calls use when it can be logged in to, and deletes all that
	// again, whatever has happened.
	Boot func(ctx context.Context, b Boot, use func(ctx context.Context, m Machine) error) error
}

// PreviousImage is one that there was before.
type PreviousImage struct {
	ID, Name string
	Tags     map[string]string
}

// Boot says what machine of an image is launched. What it leaves open is as for the
// machine that the image was made of.
type Boot struct {
	InstanceType string
	User         string // to log in as
}

// Fate is what becomes of an image that is not to be handed out.
type Fate string

// The fates.
const (
	Delete     Fate = "delete"
	Keep       Fate = "keep"       // as it is, where it was made, shared with nobody
	Quarantine Fate = "quarantine" // likewise, marked, and so that nobody can launch it
)

// ErrGate is what an error wraps, or is, that says that a gate is closed: what was looked
// at is not as it was asked for, or it could not be told.
var ErrGate = errors.New("a gate is closed")

// RejectedError is the error of an image that is not to be handed out.
type RejectedError struct {
	Fate Fate
	Err  error
}

func (e *RejectedError) Error() string   { return e.Err.Error() }
func (e *RejectedError) Unwrap() []error { return []error{e.Err, ErrGate} }
