package builder

import (
	"context"
	"errors"
)

// Verifiable is a builder that calls [Hooks.ImageCreated].
type Verifiable interface {
	Builder

	// Verifiable returns an error if [Image.Boot] cannot launch a machine of its images and
	// log in to it. boot lists the machines that will be asked for.
	Verifiable(boot []Boot) error
}

// Image is a new image that has not been copied or shared yet.
type Image struct {
	ID     string
	Region string

	// The account that owns it, and the name that it will be published under.
	Account, Name string

	// Previous finds the newest other image of the account in the region that has the tag
	// with this value; nil if there is none.
	Previous func(ctx context.Context, tag, value string) (*PreviousImage, error)

	// Boot launches a machine from the image, with its own key and security group and
	// without user data. It calls use once the machine is reachable, and always deletes the
	// machine, key and group.
	Boot func(ctx context.Context, b Boot, use func(ctx context.Context, m Machine) error) error
}

// PreviousImage is an older image with the same tag.
type PreviousImage struct {
	ID, Name string
	Tags     map[string]string
}

// Boot describes a machine to launch from an image. Empty fields default to those of the
// machine that the image was made from.
type Boot struct {
	InstanceType string
	User         string // to log in as
}

// RejectAction is what happens to an image that failed its verification.
type RejectAction string

// The actions.
const (
	Delete     RejectAction = "delete"
	Keep       RejectAction = "keep"       // keep it in its region, unshared
	Quarantine RejectAction = "quarantine" // keep it, tagged and disabled, so that it cannot be launched
)

// ErrGate is wrapped by the errors of closed gates: a check failed, or its result is
// unknown.
var ErrGate = errors.New("a gate is closed")

// RejectedError is the error of an image that must not be published.
type RejectedError struct {
	Action RejectAction
	Err    error
}

func (e *RejectedError) Error() string   { return e.Err.Error() }
func (e *RejectedError) Unwrap() []error { return []error{e.Err, ErrGate} }
