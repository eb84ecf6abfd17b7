// Package report describes the course and result of a run, as one self-contained HTML page
// and as JSON. It uses only the log of the run, and the documents that the log names.
package report

import (
	"encoding/json"
	"io"
	"slices"
	"sort"
	"strings"
	"time"

	"bake/golden/changes"
	"bake/golden/contents"
	"bake/golden/findings"
	"bake/step"
)

// version changes with each incompatible change of the JSON.
const version = 1

// Report is what is known about a run. docs/report.schema.json is the schema of its
// JSON.
type Report struct {
	Version int       `json:"version"`
	Bake    string    `json:"bake,omitempty"` // version of the program that wrote the report
	Run     string    `json:"run"`
	Command string    `json:"command_line,omitempty"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"` // until the last event, if the run has no end
	State   string    `json:"state"`   // succeeded, failed, or unfinished
	Builds  []*Build  `json:"builds"`
}

// Build is a build of the run.
type Build struct {
	Name    string  `json:"name"`
	State   string  `json:"state"`
	Reused  bool    `json:"reused,omitempty"` // nothing was built: the images are those of an earlier run
	Error   string  `json:"error,omitempty"`
	Place   string  `json:"place,omitempty"` // location of the failed block, FILE:LINE
	Seconds float64 `json:"seconds"`
	Images  []Image `json:"images"`

	// Places and Channels are the locations that the image was distributed to, and the
	// state of its channels.
	Places   []step.Placement `json:"places"`
	Channels []step.Channel   `json:"channels"`

	Contents *Contents `json:"contents,omitempty"` // nil: there is no SBOM
	Changes  *Changes  `json:"changes,omitempty"`  // nil: it was compared with no image

	Files     []string   `json:"files"`
	Steps     []*Step    `json:"steps"`
	Warnings  []string   `json:"warnings"`
	Findings  []Findings `json:"findings"`
	Documents []Document `json:"documents"`
	Left      []string   `json:"left_behind"`
}

// Image is an image that was made, with the command that launches it.
type Image struct {
	Region string `json:"region"`
	ID     string `json:"id"`
	Launch string `json:"launch"`
}

// Step is a step of a build. Times are in seconds since the run began.
type Step struct {
	Name   string  `json:"name"` // preceded by those of its parent steps, joined by " > "
	Begin  float64 `json:"begin"`
	End    float64 `json:"end"`
	Failed bool    `json:"failed"`

	open bool
}

