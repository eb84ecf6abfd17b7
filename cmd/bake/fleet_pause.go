package main

import (
	"context"

	"github.com/spf13/cobra"

	"bake/fleet"
)

func (p *program) fleetCancelCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "cancel [FLEET]",
		Short: "Cancel the current run of a fleet",
		Long: `Cancel the current run of a fleet: waiting cells are not started, and what the running
cells have created is deleted. Finished images stay, but those that are soaking or waiting
for approval are no longer promoted automatically. The command returns when this is done.`,
		Example: `  bake fleet cancel nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Cancel(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is cancelled.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}

func (p *program) fleetPauseCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "pause [FLEET]",
		Short: "Stop starting cells of a fleet",
		Long: `Do not start any more cells of a fleet until 'bake fleet resume': neither in the current
run, whoever started it, nor in new ones. With an engine block, only new runs of its
schedule are held back: 'bake fleet run' still runs the fleet. Without one, it fails,
since cron may have called it. Running cells continue, and finished images are still
promoted to their channels; 'bake fleet cancel' stops both.`,
		Example: `  bake fleet pause nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Pause(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is paused.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}

func (p *program) fleetResumeCommand() *cobra.Command {
	var f fleetFlags
	cmd := &cobra.Command{
		Use:   "resume [FLEET]",
		Short: "Resume a paused fleet",
		Long: `Resume a fleet that was paused with 'bake fleet pause'. To continue a run whose process
has died, use 'bake fleet run -resume'.`,
		Example: `  bake fleet resume nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				err := e.Unpause(ctx, one)
				if err == nil {
					p.say("Fleet " + one.Name + " is not paused any more.")
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	return cmd
}
