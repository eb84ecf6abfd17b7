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
		Short: "Cancel the run of a fleet that is in progress",
		Long: `Cancel the run of a fleet that is in progress: cells that wait do not begin, and what the
others have made is deleted. Images that are finished stay, and those that soak or wait for
approval enter no channel by themselves any more. The command returns once that is done.`,
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
		Short: "Begin no more cells of a fleet",
		Long: `Keep the cells of a fleet from beginning, until 'bake fleet resume': in the run that is in
progress, and in new ones that nobody asks for. With an engine block these are the runs of
its schedule, and 'bake fleet run' runs the fleet all the same; without one, cron may have
called 'bake fleet run', so that it runs nothing. Cells that have begun go on, and images
that are finished enter their channels as ever, which 'bake fleet cancel' ends.`,
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
		Short: "End the pause of a fleet",
		Long: `End the pause of a fleet. A run whose process has died is gone on with by
'bake fleet run -resume'.`,
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