// Document is a file that was written about the machine or the image.
type Document struct {
	Name   string `json:"name"`
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// Findings are the findings and the verdict of the gate: docs/findings.schema.json.
type Findings struct {
	Name    string `json:"name"`
	Missing string `json:"missing,omitempty"` // why the document cannot be shown
	Machine string `json:"machine,omitempty"`
	Gate    *struct {
		Open     bool     `json:"open"`
		Reasons  []string `json:"reasons"`
		Warnings []string `json:"warnings"`
	} `json:"gate,omitempty"`
	Reports []ToolReport `json:"reports"`
}

// ToolReport is the result of a profile, a suite or a scanner.
type ToolReport struct {
	Name     string                  `json:"name"`
	Tool     string                  `json:"tool"`
	Score    *float64                `json:"score"` // nil: no rule was judged
	Counts   map[findings.Result]int `json:"counts"`
	Findings []Finding               `json:"findings"`
}

// Finding is the result of a rule.
type Finding struct {
	ID        string            `json:"id"`
	Title     string            `json:"title,omitempty"`
	Severity  findings.Severity `json:"severity"`
	Result    findings.Result   `json:"result"`
	Evidence  string            `json:"evidence,omitempty"`
	Rationale string            `json:"rationale,omitempty"`
	Fix       string            `json:"fix,omitempty"`
	Refs      []string          `json:"references,omitempty"`
	Waiver    string            `json:"waiver,omitempty"`
}

// Builder makes a report from the events of a run, in their order.
type Builder struct {
	report Report
	last   time.Time
	local  bool
	read   func(step.Report) ([]byte, error)
}

// New returns a Builder for a run. read returns a document that an event names.
func New(run, bake string, read func(step.Report) ([]byte, error)) *Builder {
	return &Builder{report: Report{Version: version, Bake: bake, Run: run, State: "unfinished", Builds: []*Build{}}, read: read}
}

// Handle processes an event.
func (b *Builder) Handle(e step.Event) {
	r := &b.report
	if r.Started.IsZero() {
		r.Started = e.Time
	}
	b.last = e.Time
	switch e.Kind {
	case step.RunStarted:
		r.Command = e.Command
		for name := range strings.Lines(e.Text) {
			b.build(strings.TrimSpace(name))
		}
		return
	case step.RunFinished:
		r.Seconds = e.Elapsed.Seconds()
		r.State = "succeeded"
		for _, one := range r.Builds {
			if one.State != "succeeded" {
				r.State = "failed"
			}
		}
		return
	}
	if e.Build != "" {
		b.ofBuild(b.build(e.Build), e)
	}
}

// ofBuild processes an event of a build.
func (b *Builder) ofBuild(one *Build, e step.Event) {
	switch e.Kind {
	case step.BuildStarted:
		one.State, one.Error, one.Place = "unfinished", "", ""
	case step.BuildFinished:
		one.State, one.Seconds, one.Reused = "succeeded", e.Elapsed.Seconds(), e.Reused
	case step.BuildFailed:
		one.State, one.Seconds, one.Place = "failed", e.Elapsed.Seconds(), e.Place
		if e.Error != nil {
			one.Error = e.Error.Error()
		}
	case step.StepStarted:
		one.Steps = append(one.Steps, &Step{Name: e.Step, Begin: b.since(e.Time), open: true})
	case step.StepFinished, step.StepFailed:
		for i := len(one.Steps) - 1; i >= 0; i-- { // a step may run again
			if s := one.Steps[i]; s.Name == e.Step && s.open {
				s.End, s.Failed, s.open = max(s.Begin, b.since(e.Time)), e.Kind == step.StepFailed, false
				break
			}
		}
	case step.Warning:
		one.Warnings = append(one.Warnings, e.Text)
	case step.ResourceIntended:
		if e.Resource != nil && e.Resource.With["cloud"] == "local" {
			b.local = true
		}
	case step.ResourceLeft:
		if e.Resource != nil {
			one.Left = append(one.Left, e.Resource.String())
		}
	case step.ImagePlaced:
		one.placed(e.Placed)
	case step.ChannelAsked:
		one.asked(e.Channel)
	case step.ArtifactMade:
		b.local = one.made(e.Artifact) || b.local
	case step.Reported:
		if e.Report != nil {
			b.document(one, *e.Report)
		}
	}
}

func (b *Builder) since(t time.Time) float64 {
	return max(0, t.Sub(b.report.Started).Seconds()) // the clock may have been set back
}

func (b *Builder) build(name string) *Build {
	for _, one := range b.report.Builds {
		if one.Name == name {
			return one
		}
	}
	one := &Build{Name: name, State: "unfinished", Images: []Image{}, Places: []step.Placement{}, Channels: []step.Channel{}, Files: []string{}, Steps: []*Step{}, Warnings: []string{}, Findings: []Findings{}, Documents: []Document{}, Left: []string{}}
	b.report.Builds = append(b.report.Builds, one)
	return one
}

// made adds an artifact, from this process or from a log, and reports whether it is in a
// local cloud.
func (one *Build) made(artifact any) (local bool) {
	var a struct {
		Images    map[string]string `json:"images"`
		Files     []string          `json:"files"`
		Resources []step.Resource   `json:"resources"`
	}
	text, err := json.Marshal(artifact)
	if err != nil || json.Unmarshal(text, &a) != nil {
		return false
	}
	for _, r := range a.Resources {
		local = local || r.With["cloud"] == "local"
	}
	for region, id := range a.Images {
		seen := false
		for _, i := range one.Images {
			seen = seen || i.Region == region && i.ID == id
		}
		if !seen {
			one.Images = append(one.Images, Image{Region: region, ID: id})
		}
	}
	sort.Slice(one.Images, func(i, j int) bool { return one.Images[i].Region < one.Images[j].Region })
	for _, f := range a.Files {
		if !slices.Contains(one.Files, f) {
			one.Files = append(one.Files, f)
		}
	}
	return local
}

// placed adds a location of the image.
func (one *Build) placed(p *step.Placement) {
	if p != nil && !slices.Contains(one.Places, *p) {
		one.Places = append(one.Places, *p)
	}
}

// asked records the state of a channel.
func (one *Build) asked(c *step.Channel) {
	if c == nil {
		return
	}
	one.Channels = slices.DeleteFunc(one.Channels, func(old step.Channel) bool { return old.Name == c.Name })
	one.Channels = append(one.Channels, *c)
}

// document adds a document that the log names. Documents with findings, contents or
// changes become part of the report.
func (b *Builder) document(one *Build, d step.Report) {
	one.Documents = append(one.Documents, Document{d.Name, d.Path, d.SHA256})
	switch d.Kind {
	case step.FindingsReport:
		b.findings(one, d)
	case string(contents.CycloneDX), string(contents.SPDX):
		if one.Contents == nil || one.Contents.Missing != "" || one.Contents.Document == d.Name {
			one.Contents = b.contents(d)
		}
	case changes.Extension:
		one.Changes = b.changes(d)
	}
}

func (b *Builder) findings(one *Build, d step.Report) {
	f := Findings{}
	text, err := b.read(d)
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil {
		f = Findings{Missing: err.Error(), Reports: []ToolReport{}}
	}
	f.Name = d.Name
	for i, old := range one.Findings { // checked again
		if old.Name == f.Name && old.Machine == f.Machine {
			one.Findings[i] = f
			return
		}
	}
	one.Findings = append(one.Findings, f)
}

// Report returns the report of the events so far.
func (b *Builder) Report() *Report {
	r := &b.report
	if r.State == "unfinished" {
		r.Seconds = b.since(b.last)
	}
	for _, one := range r.Builds {
		for _, s := range one.Steps {
			if s.open {
				s.End = max(s.Begin, b.since(b.last))
			}
		}
		for i := range one.Images {
			one.Images[i].Launch = launch(one.Images[i], b.local)
		}
	}
	return r
}

// launch returns the command that launches a machine from an image. It is empty if a part
// of it would have to be quoted.
func launch(i Image, local bool) string {
	for _, r := range i.Region + i.ID {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' {
			return ""
		}
	}
	if local {
		return "bake cloud run -region " + i.Region + " " + i.ID
	}
	return "aws ec2 run-instances --region " + i.Region + " --image-id " + i.ID + " --instance-type t3.micro"
}

// JSON writes the report for programs.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
