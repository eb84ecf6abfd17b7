package ui

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/internal/prose"
	"bake/step"
)

// transcript converts events to messages in the style of Packer. The plain and the machine-readable
// display write the same transcript in different formats.
type transcript struct {
	timestamps bool   // prefix the builds' lines with their time
	steps      bool   // report the start of steps and the progress of long ones
	log        string // path of the run's log

	builds    []*outcome
	failed    map[string]string              // build -> path of the step that failed last
	unshown   map[string][]reason            // build -> reasons of failed steps that have not been shown yet
	tails     map[string]map[string][]string // build -> path of step -> last lines of its output
	announced map[string]progressReport      // build and step -> last reported progress
	left      bool                           // a resource could not be deleted
}

// reason is the reason why a step failed.
type reason struct{ path, text string }

// progressReport records when progress was first reported, and the time and text of the last report.
type progressReport struct {
	first, at time.Time
	text      string
}

// outcome is the outcome of a build.
type outcome struct {
	name      string
	err       error
	step      string // component that failed; empty if it is not from the template
	place     string // location of its block
	artifacts []*builder.Artifact
	ended     bool
}

// entry is one message: text for people, or a record for programs.
type entry struct {
	level  level
	build  string // determines the colour; empty for the run itself
	text   string // one or more lines
	record []string
}

type level string

const (
	say     level = "say"
	failure level = "error"
)

// quiet is the longest time for which the plain display shows nothing about a step with progress.
const quiet = 10 * time.Second

func (t *transcript) build(name string) *outcome {
	for _, o := range t.builds {
		if o.name == name {
			return o
		}
	}
	o := &outcome{name: name}
	t.builds = append(t.builds, o)
	return o
}

// entries returns the messages for e.
func (t *transcript) entries(e step.Event) []entry {
	if t.failed == nil {
		t.failed, t.announced = map[string]string{}, map[string]progressReport{}
		t.unshown, t.tails = map[string][]reason{}, map[string]map[string][]string{}
	}
	switch e.Kind {
	case step.RunStarted:
		for name := range strings.Lines(e.Text) {
			t.build(strings.TrimSpace(name))
		}
	case step.Say:
		return t.lines(e, say, e.Text)
	case step.Output:
		t.keepTail(e)
		return t.lines(e, say, e.Text)
	case step.ErrOutput:
		t.keepTail(e)
		return t.lines(e, failure, e.Text)
	case step.Warning:
		t.takeReasons(e, func(r reason) bool { return strings.Contains(e.Text, r.text) })
		return t.lines(e, say, "Warning: "+e.Text)
	case step.StepStarted:
		delete(t.failed, e.Build)
		delete(t.tails[e.Build], e.Step)
		t.takeReasons(e, func(r reason) bool { return r.path == e.Step }) // the step is retried
		if t.steps {
			return t.lines(e, say, prose.Capital(innermost(e.Step)))
		}
	case step.StepFailed:
		// The outer steps fail for the same reason.
		inner := t.failed[e.Build]
		t.failed[e.Build] = e.Step
		if !strings.HasPrefix(inner, e.Step+within) {
			// The reason is shown at the end of the build.
			t.unshown[e.Build] = append(t.unshown[e.Build], reason{e.Step, e.Error.Error()})
			return t.lines(e, failure, prose.Capital(innermost(e.Step))+" failed")
		}
	case step.StepFinished:
		delete(t.tails[e.Build], e.Step)
		// Failed steps inside a successful one do not fail the build: show their reasons now.
		return t.reasons(e, t.takeReasons(e, func(r reason) bool { return strings.HasPrefix(r.path, e.Step+within) }))
	case step.Progressed:
		return t.progress(e)
	case step.ResourceLeft:
		t.left = true
		return t.lines(e, failure, "Left behind: "+e.Resource.String())
	case step.ArtifactMade:
		o := t.build(e.Build)
		o.artifacts = append(o.artifacts, Artifact(e))
	case step.BuildFinished:
		t.build(e.Build).ended = true
		return append(t.reasons(e, t.takeReasons(e, func(reason) bool { return true })),
			entry{level: say, build: e.Build, text: t.stamp(e) + fmt.Sprintf("Build '%s' finished after %s.", e.Build, Words(e.Elapsed))})
	case step.BuildFailed:
		return t.buildFailed(e)
	case step.RunFinished:
		return t.summary(e)
	}
	return nil
}

