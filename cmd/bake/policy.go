package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/fleet"
	"bake/run"
	"bake/ui"
)

// policyLimit is IAM's limit on the size of a managed policy in characters, not counting
// white space.
const policyLimit = 6144

// policyOptions are the flags of bake policy.
type policyOptions struct {
	templateFlags
	path      string
	fleet     string
	of        choice
	principal string
}

// The kinds of policies of a fleet.
const (
	ofRole   = "role"
	ofWorker = "worker"
	ofTrust  = "trust"
)

func (p *program) policyCommand() *cobra.Command {
	o := policyOptions{of: choice{value: ofRole, values: []string{ofRole, ofWorker, ofTrust}}}
	cmd := &cobra.Command{
		Use:   "policy TEMPLATE",
		Short: "Print the IAM policy that a template's builds need in AWS",
		Long: `Print, as JSON, the smallest IAM policy that a template's builds need in AWS. It covers
everything that the data sources, builders and post-processors call with their options,
and the cleanup after a failed build. Where AWS supports it, changing and deleting is
limited to resources with the tag bake:run. AWS is not called: where a value depends on a
data source, every possible value is allowed.

A template that does not set a region gets a policy for all regions. Limits: the policy
does not allow -force (set force_deregister to include that) or assuming the role in
assume_role (it is the policy of that role), and with an iam_instance_profile it allows
passing any role to EC2, since the template does not name the role of the profile.

With -fleet, print the policy of the roles that the cells of a fleet assume, in the
regions of the fleet. With -for worker, print that of the principal that runs bake or its
workers: it may assume these roles, bake the cells that have no role, and write the
reports. With -for trust, print the trust policy of the roles, which lets -principal
assume them.`,
		Example: `  bake policy template.pkr.hcl
  bake policy -fleet nightly . > role.json
  bake policy -fleet nightly -for worker . > worker.json
  bake policy -fleet nightly -for trust -principal arn:aws:iam::333333333333:role/bake-worker .
  bake policy -only='*.web' -var-file=prod.pkrvars.hcl . > policy.json
  aws iam create-policy --policy-name bake --policy-document file://policy.json`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.policy(ctx, o) })
		},
	}
	flags := cmd.Flags()
	o.register(flags)
	flags.StringVar(&o.fleet, "fleet", "", "print a policy for the cells of this `fleet`")
	flags.Var(&o.of, "for", "with -fleet: `policy` to print: role (of the cells), worker, or trust (the trust policy of the roles)")
	flags.StringVar(&o.principal, "principal", "", "with -for trust: `ARN` of the role or user that may assume the roles")
	p.jsonFlag(cmd)
	return cmd
}

// policyResult is the output of bake policy -json.
type policyResult struct {
	Policy any `json:"policy"`
}

func (p *program) policy(ctx context.Context, o policyOptions) error {
	template, err := o.template(p, "bake policy", o.path)
	if err != nil {
		return err
	}
	of := run.PolicyFor{}
	switch {
	case o.fleet == "" && (o.of.value != ofRole || o.principal != ""):
		return usageError{"-for and -principal require -fleet", "bake policy"}
	case (o.of.value == ofTrust) != (o.principal != ""):
		return usageError{"-for trust and -principal must be used together", "bake policy"}
	case o.fleet != "":
		var shown bool
		if of, shown, err = p.fleetPolicy(ctx, o); shown || err != nil {
			return err
		}
	}
	policy, doubts, err := run.Policy(ctx, template, p.components(template.Options, false)(ctx, p.parts()), of)
	if p.json.on || p.machineReadable {
		p.diagnostics(doubts.Files, doubts.Diags)
	} else { // standard output is for the policy alone
		ui.Diagnostics(p.stderr, doubts.Files, doubts.Diags, 0, false)
	}
	if err != nil {
		return err
	}
	return p.showPolicy(policy)
}

// fleetPolicy returns the scope of the policy for the roles of a fleet, or for its
// workers. If o requests the trust policy, it shows that instead and sets shown.
func (p *program) fleetPolicy(ctx context.Context, o policyOptions) (of run.PolicyFor, shown bool, err error) {
	t, one, err := p.oneFleet(ctx, &fleetFlags{templateFlags: o.templateFlags, path: o.path}, "bake policy", []string{o.fleet})
	if err != nil {
		return of, false, err
	}
	switch o.of.value {
	case ofTrust:
		policy, err := fleet.TrustPolicyFor(o.principal)
		if err != nil {
			return of, false, usageError{"-principal: " + err.Error(), "bake policy"}
		}
		return of, true, p.showPolicy(policy)
	case ofWorker:
		of, err = t.WorkerPolicyFor(one)
		return of, false, err
	}
	of, err = t.PolicyFor(one)
	return of, false, err
}

// showPolicy prints a policy, with a warning if it is too long for a managed policy.
func (p *program) showPolicy(policy any) error {
	if p.json.on {
		p.json.result = policyResult{policy}
		return nil
	}
	var text, dense strings.Builder
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := errors.Join(enc.Encode(policy), json.NewEncoder(&dense).Encode(policy)); err != nil {
		return err
	}
	p.say(strings.TrimSuffix(text.String(), "\n"))
	if n := dense.Len(); n > policyLimit {
		fmt.Fprintf(p.stderr, "Note: IAM allows %d characters in a managed policy, and this one has %d; use -only to make one for some of the builds.\n", policyLimit, n)
	}
	return nil
}
