// Package plan decides whether an image has to be built: from its inputs, and from what is
// known about the existing images.
package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sort"
	"strings"
	"time"

	"bake/internal/imagetag"
)

// The tags that identify an image, in addition to those of its record.
const (
	ImageTag  = imagetag.Image
	InputsTag = imagetag.Inputs
	ParentTag = imagetag.Parent
)

// rejected are the tags of images that are never reused, and the reasons.
var rejected = []struct{ tag, why string }{
	{imagetag.Revoked, "was revoked"},
	{imagetag.Quarantine, "is in quarantine"},
	{imagetag.Rejected, "has failed its verification"},
	{imagetag.Run, "belongs to a run that has not finished"}, // and may be deleted with it
}

// Input is one of the inputs of an image.
type Input struct {
	Name   string `json:"name"`            // unique, such as "var.release" or "file scripts/web.sh"
	Digest string `json:"digest"`          // SHA-256 in hex
	Shown  string `json:"shown,omitempty"` // the value for people, if it is short and not secret
}

// Of returns an input with this content.
func Of(name string, content []byte) Input {
	sum := sha256.Sum256(content)
	return Input{Name: name, Digest: hex.EncodeToString(sum[:])}
}

// Text returns an input whose value can be shown.
func Text(name, value string) Input {
	in := Of(name, []byte(value))
	if value = strings.Join(strings.Fields(value), " "); len(value) <= shownLimit {
		in.Shown = value
	}
	return in
}

// shownLimit is the maximum length of a value that is shown.
const shownLimit = 64

// Digest returns the digest of all inputs together, independent of their order.
func Digest(inputs []Input) string {
	sum := sha256.New()
	for _, in := range ordered(inputs) {
		fmt.Fprintf(sum, "%d %s %s\n", len(in.Name), in.Name, in.Digest)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// ordered returns the inputs sorted by name, without duplicates.
func ordered(inputs []Input) []Input {
	all := append([]Input(nil), inputs...)
	sort.SliceStable(all, func(i, j int) bool {
		return cmp.Or(strings.Compare(all[i].Name, all[j].Name), strings.Compare(all[i].Digest, all[j].Digest)) < 0
	})
	kept := all[:0]
	for i, in := range all {
		if i == 0 || in.Name != all[i-1].Name || in.Digest != all[i-1].Digest {
			kept = append(kept, in)
		}
	}
	return kept
}

// Change is an input that has changed.
type Change struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"` // the value, or the start of its digest; empty: did not exist
	To   string `json:"to,omitempty"`   // likewise; empty: no longer exists
}

func (c Change) String() string {
	switch {
	case c.From == "":
		return c.Name + " is new: " + c.To
	case c.To == "":
		return c.Name + " is gone: it was " + c.From
	}
	return fmt.Sprintf("%s: %s -> %s", c.Name, c.From, c.To)
}

// Image is an available image with the name.
type Image struct {
	ID, Region string
	Created    time.Time
	Tags       map[string]string
	Flaw       string // how it differs from what the build would make; empty if no difference is known
}

func (i Image) made() imagetag.Made { return imagetag.Made{Created: i.Created, Tags: i.Tags, ID: i.ID} }

// Question holds what is known when deciding whether to build.
type Question struct {
	Inputs  []Input
	Images  []Image  // existing images
	Targets []string // regions in which a complete image must exist, including that of the build if the image stays there
	MaxAge  time.Duration
	Now     time.Time
	Force   bool // always build
}

// Answer is the decision, with its reason.
type Answer struct {
	Reuse   []Image  // images to reuse, one for each target; empty: build
	Reason  string   // why to build
	Changes []Change // changes since the newest image that require the build
	Since   string   // the ID of the newest image
}

// Decide decides whether images can be reused, and if not why not.
func Decide(q Question) Answer {
	digest := Digest(q.Inputs)
	if q.Force {
		return Answer{Reason: "-force asks for a new image"}
	}
	if len(q.Images) == 0 {
		return Answer{Reason: "there is no image of this name"}
	}
	all := append([]Image(nil), q.Images...)
	sort.SliceStable(all, func(i, j int) bool {
		return imagetag.Order(all[j].made(), all[i].made()) < 0
	})
	chosen := map[string]Image{}
	var why string // the newest image with the digest is not reused
	blame := func(format string, args ...any) {
		if why == "" {
			why = fmt.Sprintf(format, args...)
		}
	}
	seen := map[string]bool{} // if the newest image of a region is unsuitable, so are older ones
	for _, i := range all {
		if i.Tags[InputsTag] != digest || seen[i.Region] {
			continue
		}
		seen[i.Region] = true
		if text := unfit(i, q); text != "" {
			blame("%s", text)
			continue
		}
		chosen[i.Region] = i
	}
	var reuse []Image
	for _, region := range q.Targets {
		i, ok := chosen[region]
		if !ok {
			if len(chosen) > 0 {
				blame("there is an image with the same inputs, but not in %s", region)
			}
			reuse = nil
			break
		}
		reuse = append(reuse, i)
	}
	switch {
	case len(reuse) > 0:
		return Answer{Reuse: reuse}
	case why != "":
		return Answer{Reason: why}
	}
	return changed(all, q.Inputs)
}

// unfit returns why an image with the same inputs is not reused; empty if it can be.
func unfit(i Image, q Question) string {
	for _, r := range rejected {
		if _, ok := i.Tags[r.tag]; ok {
			return fmt.Sprintf("%s has the same inputs, but it %s", i.ID, r.why)
		}
	}
	if i.Flaw != "" {
		return fmt.Sprintf("%s has the same inputs, but %s", i.ID, i.Flaw)
	}
	if age := q.Now.Sub(i.Created); q.MaxAge > 0 && age > q.MaxAge {
		return fmt.Sprintf("%s has the same inputs, but it is %s old, and max_age is %s", i.ID, Span(age), Span(q.MaxAge))
	}
	return ""
}

// Span formats a duration in words: in days if it has any, and otherwise in hours and
// minutes.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d >= time.Minute:
		return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
	}
	return d.Truncate(time.Second).String()
}

// changed compares the inputs with those of the newest image of the same build or, if
// there is none, with those of the newest image.
func changed(all []Image, now []Input) Answer {
	var since *Image
	var old record
	for i := range all {
		r, err := read(all[i].Tags)
		if err != nil {
			continue
		}
		if since == nil || r.has(now, BuildInput) && !old.has(now, BuildInput) {
			since, old = &all[i], r
		}
	}
	if since == nil {
		return Answer{Reason: "the inputs have changed, and the images of this name do not tell which"}
	}
	a := Answer{Since: since.ID, Changes: old.changes(now)}
	a.Reason = "the inputs have changed since " + since.ID
	return a
}

// BuildInput is the name of the input that identifies the build of the template.
const BuildInput = "build"
