// Package pipeline carries out the image blocks of bake files: checks and the search for
// leftovers on a build's machine, and the verification and distribution of its image.
package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/config"
	"bake/config/lang"
	"bake/engine"
	"bake/golden/bakefile"
	"bake/golden/findings"
	"bake/golden/leftovers"
	"bake/golden/reports"
	"bake/golden/verify"
	"bake/step"
)

// Options are the common settings of a run's pipelines.
type Options struct {
	Template *config.Template
	Place    string // location of the run in names of reports, if other runs make the same images elsewhere
	Reports  reports.Store
	Version  string // of bake
	Now      func() time.Time

	Key       string            // key for digests of secrets: the value of [InputsKey]
	Parents   map[string]string // digests of the inputs of the images that this one refers to, by name
	ReuseOnly bool              // if a build is needed, that is an error
	PlanOnly  bool              // nothing is built or distributed
	Planned   func(Planned)     // called with each decision, by several goroutines; may be nil

	// Retire applies a retention to older images after a new one was made.
	Retire func(ctx context.Context, s *step.Scope, made *builder.Artifact, r builder.Retention) error

	// OpenDistributor opens the distributor for the images of builders for which Distributes is true.
	// Both are nil if nothing is run.
	OpenDistributor OpenDistributor
	Distributes     func(b builder.Builder) bool

	// Earlier returns the location of the reports of an earlier run. Nil: they are in
	// Reports too.
	Earlier func(run string) reports.Store

	// Signer opens a key to sign with, given by the path of a file or the URI of a key in AWS
	// KMS. Nil: nothing will be signed, and keys are not checked.
	Signer func(key string) (crypto.Signer, error)
}

// Of returns the pipelines of the images in settings, for the builders of their builds.
// The diagnostics are about the check files and waivers that the images name.
func Of(settings *bakefile.Settings, o Options) (all map[*config.Component]*engine.Pipeline, diags hcl.Diagnostics) {
	all = map[*config.Component]*engine.Pipeline{}
	for _, image := range settings.Images() {
		p := &pipeline{Options: o, image: image}
		diags = append(lang.AppendNew(diags, p.load()), p.openKey()...)
		diags = lang.AppendNew(diags, p.tooShort())
		e := &engine.Pipeline{Inputs: p.inputs, Reuse: p.reuse, Provisioned: p.provisioned, ImageTags: p.imageTags}
		e.Reports, _ = settings.Reports()
		if o := image.Image.Provenance; o != nil {
			e.ImageCreated, e.At, e.Key = p.made, image.Src.Range(&o.Key), o.Key
		}
		for i := range image.Image.Verify {
			e.ImageCreated, e.At = p.made, image.Src.Range(&image.Image.Verify[0].Name)
			e.Quarantines = e.Quarantines || image.Image.Verify[i].OnFailure == bakefile.FailureAction(builder.Quarantine)
			e.Boots = append(e.Boots, p.plan(i, nil).Boots()...)
			e.Provisioners = append(e.Provisioners, image.Provisioners[i]...)
		}
		if image.Image.Retention != nil {
			e.Done = p.retain
		}
		if p.distributes() {
			e.Prepare, e.Distribute, e.Release, e.CheckDistributable = p.prepare, p.distribute, p.release, p.checkDistributable
			e.To, e.Parameters = image.Image.Distribution(), p.parameters()
			if e.At == nil {
				e.At = &image.Block.DefRange
			}
		}
		all[image.Build.Builder] = e
	}
	return all, diags
}

// pipeline is the pipeline of one build.
type pipeline struct {
	Options
	image  bakefile.Pipeline
	before []suite // of each checks block
	after  []suite // of each verify block

	scanners []scanner // of each scan block

	mu       sync.Mutex
	identity *verify.Identity    // of the machine of the build, once it is known
	out      builder.Distributor // nil: not opened yet
	placed   []builder.Placement // location of the image
	tags     map[string]string   // tags of the image; nil: not recalled yet
	passes   map[string]bool     // names of the checks that the image has passed

	static *static // the inputs; nil: they were not determined

	kept map[string]string // digests of documents by name; nil: not recalled yet

	key crypto.Signer // of attestations
}

// identityIs is the key under which the identity of the machine is recorded.
const identityIs = "identity of the machine"

