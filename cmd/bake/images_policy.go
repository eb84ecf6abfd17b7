package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/builder/amazon/images"
)

func (p *program) imagesPolicyCommand() *cobra.Command {
	var regions []string
	var role string
	cmd := &cobra.Command{
		Use:   "policy COMMAND",
		Short: "Print the IAM policy that a bake images command needs",
		Long: `Print, as JSON, the smallest IAM policy for a bake images command, such as copy or rm.
AWS is not called. Without -regions, the policy covers all regions. It always covers all
images; add a condition on a tag of yours, such as "aws:ResourceTag/team", to narrow it.
Read-only commands get read-only permissions. With -role, the policy also allows assuming
that role in other accounts; the permissions of the role itself are not included.`,
		Example: `  bake images policy list
  bake images policy rm -regions us-east-1,eu-west-1 > policy.json
  bake images policy promote -role arn:aws:iam::{account}:role/bake`,
		Args:      exactly("the command"),
		ValidArgs: images.Commands(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkRole(images.Role{ARN: role}, cmd.CommandPath()); err != nil {
				return err
			}
			document, ok := images.PolicyFor(args[0], regions, role)
			switch {
			case ok && role != "" && !images.TakesRole(args[0]):
				return usageError{fmt.Sprintf("bake images %s does not use a role: omit -role", args[0]), cmd.CommandPath()}
			case !ok:
				return usageError{fmt.Sprintf("there is no policy for %q; the commands are %s", args[0], strings.Join(images.Commands(), ", ")), cmd.CommandPath()}
			}
			return p.showPolicy(document)
		},
	}
	cmd.Flags().StringSliceVar(&regions, "regions", nil, "limit the policy to these `regions`, separated by commas")
	cmd.Flags().StringVar(&role, "role", "", "allow assuming this `role` in other accounts: an ARN with {account} in place of the account ID")
	p.jsonFlag(cmd)
	return cmd
}
