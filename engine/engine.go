// Package engine runs the builds of a template: it selects builds, creates their components, and
// ensures that every resource they create is either kept or destroyed.
package engine

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/component"
	"bake/config"
	"bake/config/lang"
	"bake/datasource"
	"bake/internal/limits"
	"bake/postprocessor"
	"bake/provisioner"
	"bake/step"
)

// Components are the components available to templates.
type Components struct {
	Builders       component.Finder[builder.Builder]
	Provisioners   component.Finder[provisioner.Provisioner]
	PostProcessors component.Finder[postprocessor.PostProcessor]
	DataSources    component.Finder[datasource.DataSource] // for code that reads the template
}

// Options define which builds to run, and how.
type Options struct {
	Only   []string // globs over full build names; empty means all
	Except []string // globs over full build names, and over names or types of post-processors

	// Builds are the builds that Run selects from. Nil means all builds of the template.
	Builds map[*config.Build]bool

	Parallel int             // maximum number of concurrent builds; 0 or less means no limit
	OnError  OnError         // empty means Cleanup
	FailFast bool            // cancel the other builds, with a [*FailFastError], when one has failed
	Run      step.Invocation // Run.Debug makes builds run one at a time
	Ledger   step.Ledger
	Journal  step.Journal // results from which a later run can resume; nil means none
	Resume   bool         // resume the builds that Journal records; the others are errors

	// Destroyers delete the resources of resumed builds. They are available before the builders of
	// those builds register theirs.
	Destroyers step.Destroyers

	// From is the name, type or number of the provisioner from which builds resume, on their
	// existing machines, if their provisioning had not finished. If it is empty, such builds are
	// errors.
	From string

	// Boundary makes builds run in stages: each build runs up to the next boundary from which it
	// can resume, and Boundary is called with it. Resume runs the next stage. A build that cannot
	// be divided has one stage. If Boundary is nil, builds run to completion.
	Boundary func(step.Boundary)

	// Key returns the private key of the machine that a build has left running, in PEM, or "". It
	// may be nil.
	Key   func(build string) string
	Start time.Time     // of the run, for {{timestamp}} and similar functions
	Grace time.Duration // time limit for the teardown of a build

	// Emit gets every event, without secrets. It is called by one goroutine at a time.
	Emit func(step.Event)

	// Ask asks the user what to do after a failed step if OnError is Ask. It is called for one
	// question at a time.
	Ask func(ctx context.Context, build, step string, err error) Answer

	// Pause is called before each step when Run.Debug is set. It returns when the user
	// wants to continue, or with the cause of ctx.
	Pause func(ctx context.Context, build, step string) error

	// Ready is called before the first provisioner of a build, or before the pipeline's checks on
	// the machine if there are no provisioners. It may be nil.
	Ready func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// AwaitFirstBoot is called after the last provisioner of a build and before the pipeline's
	// checks on the machine. It also implements [builder.Hooks.AwaitFirstBoot]. It may be nil.
	AwaitFirstBoot func(ctx context.Context, s *step.Scope, m builder.Machine) error

	// Pipelines are the pipelines of builds, keyed by builder.
	Pipelines map[*config.Component]*Pipeline

	// Verified is called by the check with the outline of each builder whose images a pipeline
	// verifies or quarantines. It may be nil.
	Verified func(b builder.Builder, p *Pipeline)

	// Cache holds snapshots of provisioned machines. Builds start from them and add their own. Nil
	// means no cache.
	Cache Cache

	// PlanOnly makes Run only determine, with the builds' pipelines, which builds are needed.
	PlanOnly bool

	// Uploads are the rules for files that provisioners upload permanently.
	Uploads []*builder.Upload

	// Login describes how to log in to the machine m of a build; "" if unknown. It may be nil.
	Login func(ctx context.Context, build string, m builder.Machine) string

	// Secret is called with every value that must not be shown, in addition to the
	// template's Secrets. It may be nil.
	Secret func(string)
}

// OnError says what to do with a build's resources after a failed step.
type OnError string

