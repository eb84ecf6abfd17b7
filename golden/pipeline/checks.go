package pipeline

import (
	"context"
	"time"

	"github.com/hashicorp/hcl/v2"

	"bake/builder"
	"bake/golden/checks"
	"bake/golden/checks/facts"
	"bake/golden/findings"
	"bake/golden/gates"
	"bake/step"
)

// suite holds checks and their gate.
type suite struct {
	checks *checks.Checks
	gate   findings.Gate
}

// load reads the checks and waivers of the pipeline.
func (p *pipeline) load() (diags hcl.Diagnostics) {
	image := p.image.Image
	for i := range image.Checks {
		c := &image.Checks[i]
		one, more := p.suite(&c.Files, c.Gate, checks.Options{Remediate: c.Remediate})
		p.before, diags = append(p.before, one), append(diags, more...)
	}
	for i := range image.Verify {
		v := &image.Verify[i]
		var one suite
		if len(v.Checks) > 0 {
			var more hcl.Diagnostics
			one, more = p.suite(&v.Checks, v.Gate, checks.Options{RetryTimeout: patience})
			diags = append(diags, more...)
		}
		p.after = append(p.after, one)
	}
	return append(diags, p.loadScans()...)
}

// patience is how long checks are retried on a machine that has just started.
const patience = 20 * time.Second

// suite reads check files, listed in the given option, and the waivers of their gate.
func (p *pipeline) suite(files *[]string, gate *gates.Options, o checks.Options) (suite, hcl.Diagnostics) {
	o.Files, o.As = *files, facts.Root
	loaded, diags := checks.Load(o)
	judge, more := p.gate(gate)
	return suite{checks: loaded, gate: judge}, append(placed(diags, p.image.Src.Range(files)), more...)
}

// gate returns the gate of a block, with its waivers; nil is the zero gate.
func (p *pipeline) gate(o *gates.Options) (findings.Gate, hcl.Diagnostics) {
	if o == nil {
		return findings.Gate{}, nil
	}
	var waivers []findings.Waiver
	var diags hcl.Diagnostics
	if o.Waivers != "" {
		waivers, diags = gates.ReadWaivers(o.Waivers)
	}
	return o.Gate(waivers), placed(diags, p.image.Src.Range(&o.Waivers))
}

// placed adds a location to diagnostics without one.
func placed(diags hcl.Diagnostics, at *hcl.Range) (all hcl.Diagnostics) {
	for _, d := range diags {
		c := *d
		if c.Subject == nil {
			c.Subject = at
		}
		all = append(all, &c)
	}
	return all
}

// check runs checks on a machine, and evaluates their gate.
func (p *pipeline) check(ctx context.Context, s *step.Scope, m builder.Machine, name, machine string, one suite) error {
	return step.Run(ctx, s, "run the checks ("+name+")", func(ctx context.Context) error {
		reports, err := one.checks.Run(ctx, m.Communicator)
		if err != nil {
			return closed(ctx, err)
		}
		return p.judge(ctx, s, name, machine, one.gate, reports)
	})
}
