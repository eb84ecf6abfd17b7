package step

import (
	"context"
	"errors"
	"fmt"
)

// Boundary is a place between two stages of a build. The journal and the ledger of the run record
// everything before it, so that another process, on this or another host, can resume from there.
type Boundary struct {
	Build string `json:"build"`
	Next  Stage  `json:"next"` // the stage after it

	Done int `json:"done,omitempty"` // for StageProvision: number of provisioners that have finished
	Of   int `json:"of,omitempty"`   // total number of provisioners

	Region string `json:"region,omitempty"` // for StageWait: region of the image to wait for
	Image  string `json:"image,omitempty"`
}

// Stage is the work between two boundaries.
type Stage string

// The stages of a build, in order. Each builder defines which of them its builds have.
const (
	StageLaunch    Stage = "launch"    // launch a machine and connect to it
	StageProvision Stage = "provision" // run one provisioner
	StageImage     Stage = "image"     // start to make an image of the machine
	StageWait      Stage = "wait"      // wait until an image or a copy is available
	StageVerify    Stage = "verify"    // verify the image
	StageCopy      Stage = "copy"      // start copies, or share images
	StagePublish   Stage = "publish"   // distribute, post-process and release the image
)

// OnMachine reports whether the stage works on a machine, which may take hours.
func (s Stage) OnMachine() bool { return s == StageProvision || s == StageVerify }

// ErrBoundary is the error of a build at the end of a stage. The build has not failed, and its
// resources stay in place.
var ErrBoundary = errors.New("the stage is over")

// ErrInterrupted is the error of a build in stages that cannot resume from the end of the previous
// stage, because the machine is gone or does not answer, or because a provisioner was interrupted,
// so that it is unknown what it has done and whether it is still running. Such a build must start
// again.
var ErrInterrupted = errors.New("the previous stage was interrupted")

// Interrupted wraps err with [ErrInterrupted] if the build runs in stages and was not cancelled.
func Interrupted(ctx context.Context, s *Scope, err error) error {
	if err == nil || s.Boundary == nil || context.Cause(ctx) != nil || errors.Is(err, ErrInterrupted) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInterrupted, err)
}

// EndStage ends the current stage at b by returning [ErrBoundary], unless the build runs to
// completion or an earlier process of the run has already ended a stage there.
func EndStage(_ context.Context, s *Scope, b Boundary) error {
	if s.Boundary == nil {
		return nil
	}
	b.Build = s.Build
	if was, ok := Recall[Boundary](s, b.key()); ok && was == b {
		return nil
	}
	Record(s, b.key(), b)
	if _, ok := Recall[Boundary](s, b.key()); !ok { // not recorded: the build could not resume here
		return nil
	}
	s.Boundary(b)
	return ErrBoundary
}

// key returns the key of the boundary in the journal.
func (b Boundary) key() string { return "boundary " + string(b.Next) + " " + b.Region }
