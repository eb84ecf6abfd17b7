package step

import (
	"context"
	"errors"
	"fmt"
)

// Boundary is a place between two stages of a build: the journal and the ledger of the run
// record everything before it, and another process can resume from there, on another host.
type Boundary struct {
	Build string `json:"build"`
	Next  Stage  `json:"next"` // what is done after it

	Done int `json:"done,omitempty"` // how many provisioners have finished, for StageProvision
	Of   int `json:"of,omitempty"`   // how many there are

	Region string `json:"region,omitempty"` // where the image is that is waited for, for StageWait
	Image  string `json:"image,omitempty"`
}

// Stage is the work of a build from one boundary to the next.
type Stage string

// The stages of a build, in order. Each builder defines which of them its builds have.
const (
	StageLaunch    Stage = "launch"    // a machine is launched and reached
	StageProvision Stage = "provision" // one provisioner is run
	StageImage     Stage = "image"     // the creation of an image of the machine is started
	StageWait      Stage = "wait"      // for an image or a copy, to become available
	StageVerify    Stage = "verify"    // the image is looked at
	StageCopy      Stage = "copy"      // copies are started, or images shared
	StagePublish   Stage = "publish"   // the image is handed out, post-processed and released
)

// OnMachine reports whether the stage works on a machine, over minutes or hours.
func (s Stage) OnMachine() bool { return s == StageProvision || s == StageVerify }

// ErrBoundary is the error of a build that has reached the end of a stage. The build has
// not failed: what it owns stays as it is.
var ErrBoundary = errors.New("the stage is over")

// ErrInterrupted is the error of a build that runs by stages and cannot resume from the
// end of the previous one: a provisioner had begun on its machine, and may have done part
// of its work or still be running, or the machine is gone or does not answer. Such a build
// has to start again.
var ErrInterrupted = errors.New("the stage before was interrupted")

// Interrupted wraps err as an [ErrInterrupted], if the build runs by stages and was not
// cancelled.
func Interrupted(ctx context.Context, s *Scope, err error) error {
	if err == nil || s.Boundary == nil || context.Cause(ctx) != nil || errors.Is(err, ErrInterrupted) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrInterrupted, err)
}

// EndStage ends the stage at b with [ErrBoundary], unless the build runs to completion, or
// an earlier process of the run has ended a stage there.
func EndStage(_ context.Context, s *Scope, b Boundary) error {
	if s.Boundary == nil {
		return nil
	}
	b.Build = s.Build
	if was, ok := Recall[Boundary](s, b.key()); ok && was == b {
		return nil
	}
	Record(s, b.key(), b)
	if _, ok := Recall[Boundary](s, b.key()); !ok { // the boundary was not recorded, so the build could not resume here
		return nil
	}
	s.Boundary(b)
	return ErrBoundary
}

// key returns the key of the boundary in the journal.
func (b Boundary) key() string { return "boundary " + string(b.Next) + " " + b.Region }
