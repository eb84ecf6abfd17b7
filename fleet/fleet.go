// Package fleet bakes many images in many accounts and regions: it defines fleets, the
// order in which cells are baked, and the engine that bakes them in this process. Another
// engine is in package fleet/temporal.
package fleet

import (
	"strings"
	"time"

	"bake/config"
	"bake/step"
)

// A Fleet holds the contents of a fleet block and of the engine block, with its cells. It
// holds no secrets except in Notify and Engine, which JSON omits.
type Fleet struct {
	Name     string    `json:"name"`
	Dir      string    `json:"-"`     // absolute directory of the template
	Fleets   []string  `json:"-"`     // the names of all fleets of the template
	Cells    []Cell    `json:"cells"` // each after those that it needs
	Schedule *Schedule `json:"schedule,omitempty"`
	Limits   Limits    `json:"limits"`
	Notify   []Webhook `json:"-"`
	Engine   *Temporal `json:"-"` // nil: this process
}

// Cell returns the cell with this ID, which may lack "bake/FLEET/".
func (f *Fleet) Cell(id string) (Cell, bool) {
	id = strings.TrimPrefix(id, prefix+f.Name+"/")
	for _, c := range f.Cells {
		if c.Short() == id {
			return c, true
		}
	}
	return Cell{}, false
}

// A Cell is one image in one account and region. It can be encoded as JSON and holds no secrets.
type Cell struct {
	Fleet   string `json:"fleet"`
	Image   string `json:"image"` // its name: "web", or "web/debian" if the image block has for_each
	Account string `json:"account"`
	Region  string `json:"region"`
	Role    string `json:"role,omitempty"` // the ARN of the role to assume; empty: the credentials of the process

	Needs []string `json:"needs,omitempty"` // the IDs of the cells that make its parent images

	// ReuseOnly means that the cell was not selected, but selected cells need its image:
	// the cell fails if the image would have to be built.
	ReuseOnly bool `json:"reuse_only,omitempty"`
}

// prefix begins the ID of every cell.
const prefix = "bake/"

// ID returns the unique ID of the cell: bake/FLEET/IMAGE/ACCOUNT/REGION.
func (c Cell) ID() string { return prefix + c.Fleet + "/" + c.Short() }

// Short returns the ID within the fleet: IMAGE/ACCOUNT/REGION.
func (c Cell) Short() string { return c.Image + "/" + c.Account + "/" + c.Region }

// Schedule defines when a fleet is run. It needs an engine that can start runs by
// itself.
type Schedule struct {
	Cron               string        `json:"cron"` // five fields
	Timezone           string        `json:"timezone"`
	Jitter             time.Duration `json:"jitter,omitempty"`
	Overlap            string        `json:"overlap"` // one of Overlaps
	CatchUp            time.Duration `json:"catch_up"`
	PauseAfterFailures int           `json:"pause_after_failures,omitempty"` // 0: never
}

// Limits bound how many cells of a fleet run at a time, and their API calls.
type Limits struct {
	Parallel   int                `json:"parallel,omitempty"`    // cells; 0: no limit
	PerAccount int                `json:"per_account,omitempty"` // cells; 0: no limit
	APIRate    map[string]float64 `json:"api_rate,omitempty"`    // calls per second by service, for each account and region
}

// Webhook is called when cells end.
type Webhook struct {
	On      []string // of Occasions
	URL     string
	Headers map[string]string // may hold secrets
	Timeout time.Duration
}

// Temporal is the address of a Temporal service.
type Temporal struct {
	Address   string // host:port
	Namespace string
	TLS       *TLS // nil: none
}

// TLS is the TLS configuration for a service. The names are those of PEM files.
type TLS struct {
	CAFile, CertFile, KeyFile string
	ServerName                string
}

// Result is how a cell ended.
type Result string

// The results.
const (
	Built     Result = "built"
	Reused    Result = "reused" // unchanged since an image was built
	Failed    Result = "failed"
	Skipped   Result = "skipped" // a parent image is missing
	Cancelled Result = "cancelled"
)

// OK reports whether the image of the cell exists.
func (r Result) OK() bool { return r == Built || r == Reused }

// Outcome is how a cell ended. It can be encoded as JSON and holds no secrets.
type Outcome struct {
	Cell    Cell      `json:"cell"`
	Result  Result    `json:"result"`
	Run     string    `json:"run,omitempty"` // its id; empty if the cell was never started
	Image   Image     `json:"image"`         // zero unless Result is OK
	Error   string    `json:"error,omitempty"`
	Code    int       `json:"code,omitempty"` // the outcome of the run, as in bake's exit codes
	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended"`

	Waits // of the image
}

// Waits are the conditions that still keep an image out of its channels.
type Waits struct {
	Awaiting []string `json:"awaiting,omitempty"` // channels that still need an approval
	Soaking  []Soak   `json:"soaking,omitempty"`
	Failed   string   `json:"promotion_error,omitempty"` // why it could not enter a channel at the last attempt
	Kept     []string `json:"kept_out,omitempty"`        // channels that it does not wait for, with the reasons: "CHANNEL: REASON"
}

// Soak is the time until which an image must stay in the previous channel before it may
// enter Channel.
type Soak struct {
	Channel string    `json:"channel"`
	Until   time.Time `json:"until"`
}

// Add adds the result of a channel for the image.
func (w *Waits) Add(c *step.Channel) {
	if c.Approval {
		w.Awaiting = append(w.Awaiting, c.Name)
	}
	if !c.Until.IsZero() {
		w.Soaking = append(w.Soaking, Soak{c.Name, c.Until})
	}
}

// Over reports whether the image waits for nothing.
func (w Waits) Over() bool { return len(w.Awaiting)+len(w.Soaking) == 0 }

// Text describes what the image waits for; empty if it does not wait.
func (w Waits) Text() string {
	var all []string
	for _, s := range w.Soaking {
		all = append(all, "soaking until "+s.Until.UTC().Format(time.RFC3339)+" for "+s.Channel)
	}
	for _, channel := range w.Awaiting {
		all = append(all, "waits for approval for "+channel)
	}
	for _, why := range w.Kept {
		if w.Over() { // otherwise the channel may come after one that the image waits for
			all = append(all, "kept out of "+why)
		}
	}
	if w.Failed != "" {
		all = append(all, "could not enter its channels: "+w.Failed)
	}
	return strings.Join(all, ", ")
}

// Image is the image that a cell has made.
type Image struct {
	ID     string            `json:"id,omitempty"`  // in the region of the cell
	IDs    map[string]string `json:"ids,omitempty"` // by region
	Name   string            `json:"name,omitempty"`
	Inputs string            `json:"inputs,omitempty"` // the digest of its inputs
}

// builtBy returns the parents of a cell as its template refers to them, by the names of the
// images.
func builtBy(parents []Outcome) map[string]config.Built {
	known := map[string]config.Built{}
	for _, p := range parents {
		known[p.Cell.Image] = config.Built{ID: p.Image.ID, IDs: p.Image.IDs, Name: p.Image.Name, Inputs: p.Image.Inputs}
	}
	return known
}