// The values of -on-error.
const (
	Cleanup               OnError = "cleanup"                 // destroyed
	Abort                 OnError = "abort"                   // left, and listed
	Ask                   OnError = "ask"                     // as the user decides
	RunCleanupProvisioner OnError = "run-cleanup-provisioner" // left, after the error-cleanup-provisioner has run
	Keep                  OnError = "keep"                    // left, and listed, so that the run can be resumed
)

// FailFastError is the cause of a build's cancellation after another build has failed.
type FailFastError struct {
	Build string // the build that failed
	Err   error
}

func (e *FailFastError) Error() string { return fmt.Sprintf("cancelled, because %s failed", e.Build) }

// Answer is the user's answer about a failed step.
type Answer int

// The answers.
const (
	AnswerCleanUp Answer = iota
	AnswerAbort
	AnswerRetry
)

// Result is the result of a run.
type Result struct {
	Builds []BuildResult // in template order
}

// BuildResult is the result of a build. It contains no secrets.
type BuildResult struct {
	Name      string
	Elapsed   time.Duration
	Place     string // "file:line" of the provisioner or post-processor that failed; empty if none did
	Err       error  // nil if it succeeded; the cause of the context if it was cancelled
	Artifacts []*builder.Artifact
	Left      []step.Resource // created by the build, but neither kept nor destroyed

	Unfinished bool // the build runs in stages, and this was not the last one

	Reused bool // nothing was built: the artifacts are from earlier builds

	Failure Failure // the phase in which the build failed

	// LeftMachine reports that the build has failed and its machine was left running, as requested.
	LeftMachine bool
}

// Failure is the phase in which a build failed.
type Failure string

// The failures with a name; others are empty.
const (
	Refused      Failure = "refused" // the cloud refused a request before a machine or an image was made
	Provisioning Failure = "provisioning"
	GateClosed   Failure = "gate closed"  // the machine or the image does not meet the requirements
	Distributing Failure = "distributing" // an image was made, but not completely distributed
)

// Check decodes every component of the selected builds, without running any. The diagnostics
// contain no secrets.
func Check(ctx context.Context, t *config.Template, c Components, o Options) hcl.Diagnostics {
	builds, diags := choose(t, o)
	if diags.HasErrors() {
		return t.Secrets().Diagnostics(diags)
	}
	ck := newChecker(t, c, o)
	var found hcl.Diagnostics
	if err := limits.Run(ctx, func() {
		for _, b := range builds {
			found = lang.AppendNew(found, ck.build(ctx, b))
		}
	}); err != nil {
		return append(diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "Cannot evaluate the template", Detail: fmt.Sprintf("The options of components: %s.", err)})
	}
	return t.Secrets().Diagnostics(config.Once(slices.Concat(diags, found, t.WeakSecrets())))
}

// Run runs the selected builds. The diagnostics concern the template: the affected builds are not
// run, but the others are. Errors of running builds are in the result. When ctx is cancelled,
// builds stop and are torn down. When stop is cancelled, teardown ends too, and the results list
// what is left.
func Run(ctx, stop context.Context, t *config.Template, c Components, o Options) (Result, hcl.Diagnostics) {
	builds, diags := choose(t, o)
	if diags.HasErrors() {
		return Result{}, t.Secrets().Diagnostics(diags)
	}
	ck := newChecker(t, c, o)
	var ready []*config.Build
	for _, b := range builds {
		more := ck.build(ctx, b)
		if p := ck.pipeline(b); !more.HasErrors() && p != nil && p.Inputs != nil {
			more = append(more, p.Inputs(ctx, *ck.materials(b))...)
		}
		diags = lang.AppendNew(diags, more)
		if !more.HasErrors() {
			ready = append(ready, b)
		}
	}
	diags = t.Secrets().Diagnostics(config.Once(append(diags, t.WeakSecrets()...)))
	if len(ready) == 0 {
		return Result{}, diags
	}
	r := &runner{maker: ck.maker, stop: stop}
	return r.run(ctx, ready), diags
}