// provisioned looks at the machine of the build before it becomes an image.
func (p *pipeline) provisioned(ctx context.Context, s *step.Scope, m builder.Machine) error {
	s = s.As("bake")
	if len(p.image.Image.Verify) > 0 {
		id, err := step.Do(ctx, s, "remember whose machine this is", func(ctx context.Context) (verify.Identity, error) {
			within, cancel := context.WithTimeoutCause(ctx, learnLimit, fmt.Errorf("the machine has not answered within %s", learnLimit))
			defer cancel()
			id, err := verify.Learn(within, m)
			return id, closed(ctx, err)
		})
		if err != nil {
			return err
		}
		step.Record(s, identityIs, id)
		p.mu.Lock()
		p.identity = &id
		p.mu.Unlock()
	}
	for i, c := range p.image.Image.Checks {
		if err := p.check(ctx, s, m, "checks."+c.Name, s.Build, p.before[i]); err != nil {
			return err
		}
		p.passed(s, "checks."+c.Name)
	}
	if err := p.sbom(ctx, s, m); err != nil {
		return err
	}
	if err := p.scan(ctx, s, m); err != nil {
		return err
	}
	if err := p.leftovers(ctx, s, m); err != nil {
		return err
	}
	if err := p.settled(ctx, s); err != nil {
		return err
	}
	if err := p.listFiles(ctx, s, m); err != nil {
		return err
	}
	p.remember(s, m)
	return p.record(ctx, s)
}

// learnLimit is the time limit for determining the identity of the machine.
const learnLimit = 2 * time.Minute

// leftoversLimit is the time limit of the search for leftovers.
const leftoversLimit = 10 * time.Minute

// leftovers removes files that must not be in the image, or closes the gate.
func (p *pipeline) leftovers(ctx context.Context, s *step.Scope, m builder.Machine) error {
	return step.Run(ctx, s, "look for leftovers", func(ctx context.Context) error {
		within, cancel := context.WithTimeoutCause(ctx, leftoversLimit, fmt.Errorf("the machine was not searched within %s", leftoversLimit))
		defer cancel()
		report, err := p.leftoversPlan().Remove(within, m)
		if err != nil {
			return closed(ctx, err)
		}
		return p.judge(ctx, s, "leftovers", s.Build, findings.Gate{}, []findings.Report{report})
	})
}

// tooShort warns about sensitive variables whose values are too short to be searched
// for.
func (p *pipeline) tooShort() (diags hcl.Diagnostics) {
	for _, v := range p.Template.Variables {
		short := false
		if v.Sensitive {
			lang.Strings(v.Value, func(text string) {
				text = strings.TrimSpace(text)
				short = short || text != "" && len(text) < leftovers.Shortest
			})
		}
		if short {
			diags = append(diags, &hcl.Diagnostic{
				Severity: hcl.DiagWarning, Summary: "Secret too short to be looked for", Subject: &v.Range,
				Detail: fmt.Sprintf("The value of var.%s has fewer than %d characters, which are in files by chance: the machine is not searched for it before it becomes an image.", v.Name, leftovers.Shortest),
			})
		}
	}
	return diags
}

func (p *pipeline) leftoversPlan() leftovers.Plan {
	var plan leftovers.Plan
	if l := p.image.Image.Leftovers; l != nil {
		plan.Allow = l.Allow
	}
	plan.Secrets = p.Template.Sensitive()
	return plan
}

// made verifies the image, and attests it.
func (p *pipeline) made(ctx context.Context, s *step.Scope, image builder.Image, provision engine.Provision) error {
	s = s.As("bake")
	if err := p.verify(ctx, s, image, provision); err != nil {
		return err
	}
	if err := p.record(ctx, s); err != nil { // the comparison needs the record
		return err
	}
	if err := p.compare(ctx, s, image); err != nil {
		return err
	}
	if err := p.record(ctx, s); err != nil {
		return err
	}
	return p.attest(ctx, s, image)
}

func (p *pipeline) verify(ctx context.Context, s *step.Scope, image builder.Image, provision engine.Provision) error {
	if len(p.image.Image.Verify) == 0 {
		return nil
	}
	p.mu.Lock()
	of := p.identity
	p.mu.Unlock()
	if of == nil { // an earlier process of the run has made the image
		id, ok := step.Recall[verify.Identity](s, identityIs)
		if !ok {
			return closed(ctx, errors.New("the image cannot be verified: nothing is known of the machine that it was made of"))
		}
		of = &id
	}
	for i := range p.image.Image.Verify {
		plan := p.plan(i, provision)
		plan.Files = p.sameFiles(s, p.image.Image.Verify[i].MayChange)
		if err := plan.Run(ctx, s, image, *of); err != nil {
			return err
		}
		p.passed(s, "verify."+p.image.Image.Verify[i].Name)
	}
	return nil
}

