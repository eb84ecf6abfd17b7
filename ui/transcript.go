package ui

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"bake/builder"
	"bake/step"
)

// transcript turns events into what Packer's users are used to read. The plain
// and the machine-readable display write the same transcript in two ways.
type transcript struct {
	timestamps bool // prefix the lines of builds with their time
	steps      bool // say which steps start, and how far long ones are

	builds    []*outcome
	failed    map[string]string    // build -> path of the step that failed last
	announced map[string]time.Time // build and step -> when its progress was last told
}

// outcome is what has become of one build.
type outcome struct {
	name      string
	err       error
	artifacts []*builder.Artifact
	ended     bool
}

// entry is one thing to write: a text for people, or a record for programs.
type entry struct {
	level  level
	build  string // whose colour the text has; empty for the run itself
	text   string // one or more lines
	record []string
}

type level string

const (
	say     level = "say"
	failure level = "error"
)

// quiet is how long the plain display lets a step with progress go on without a word.
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

// entries returns what e adds to the transcript.
func (t *transcript) entries(e step.Event) []entry {
	if t.failed == nil {
		t.failed, t.announced = map[string]string{}, map[string]time.Time{}
	}
	switch e.Kind {
	case step.RunStarted:
		for name := range strings.Lines(e.Text) {
			t.build(strings.TrimSpace(name))
		}
	case step.Say, step.Output:
		return t.lines(e, say, e.Text)
	case step.ErrOutput:
		return t.lines(e, failure, e.Text)
	case step.Warning:
		return t.lines(e, say, "Warning: "+e.Text)
	case step.StepStarted:
		delete(t.failed, e.Build)
		if t.steps {
			return t.lines(e, say, title(innermost(e.Step)))
		}
	case step.StepFailed:
		// The steps around a failed one fail with it, for the same reason.
		inner := t.failed[e.Build]
		t.failed[e.Build] = e.Step
		if !strings.HasPrefix(inner, e.Step+within) {
			return t.lines(e, failure, fmt.Sprintf("%s: %v", title(innermost(e.Step)), e.Error))
		}
	case step.Progressed:
		return t.progress(e)
	case step.ResourceLeft:
		return t.lines(e, failure, "Left behind: "+e.Resource.String())
	case step.ArtifactMade:
		o := t.build(e.Build)
		o.artifacts = append(o.artifacts, artifact(e))
	case step.BuildFinished:
		t.build(e.Build).ended = true
		return []entry{{level: say, build: e.Build, text: fmt.Sprintf("Build '%s' finished after %s.", e.Build, Words(e.Elapsed))}}
	case step.BuildFailed:
		o := t.build(e.Build)
		o.ended, o.err = true, e.Error
		return []entry{{level: failure, build: e.Build, text: fmt.Sprintf("Build '%s' errored after %s: %v", e.Build, Words(e.Elapsed), e.Error)}}
	case step.RunFinished:
		return t.summary(e)
	}
	return nil
}

// lines prefixes every line of text with the build that says it.
func (t *transcript) lines(e step.Event, l level, text string) []entry {
	if e.Build == "" {
		return []entry{{level: l, text: strings.TrimRight(text, " \t\r\n")}}
	}
	prefix := "==> " + e.Build
	if e.Source != "" {
		prefix += " (" + e.Source + ")"
	}
	prefix += ": "
	if t.timestamps {
		prefix = e.Time.Format(time.RFC3339) + ": " + prefix
	}
	var out []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\r\n"), "\n") {
		out = append(out, strings.TrimRight(prefix+line, " \t\r"))
	}
	return []entry{{level: l, build: e.Build, text: strings.Join(out, "\n")}}
}

func (t *transcript) progress(e step.Event) []entry {
	key := e.Build + within + e.Step
	told, ok := t.announced[key]
	if !ok {
		t.announced[key] = e.Time
	}
	if !ok || !t.steps || e.Time.Sub(told) < quiet {
		return nil
	}
	t.announced[key] = e.Time
	text := fmt.Sprintf("%s: %s", title(innermost(e.Step)), amount(*e.Progress))
	if f, ok := fraction(*e.Progress); ok && e.Progress.Unit != "%" {
		text += fmt.Sprintf(" (%d%%)", int(100*f))
	}
	return t.lines(e, say, text)
}

// summary tells what has become of all builds.
func (t *transcript) summary(e step.Event) []entry {
	out := []entry{{level: say, text: "\n==> Wait completed after " + Words(e.Elapsed)}}
	if e.Error != nil {
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
					entry{level: failure, build: o.name, text: fmt.Sprintf("--> %s: %v", o.name, o.err)})
			}
		}
	}
	if parts > 0 {
		out = append(out, entry{level: say, text: "\n==> Builds with errors have made these artifacts, which are kept:"})
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

// entries lists the artifacts of a build.
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