// buildFailed reports that a build has failed, with the reasons that have not been shown yet.
func (t *transcript) buildFailed(e step.Event) []entry {
	o := t.build(e.Build)
	o.ended, o.err, o.step, o.place = true, e.Error, e.Step, e.Place
	text := t.stamp(e) + fmt.Sprintf("Build '%s' errored after %s", e.Build, Words(e.Elapsed))
	if slices.ContainsFunc(t.builds, func(o *outcome) bool { return !o.ended }) {
		text += ": " + reasonText(e.Error) // the end of the run may be far away
	} else {
		text += "."
	}
	t.takeReasons(e, func(r reason) bool { return strings.Contains(e.Error.Error(), r.text) })
	return append(t.reasons(e, t.takeReasons(e, func(reason) bool { return true })), entry{level: failure, build: e.Build, text: text})
}

// lines prefixes every line of text with the name of its build.
func (t *transcript) lines(e step.Event, l level, text string) []entry {
	if e.Build == "" {
		return []entry{{level: l, text: strings.TrimRight(text, " \t\r\n")}}
	}
	prefix := "==> " + e.Build
	if e.Source != "" {
		prefix += " (" + e.Source + ")"
	}
	prefix += ": "
	prefix = t.stamp(e) + prefix
	var out []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		out = append(out, strings.TrimRight(prefix+line, " \t\r"))
	}
	return []entry{{level: l, build: e.Build, text: strings.Join(out, "\n")}}
}

// stamp returns the time prefix of a build's lines.
func (t *transcript) stamp(e step.Event) string {
	if !t.timestamps {
		return ""
	}
	return e.Time.Format(time.RFC3339) + ": "
}

// takeReasons removes from the list the reasons of e's build that which accepts, and returns them.
func (t *transcript) takeReasons(e step.Event, which func(reason) bool) (chosen []reason) {
	t.unshown[e.Build] = slices.DeleteFunc(t.unshown[e.Build], func(r reason) bool {
		if !which(r) {
			return false
		}
		chosen = append(chosen, r)
		return true
	})
	return chosen
}

func (t *transcript) reasons(e step.Event, reasons []reason) (out []entry) {
	for _, r := range reasons {
		out = append(out, t.lines(e, failure, prose.Capital(innermost(r.path))+": "+r.text)...)
	}
	return out
}

// The maximum number and width of a failed step's output lines that are shown again.
const (
	tailLines = 20
	tailWidth = 500
)

// keepTail records the last lines of output of e's step.
func (t *transcript) keepTail(e step.Event) {
	steps := t.tails[e.Build]
	if steps == nil {
		steps = map[string][]string{}
		t.tails[e.Build] = steps
	}
	for line := range strings.SplitSeq(strings.TrimRight(e.Text, "\r\n"), "\n") {
		steps[e.Step] = append(steps[e.Step], truncate(strip(strings.TrimRight(line, " \t\r")), tailWidth, "…"))
	}
	steps[e.Step] = slices.Clone(steps[e.Step][max(0, len(steps[e.Step])-tailLines):])
}

// reasonText returns the text of err without source snippets, which are shown at the end.
func reasonText(err error) string {
	text := err.Error()
	var blamed hcl.Diagnostics
	if errors.As(err, &blamed) {
		for _, d := range blamed {
			text = strings.ReplaceAll(text, d.Error(), d.Summary)
		}
	}
	return strings.ReplaceAll(text, "\n", "\n    ")
}

// failure describes why a build failed, where, and its last output.
func (t *transcript) failure(o *outcome) string {
	var b strings.Builder
	fmt.Fprintf(&b, "--> %s: %s", o.name, reasonText(o.err))
	if o.place != "" {
		fmt.Fprintf(&b, "\n    Failed at %s: %s", o.place, innermost(o.step))
	}
	var tail []string
	for _, path := range slices.Sorted(maps.Keys(t.tails[o.name])) {
		if path == o.step || strings.HasPrefix(path, o.step+within) {
			tail = append(tail, t.tails[o.name][path]...)
		}
	}
	if o.step != "" && len(tail) > 0 {
		tail = tail[max(0, len(tail)-tailLines):]
		b.WriteString("\n    The end of its output:")
		for _, line := range tail {
			b.WriteString(strings.TrimRight("\n    | "+line, " "))
		}
	}
	return b.String()
}

