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
		Short: "Print the IAM policy that a command of bake images needs",
		Long: `Print, as JSON, the smallest IAM policy with which a command of bake images can do all
that it does in AWS, such as copy or rm. AWS is not called. Without -regions it allows
that in all regions, and in each case for all images: a condition on a tag of yours, such
as "aws:ResourceTag/team", limits it further. Commands that only look need no right to
change anything. With -role, the command may assume that role in other accounts, which its
own -role or the image block names. What the role itself needs is not covered.`,
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
				return usageError{fmt.Sprintf("bake images %s takes no role: leave -role out", args[0]), cmd.CommandPath()}
			case !ok:
				return usageError{fmt.Sprintf("there is no policy for %q; the commands are %s", args[0], strings.Join(images.Commands(), ", ")), cmd.CommandPath()}
			}
			return p.showPolicy(document)
		},
	}
	cmd.Flags().StringSliceVar(&regions, "regions", nil, "allow it in these `regions` only, separated by commas")
	cmd.Flags().StringVar(&role, "role", "", "allow it to take this `role` in other accounts, whose ARN has {account} for their numbers")
	p.jsonFlag(cmd)
	return cmd
}
