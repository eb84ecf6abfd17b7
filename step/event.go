package step

import (
	"encoding/json"
	"errors"
	"time"
)

// Event is something that happened during a run. The stream of events is the run's log:
// every display is a function of it, and it is stored as JSON lines.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  Kind      `json:"kind"`
	Build string    `json:"build,omitempty"` // full build name; empty for the run itself
	Step  string    `json:"step,omitempty"`  // names from the outermost step in, joined by " > "

	Text     string        `json:"text,omitempty"`         // one or more lines, without a final newline
	Place    string        `json:"place,omitempty"`        // for BuildFailed: "file:line" of the block whose Step failed, if one did
	Source   string        `json:"source,omitempty"`       // for log lines: the component that spoke, if not the builder
	Elapsed  time.Duration `json:"elapsed,omitempty"`      // nanoseconds; for events that end something
	Command  string        `json:"command_line,omitempty"` // for RunStarted: what the user called
	Error    error         `json:"-"`                      // why something failed
	Progress *Progress     `json:"progress,omitempty"`     // for Progressed
	Resource *Resource     `json:"resource,omitempty"`     // for the Resource kinds
	Artifact any           `json:"artifact,omitempty"`     // for ArtifactMade
	Report   *Report       `json:"report,omitempty"`       // for Reported
	Reused   bool          `json:"reused,omitempty"`       // for BuildFinished: nothing was built
	Placed   *Placement    `json:"placed,omitempty"`       // for ImagePlaced
	Channel  *Channel      `json:"channel,omitempty"`      // for ChannelAsked
}

// Report is a file that a step has written about a machine or an image.
type Report struct {
	Name   string `json:"name"` // such as checks.baseline
	Kind   string `json:"kind"` // FindingsReport, or the end of the file's name
	Path   string `json:"path"` // absolute
	SHA256 string `json:"sha256"`
}

// Placement is an image of an account in a region.
type Placement struct {
	Account string `json:"account"`
	Region  string `json:"region"`
	ID      string `json:"id"`
	Shared  bool   `json:"shared,omitempty"` // it belongs to another account
}

// Channel is the result of offering a build's image to a channel.
type Channel struct {
	Name      string   `json:"name"`
	Parameter string   `json:"parameter"`
	Names     bool     `json:"names"`             // the image, in all its places
	Reasons   []string `json:"reasons,omitempty"` // why it does not

	// What the image waits for, if nothing else keeps it out.
	Until    time.Time `json:"until,omitzero"`     // when it has been in the channel before for long enough
	Approval bool      `json:"approval,omitempty"` // somebody must approve it
}

// FindingsReport is the kind of a report of findings, as JSON.
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

	Say        Kind = "say"    // what bake does, for the user to read
	Output     Kind = "output" // a line that a script wrote to standard output
	ErrOutput  Kind = "error-output"
	Partial    Kind = "partial-output" // a line before it overwrites itself; only for live displays
	Warning    Kind = "warning"
	Progressed Kind = "progress"

	ResourceIntended  Kind = "resource-intended"
	ResourceCreated   Kind = "resource-created"
	ResourceDestroyed Kind = "resource-destroyed"
	ResourceKept      Kind = "resource-kept" // handed to the user
	ResourceLeft      Kind = "resource-left" // could not be destroyed, or was left on purpose
	ArtifactMade      Kind = "artifact"
	Reported          Kind = "report"       // a file about the machine or the image was written
	ImagePlaced       Kind = "image-placed" // an image is where it was distributed to
	ChannelAsked      Kind = "channel"
)

// Progress is how far a step has come. Total is 0 when it is not known.
type Progress struct {
	Done  int64  `json:"done"`
	Total int64  `json:"total,omitempty"`
	Unit  string `json:"unit"` // "B", "%", "files"
}
