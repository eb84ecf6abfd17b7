package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon"
	"bake/run"
	"bake/ui"
)

// policyLimit is how many characters a managed policy can have, blanks not
// counted, as IAM has it.
const policyLimit = 6144

// policyOptions are the flags of bake policy.
type policyOptions struct {
	templateFlags
	path string
}

func (p *program) policyCommand() *cobra.Command {
	var o policyOptions
	cmd := &cobra.Command{
		Use:   "policy TEMPLATE",
		Short: "Print the IAM policy that a template's builds need in AWS",
		Long: `Print, as JSON, the smallest IAM policy with which bake can run a template's builds in
AWS. It covers what the data sources, builders and post-processors call with the
options they have, and the cleanup after a failed build. Where AWS supports it,
changing and deleting is limited to resources with the tag bake:run. AWS is not
called: where a value depends on a data source, every possible value is allowed.

A template that does not set a region gets a policy for all regions. Three things are
not covered: -force, which needs what force_deregister needs; the role of an
iam_instance_profile, which the template does not name, so that any role may be passed
to EC2; and assuming the role in assume_role, since this is the policy of that role.`,
		Example: `  bake policy template.pkr.hcl
  bake policy -only='*.web' -var-file=prod.pkrvars.hcl . > policy.json
  aws iam create-policy --policy-name bake --policy-document file://policy.json`,
		Args: exactly("the template"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.path = args[0]
			return interruptible(cmd.Context(), func(ctx context.Context) error { return p.policy(ctx, o) })
		},
	}
	o.register(cmd.Flags())
	p.jsonFlag(cmd)
	return cmd
}

// policyResult is what bake policy prints with -json.
type policyResult struct {
	Policy amazon.Policy `json:"policy"`
}

func (p *program) policy(ctx context.Context, o policyOptions) error {
	template, err := o.template(p, "bake policy", o.path)
	if err != nil {
		return err
	}
	policy, doubts, err := run.Policy(ctx, template, p.components(template.Options, false)(ctx, p.parts()))
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

// showPolicy shows a policy, and says if it is too long for a managed one.
func (p *program) showPolicy(policy amazon.Policy) error {
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