// plan returns the verification plan of a verify block.
func (p *pipeline) plan(i int, provision engine.Provision) verify.Plan {
	v := &p.image.Image.Verify[i]
	plan := verify.Plan{
		Name: v.Name, Types: v.InstanceTypes, User: v.SSHUsername, Reboots: v.Reboots, Timeout: v.Timeout, OnFailure: builder.RejectAction(v.OnFailure),
		Judge: func(ctx context.Context, s *step.Scope, machine string, found []findings.Report) error {
			return p.judge(ctx, s, "verify."+v.Name, machine, findings.Gate{}, found)
		},
		Leftovers: p.leftoversPlan().Search,
	}
	if len(v.Checks) > 0 {
		plan.Check = func(ctx context.Context, s *step.Scope, m builder.Machine, machine string) error {
			return p.check(ctx, s, m, "verify."+v.Name+".checks", machine, p.after[i])
		}
	}
	if all := p.image.Provisioners[i]; len(all) > 0 {
		plan.Provision = func(ctx context.Context, m builder.Machine) error { return provision(ctx, m, all) }
	}
	return plan
}

// judge evaluates the gate for reports, shows and writes them, and returns an error if
// the gate is closed.
func (p *pipeline) judge(ctx context.Context, s *step.Scope, name, machine string, gate findings.Gate, found []findings.Report) error {
	for i := range found {
		found[i] = p.clean(found[i])
	}
	verdict := gate.Judge(found, p.Now())
	doc := findings.Document{Reports: found, Verdict: &verdict, Machine: machine, Version: p.Version}
	var table strings.Builder
	if err := doc.Write(&table, findings.Plain); err != nil {
		return err
	}
	s.Say(ctx, "%s", strings.TrimRight(table.String(), "\n"))
	if err := p.write(ctx, s, name, machine, doc); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if verdict.Open {
		return nil
	}
	return &gateError{name, machine, verdict}
}

// clean masks secrets in a report.
func (p *pipeline) clean(r findings.Report) findings.Report {
	redact := p.Template.Secrets().Redact
	redacted := func(texts []string) (clean []string) {
		for _, t := range texts {
			clean = append(clean, redact(t))
		}
		return clean
	}
	all := append([]findings.Finding(nil), r.Findings...)
	for i := range all {
		f := &all[i]
		for _, text := range []*string{&f.ID, &f.Title, &f.Evidence, &f.Rationale, &f.Fix, &f.Waiver} {
			*text = redact(*text)
		}
		f.Refs = redacted(f.Refs)
	}
	r.Tool, r.Warnings, r.Findings = redact(r.Tool), redacted(r.Warnings), all
	return r
}

// gateError is the error of a closed gate.
type gateError struct {
	name, machine string
	verdict       findings.Verdict
}

// named is the maximum number of findings that an error lists.
const named = 5

func (e *gateError) Error() string {
	text := fmt.Sprintf("%s: the gate is closed: %s", e.name, strings.Join(e.verdict.Reasons, "; "))
	n := 0
	for _, r := range e.verdict.Reports {
		for _, f := range r.Findings {
			if f.Result != findings.Fail && f.Result != findings.Error {
				continue
			}
			if n++; n <= named {
				text += "\n  " + f.ID
				for _, more := range []string{f.Title, f.Evidence} {
					if more != "" {
						text += ": " + more
					}
				}
				if f.Fix != "" {
					text += " (" + f.Fix + ")"
				}
			}
		}
	}
	if n > named {
		text += fmt.Sprintf("\n  and %d more", n-named)
	}
	return text
}

// Is reports that e matches [builder.ErrGate].
func (e *gateError) Is(target error) bool { return target == builder.ErrGate }

// closedError is the error of a gate that could not be evaluated.
type closedError struct{ error }

func (e closedError) Unwrap() []error { return []error{e.error, builder.ErrGate} }

// closed turns err into the error of a gate, unless the build was cancelled.
func closed(ctx context.Context, err error) error {
	if err == nil || context.Cause(ctx) != nil {
		return err
	}
	return closedError{err}
}
