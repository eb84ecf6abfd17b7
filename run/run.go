// Package run is bake as a library: one invocation of bake build, or of bake sweep, with
// its ledger, log, events and teardown. It does not read flags or the environment, does
// not prompt, and writes only to its state directory; callers provide everything else.
package run

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/builder/amazon/images"
	"bake/config"
	"bake/engine"
	"bake/golden/bakefile"
	"bake/golden/pipeline"
	"bake/internal/hostpath"
	"bake/internal/login"
	"bake/step"
)

// State is the directory with the persistent state of runs.
type State string

// Ledgers returns the directory of the ledgers of runs that own something.
func (s State) Ledgers() string { return filepath.Join(string(s), "ledgers") }

// Runs returns the directory of the logs of runs, and of their reports and logins.
func (s State) Runs() string { return filepath.Join(string(s), "runs") }

// ShortID returns a prefix of a run's id that is long enough for people to distinguish
// runs.
func ShortID(id string) string { return id[:min(8, len(id))] }

// Log returns the path of the log of a run.
func (s State) Log(run string) string { return filepath.Join(s.Runs(), run+".events.jsonl") }

// Reports returns the directory of the reports of a run whose template names no other place.
// The directory is below [State.Runs] for any value of run, which may come from the tag of a
// foreign image.
func (s State) Reports(run string) string {
	name := strings.NewReplacer("/", "_", `\`, "_", "..", "_").Replace(run)
	return filepath.Join(s.Runs(), name+".reports")
}

// keys returns the directory of the keys of a run's machines.
func (s State) keys(run string) string { return login.Dir(s.Runs(), run) }

// loginsKept is how long the logins of a run that left its machines running on request
// are kept for bake ssh.
const loginsKept = 7 * 24 * time.Hour

// forgetLogins deletes the keys of runs that no longer own anything and ended some time
// ago.
func (s State) forgetLogins(now time.Time) {
	s.forgetJournals(now)
	names, err := fs.Glob(os.DirFS(s.Runs()), filepath.Base(s.keys("*")))
	if err != nil {
		return
	}
	for _, name := range names {
		dir := filepath.Join(s.Runs(), name)
		info, err := os.Stat(dir)
		if err != nil || now.Sub(info.ModTime()) < loginsKept {
			continue
		}
		run := login.RunOf(dir)
		if _, err := os.Stat(s.Ledger(run)); errors.Is(err, fs.ErrNotExist) {
			os.RemoveAll(dir)
		}
	}
}

// Template defines what to run: template files with the values of their variables, and a
// selection of their builds. Data sources are those of the components.
type Template struct {
	config.Options
	Only   []string // globs over full build names; empty means all
	Except []string // globs over full build names, and over names or types of post-processors

	images []config.ImageOf // all images, if Instance is set
}

// Diagnosis holds the errors and warnings about a template.
type Diagnosis struct {
	Diags hcl.Diagnostics
	Files map[string]*hcl.File // files that Diags refers to
}

// TemplateError holds the errors of a template. Nothing was run.
type TemplateError Diagnosis

func (e *TemplateError) Error() string {
	return strings.TrimPrefix(e.Diags.Error(), "<nil>: ") // hcl's prefix for a diagnostic without a range
}

// Check reads a template and decodes everything that it would run. Errors are returned as
// a *TemplateError; without an error, the diagnosis holds only warnings.
func Check(ctx context.Context, t Template, all engine.Components) (Diagnosis, error) {
	return check(ctx, t, all, step.Invocation{Env: t.Env, Start: t.Now, Version: config.LanguageVersion}, nil)
}

// check is Check; verified is as in [engine.Options].
func check(ctx context.Context, t Template, all engine.Components, run step.Invocation, verified func(builder.Builder, *engine.Pipeline)) (Diagnosis, error) {
	if t.Instance != nil {
		found, err := checkOne(ctx, t, all, run, verified)
		return found.Diagnosis, err
	}
	images, diags := config.ReadImages(ctx, t.Options)
	switch {
	case diags.HasErrors():
		found := Diagnosis{diags, images.Files}
		return found, (*TemplateError)(&found)
	case !images.Apart:
		found, err := checkOne(ctx, t, all, run, verified)
		return found.Diagnosis, err
	}
	joined := Diagnosis{Files: map[string]*hcl.File{}}
	t.images = images.All
	for _, i := range append(slices.Clone(images.All), config.ImageOf{}) {
		t.Instance = &i.Instance
		found, err := checkOne(ctx, t, all, run, verified)
		if _, wrong := errors.AsType[*TemplateError](err); err != nil && !wrong {
			return joined, err
		}
		joined.Diags = config.Merge(joined.Diags, found.Diags)
		maps.Copy(joined.Files, found.Files)
	}
	if joined.Diags.HasErrors() {
		return joined, (*TemplateError)(&joined)
	}
	return joined, nil
}

// checkedOne is the result of checking a template, and which of its builds will run.
type checkedOne struct {
	Diagnosis
	builds []string
	made   int                      // number of builds that make the image for which the template is loaded
	redact func(text string) string // masks the template's secrets in a text
}

// among returns the builds that the template was loaded for. Nil means all of them.
func (t Template) among(ctx context.Context, loaded *config.Template, settings *bakefile.Settings) map[*config.Build]bool {
	switch {
	case t.Instance == nil:
		return nil
	case t.Instance.Image == "":
		return bakefile.Unnamed(ctx, loaded, t.images)
	}
	builds := map[*config.Build]bool{}
	for _, p := range settings.Images() {
		builds[p.Build] = true
	}
	return builds
}

// checkOne is check for a template that is loaded once: for one image or for all.
func checkOne(ctx context.Context, t Template, all engine.Components, run step.Invocation, verified func(builder.Builder, *engine.Pipeline)) (checkedOne, error) {
	var out checkedOne
	t.DataSources = all.DataSources
	template, diags := config.Load(ctx, t.Options)
	if !diags.HasErrors() || len(template.Builds) > 0 {
		settings, more := bakefile.Check(ctx, template)
		pipelines, wrong := pipeline.Of(settings, pipeline.Options{
			Template: template, Distributes: images.Distributes, Now: func() time.Time { return cmp.Or(run.Start, time.Now()) },
		})
		among := t.among(ctx, template, settings)
		out.made = len(among)
		builds, _ := engine.Select(template, engine.Options{Only: t.Only, Except: t.Except, Builds: among})
		for _, b := range builds {
			out.builds = append(out.builds, b.Name)
		}
		diags = config.Merge(diags, engine.Check(ctx, template, all, engine.Options{
			Only: t.Only, Except: t.Except, Builds: among, Run: run, Start: run.Start, Pipelines: pipelines, Verified: verified,
		}))
		diags = config.Merge(config.Merge(diags, more), wrong)
	}
	out.Diagnosis, out.redact = Diagnosis{diags, template.Files()}, template.Secrets().Redact
	switch {
	case diags.HasErrors() && ctx.Err() != nil: // the errors come from the cancellation
		return out, context.Cause(ctx)
	case diags.HasErrors():
		return out, (*TemplateError)(&out.Diagnosis)
	}
	return out, nil
}

// stateFile returns the content of a file in the state directory.
func stateFile(path string) ([]byte, error) {
	return hostpath.ReadRegular(os.OpenFile, path, maxStateFile)
}

// maxStateFile is the size limit, in bytes, of files in the state directory that are read
// whole. It is far larger than any of them.
const maxStateFile = 64 << 20

// teardownGrace is the time limit for the teardown of one build. Terminating an EC2 instance
// takes a minute or two, and deleting an unfinished copy of an image a few more.
const teardownGrace = 20 * time.Minute

// hurry is how long a build may take to stop when the run must stop immediately.
const hurry = 2 * time.Second
