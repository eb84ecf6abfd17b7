package step

import (
	"encoding/json"
	"errors"
	"time"
)

// Event is something that happened during a run. The stream of events is the run's log: every
// display is a function of it, and it is stored as JSON lines.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  Kind      `json:"kind"`
	Build string    `json:"build,omitempty"` // full build name; empty for the run itself
	Step  string    `json:"step,omitempty"`  // names from the outermost step in, joined by " > "

	Text     string        `json:"text,omitempty"`         // one or more lines, without a final newline
	Place    string        `json:"place,omitempty"`        // for BuildFailed: "file:line" of the block whose Step failed, if one did
	Source   string        `json:"source,omitempty"`       // for log lines: the component that wrote it, if not the builder
	Elapsed  time.Duration `json:"elapsed,omitempty"`      // in nanoseconds; for events that end something
	Command  string        `json:"command_line,omitempty"` // for RunStarted: the user's command line
	Error    error         `json:"-"`                      // reason of a failure
	Progress *Progress     `json:"progress,omitempty"`     // for Progressed
	Resource *Resource     `json:"resource,omitempty"`     // for the Resource kinds
	Artifact any           `json:"artifact,omitempty"`     // for ArtifactMade
	Report   *Report       `json:"report,omitempty"`       // for Reported
	Reused   bool          `json:"reused,omitempty"`       // for BuildFinished: nothing was built
	Placed   *Placement    `json:"placed,omitempty"`       // for ImagePlaced
	Channel  *Channel      `json:"channel,omitempty"`      // for ChannelAsked
}

// Report is a file about a machine or an image.
type Report struct {
	Name   string `json:"name"` // such as checks.baseline
	Kind   string `json:"kind"` // FindingsReport, or the extension of the file
	Path   string `json:"path"` // absolute
	SHA256 string `json:"sha256"`
}

// Placement is an image in an account and a region.
type Placement struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	ID      string `json:"id"`
	Shared  bool   `json:"shared,omitempty"` // shared by another account
}

// Channel is the result of offering a build's image to a channel.
type Channel struct {
	Name      string   `json:"name"`
	Parameter string   `json:"parameter"`
	Names     bool     `json:"names"`             // the channel points to the image in all its places
	Reasons   []string `json:"reasons,omitempty"` // reasons why it does not

	// The conditions that the image still waits for, if nothing else prevents its promotion.
	Until    time.Time `json:"until,omitzero"`     // time at which the image has been in the previous channel long enough
	Approval bool      `json:"approval,omitempty"` // an approval is missing
}

// FindingsReport is the kind of a report of findings in JSON.
const FindingsReport = "findings"

// MarshalJSON writes the error as text.
func (e Event) MarshalJSON() ([]byte, error) {
	type plain Event
	text := ""
	if e.Error != nil {
		text = e.Error.Error()
	}
	return json.Marshal(struct {
		plain
		Error string `json:"error,omitempty"`
	}{plain(e), text})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (e *Event) UnmarshalJSON(b []byte) error {
	type plain Event
	in := struct {
		*plain
		Error string `json:"error"`
	}{plain: (*plain)(e)}
	if err := json.Unmarshal(b, &in); err != nil {
		return err
	}
	if in.Error != "" {
		e.Error = errors.New(in.Error)
	}
	return nil
}

// Kind is the kind of an [Event].
type Kind string

// The kinds of events. The comments of [Event]'s fields name the kinds that use them.
const (
	RunStarted    Kind = "run-started"
	RunFinished   Kind = "run-finished"
	BuildStarted  Kind = "build-started"
	BuildFinished Kind = "build-finished"
	BuildFailed   Kind = "build-failed"

	StepStarted  Kind = "step-started"
	StepFinished Kind = "step-finished"
	StepFailed   Kind = "step-failed"

	Say        Kind = "say"    // a message about what bake is doing
	Output     Kind = "output" // a line from a script's standard output
	ErrOutput  Kind = "error-output"
	Partial    Kind = "partial-output" // an incomplete line, such as a progress bar; only for live displays
	Warning    Kind = "warning"
	Progressed Kind = "progress"

	ResourceIntended  Kind = "resource-intended"
	ResourceCreated   Kind = "resource-created"
	ResourceDestroyed Kind = "resource-destroyed"
	ResourceKept      Kind = "resource-kept" // left to the user
	ResourceLeft      Kind = "resource-left" // could not be destroyed, or was left in place on request
	ArtifactMade      Kind = "artifact"
	Reported          Kind = "report"       // a file about the machine or the image was written
	ImagePlaced       Kind = "image-placed" // an image has reached a place of its distribution
	ChannelAsked      Kind = "channel"
)

// Progress is the progress of a step. Total is 0 if it is unknown.
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit"` // "B", "%", "files"
}
