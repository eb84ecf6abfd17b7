package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"bake/builder/amazon/images"
	"bake/run"
)

// guardHelp explains, in the help of commands, what protects an image from deletion.
const guardHelp = `An image is in use, and stays, by these guards:
  held        it has the tag bake:hold, or deregistration protection
  channel     a parameter of Systems Manager of the type aws:ec2:image names it, or
              did before its last change; or one of another type has its ID in its text
  instances   an instance was launched from it and is not terminated
  templates   a launch template names it in its default or latest version, also
              through a parameter; with -all-template-versions, in any version
  scaling     an Auto Scaling group, also one of size 0, or a launch configuration
  fleets      an active EC2 Fleet or Spot Fleet
  references  EC2 knows another reference, such as a recipe of EC2 Image Builder
  recent      it was launched in the last 7 days (-launched-within), or made in the
              last 2: AWS reports launches up to a day late
  receivers   an account that it is shared with uses it: by AWS's usage report or,
              with -role, by the guards from channel to references, asked there
If a guard cannot decide, for example for lack of a permission, the image stays too.
-ignore-guard skips guards. CloudFormation and Terraform templates, and programs that
contain the ID of an image, are not searched.`

// guardFlags select the guards that protect images.
type guardFlags struct {
	ignore      []string
	recent      age
	allVersions bool
	role        images.Role
}

func (f *guardFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.ignore, "ignore-guard", nil, "`guards` to skip, separated by commas")
	flags.Var(&f.recent, "launched-within", "count launches within this `duration` as use, such as 24h or 30d; default: 7d")
	f.registerRole(flags)
	flags.BoolVar(&f.allVersions, "all-template-versions", false, "count every version of a launch template, not only the default and the latest one")
}

func (f *guardFlags) registerRole(flags *pflag.FlagSet) {
	flags.StringVar(&f.role.ARN, "role", "", "query the accounts that an image is shared with, by assuming this `role`: an ARN with {account} in place of the account ID")
	flags.StringVar(&f.role.ExternalID, "external-id", "", "external `ID` for assuming -role")
}

func (f *guardFlags) guards(p *program, command string) (images.Guards, error) {
	g := images.Guards{Ignore: f.ignore, Recent: time.Duration(f.recent), AllVersions: f.allVersions, Role: f.role, Now: p.now}
	if f.role.ARN == "" && f.role.ExternalID != "" {
		return g, usageError{"-external-id has no effect without -role", command}
	}
	if err := checkRole(f.role, command); err != nil {
		return g, err
	}
	if err := g.Check(); err != nil {
		return g, usageError{"-ignore-guard: " + err.Error(), command}
	}
	return g, nil
}

// checkRole returns an error if the value of -role is not the ARN of a role.
func checkRole(r images.Role, command string) error {
	if err := r.Check(); err != nil {
		return usageError{fmt.Sprintf("-role=%s: %v", r.ARN, err), command}
	}
	return nil
}

// guarded is the error when a guard has prevented a removal.
type guarded struct{ error }

func (g guarded) Unwrap() error { return g.error }

// Outcome gives the error its own exit code.
func (guarded) Outcome() run.Outcome { return gateClosed }

// ofGuard is err, with the exit code of a closed gate if a guard is the reason.
func ofGuard(err error) error {
	if used, ok := errors.AsType[*images.InUseError](err); ok {
		return guarded{errors.Join(err, errors.New(used.Advice()))}
	}
	return err
}