func (t *transcript) progress(e step.Event) []entry {
	key := e.Build + within + e.Step
	last, ok := t.announced[key]
	if !ok {
		last = progressReport{first: e.Time, at: e.Time}
		t.announced[key] = last
	}
	if !ok || !t.steps || e.Time.Sub(last.at) < quiet {
		return nil
	}
	text := fmt.Sprintf("%s: %s", prose.Capital(innermost(e.Step)), amount(*e.Progress))
	if f, ok := fraction(*e.Progress); ok && e.Progress.Unit != "%" {
		text += fmt.Sprintf(" (%d%%)", int(100*f))
	}
	shown := text
	if text == last.text {
		shown += fmt.Sprintf(", still running after %s", clock(e.Time.Sub(last.first)))
	}
	t.announced[key] = progressReport{last.first, e.Time, text}
	return t.lines(e, say, shown)
}

// summary describes the outcome of all builds.
func (t *transcript) summary(e step.Event) []entry {
	out := []entry{{level: say, text: "\n==> Wait completed after " + Words(e.Elapsed)}}
	if e.Error != nil {
		for _, o := range t.builds {
			if o.err != nil && !strings.HasSuffix(o.err.Error(), e.Error.Error()) { // it failed for another reason
				out = append(out, entry{level: failure, build: o.name, text: t.failure(o)})
			}
		}
		if t.left {
			return append(out, entry{level: say, text: "\nCancelled builds after being interrupted; not everything they created could be deleted."})
		}
		return append(out, entry{level: say, text: "\nCleanly cancelled builds after being interrupted."})
	}
	failures, made, parts := 0, 0, 0
	for _, o := range t.builds {
		if o.err != nil {
			failures++
			parts += len(o.artifacts)
		} else if o.ended {
			made += max(1, len(o.artifacts))
		}
	}
	if failures > 0 {
		out = append(out,
			entry{record: []string{"", "error-count", strconv.Itoa(failures)}},
			entry{level: failure, text: "\n==> Some builds didn't complete successfully and had errors:"})
		for _, o := range t.builds {
			if o.err != nil {
				out = append(out,
					entry{record: []string{o.name, "error", o.err.Error()}},
					entry{level: failure, build: o.name, text: t.failure(o)})
			}
		}
		if t.log != "" {
			out = append(out, entry{level: say, text: "The log of the run: " + t.log})
		}
	}
	if parts > 0 {
		out = append(out, entry{level: say, text: "\n==> Builds with errors created these artifacts, which are kept:"})
		for _, o := range t.builds {
			if o.err != nil && len(o.artifacts) > 0 {
				out = append(out, o.entries()...)
			}
		}
	}
	switch {
	case made == 0 && parts > 0:
		return out
	case made == 0:
		return append(out, entry{level: say, text: "\n==> Builds finished but no artifacts were created."})
	}
	out = append(out, entry{level: say, text: "\n==> Builds finished. The artifacts of successful builds are:"})
	for _, o := range t.builds {
		if o.ended && o.err == nil {
			out = append(out, o.entries()...)
		}
	}
	return out
}

// entries returns a message for each artifact of a build.
func (o *outcome) entries() []entry {
	artifacts := o.artifacts
	if len(artifacts) == 0 {
		artifacts = []*builder.Artifact{nil}
	}
	out := []entry{{record: []string{o.name, "artifact-count", strconv.Itoa(len(artifacts))}}}
	for i, a := range artifacts {
		record := func(data ...string) {
			out = append(out, entry{record: slices.Concat([]string{o.name, "artifact", strconv.Itoa(i)}, data)})
		}
		text := "<nothing>"
		if a == nil {
			record("nil")
		} else {
			text = strings.TrimRight(a.Text, "\n")
			record("builder-id", a.BuilderID)
			record("id", a.ID)
			record("string", a.Text)
			record("files-count", strconv.Itoa(len(a.Files)))
			for j, f := range a.Files {
				record("file", strconv.Itoa(j), f)
			}
		}
		record("end")
		out = append(out, entry{level: say, build: o.name, text: fmt.Sprintf("--> %s: %s", o.name, text)})
	}
	return out
}
