package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/fleet"
	"bake/golden/channels"
	"bake/run"
	"bake/run/localcloud"
)

func (p *program) fleetApproveCommand() *cobra.Command {
	var f fleetFlags
	var by string
	cmd := &cobra.Command{
		Use:   "approve CELL CHANNEL",
		Short: "Approve the image of a cell for a channel",
		Long: `Approve the newest image of a cell for a channel whose block has approval = true. Without
an engine block, this does the same as 'bake images approve' in the account and region of
the cell: 'bake images promote' and the next run of the fleet read the approval. CELL is
FLEET/IMAGE/ACCOUNT/REGION, or IMAGE/ACCOUNT/REGION if there is only one fleet.`,
		Example: `  bake fleet approve web/111111111111/eu-west-1 stable`,
		Args:    exactly("the cell", "the channel"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onCell(cmd, &f, args[0], func(ctx context.Context, e fleet.Engine, one *fleet.Fleet, c fleet.Cell) error {
				if by != "" && one.Engine == nil {
					return usageError{"-by requires an engine block: without one, the approver is the owner of the AWS credentials", "bake fleet approve"}
				}
				if by == "" && one.Engine != nil {
					return usageError{"name the approver with -by NAME", "bake fleet approve"}
				}
				if err := p.hasChannel(ctx, &f, c, args[1]); err != nil {
					return err
				}
				if err := e.Approve(ctx, one, fleet.Approval{Cell: c, Channel: args[1], By: by, At: p.now()}); err != nil {
					return err
				}
				p.say("The image of " + c.Short() + " is approved for channel " + args[1] + ".")
				return nil
			})
		},
	}
	f.register(p, cmd)
	f.registerLocal(cmd.Flags())
	cmd.Flags().StringVar(&by, "by", "", "`name` of the approver; only with an engine block, otherwise AWS records whose credentials are used")
	return cmd
}

// hasChannel returns an error unless the image of a cell has a channel of that name that
// takes approvals.
func (p *program) hasChannel(ctx context.Context, f *fleetFlags, c fleet.Cell, name string) error {
	t, err := f.template(p, "bake fleet approve", f.path)
	if err != nil {
		return err
	}
	t.AllowUnset = true // no variable says which channels there are
	block, err := run.Image(ctx, t, p.components(t.Options, f.releases)(ctx, p.parts()), c.Image)
	if err != nil {
		return err
	}
	return block.Approvable(c.Image, name)
}

// approveCell approves the image of a cell in its account and region. clouds have the local
// cloud if this process has opened it; nil: it is opened for the approval.
func (p *program) approveCell(f *fleetFlags, clouds *localcloud.Clouds) func(context.Context, fleet.Outcome, fleet.Approval, fleet.Wait) error {
	return func(ctx context.Context, o fleet.Outcome, a fleet.Approval, wait fleet.Wait) (err error) {
		var cloud amazon.Cloud
		switch {
		case f.local && clouds != nil:
			if cloud, err = clouds.Named(ctx, localcloud.Name); err != nil {
				return err
			}
		case f.local:
			emit, done := p.progressDisplay()
			defer done()
			c, failed := p.openLocal(ctx, "", "", emit)
			if failed != nil {
				return failed
			}
			defer func() { err = errors.Join(err, c.Close(ctx)) }()
			cloud = c.Cloud
		}
		cloud.Wait = wait
		account, err := p.accountOf(ctx, cloud, o.Cell, "approve")
		if err != nil {
			return err
		}
		_, _, err = account.Approve(ctx, o.Image.ID, channels.ApprovalTag(a.Channel), a.At)
		return err
	}
}

// accountOf returns the account of a cell, in a session of its role that has this name.
func (p *program) accountOf(ctx context.Context, cloud amazon.Cloud, c fleet.Cell, session string) (*images.Account, error) {
	cloud.Within = fleet.Within(c, session)
	return images.Open(ctx, images.Place{Regions: []string{c.Region}, Env: p.env, Cloud: cloud})
}
