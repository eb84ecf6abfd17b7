package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"bake/fleet"
)

func (p *program) fleetApplyCommand() *cobra.Command {
	var f fleetFlags
	var prune bool
	cmd := &cobra.Command{
		Use:   "apply [FLEET]",
		Short: "Create or update the schedule of a fleet",
		Long: `Create or update the schedule of a fleet in Temporal according to its schedule block, and
whatever else the fleet needs there, such as the schedule of its janitor, which deletes
what terminated workflows left behind. If the fleet no longer has a schedule block, its
schedule is deleted; with -prune, so are the schedules of fleets that are no longer in the
template.

This requires an engine block. Without one, no bake process keeps running between runs:
let cron or a systemd timer call 'bake fleet run'.`,
		Example: `  bake fleet apply nightly`,
		Args:    atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				done, err := e.Apply(ctx, one, prune)
				if errors.Is(err, fleet.ErrNotHere) {
					return noSchedule(one)
				}
				done.Changes = list(done.Changes)
				p.json.result = done
				said := done.Changes
				switch {
				case err != nil: // some may be done
				case len(said) == 0:
					said = []string{"Nothing has changed."}
				case one.Schedule == nil:
					said = append(said, fmt.Sprintf("The fleet %s has no schedule block: only bake fleet run %s runs it.", one.Name, one.Name))
				}
				if len(done.Stale) > 0 && !prune {
					said = append(said, fmt.Sprintf("The template has no fleets any more for the schedules %s: bake fleet apply -prune deletes them.", strings.Join(done.Stale, ", ")))
				}
				if len(said) > 0 {
					p.say(strings.Join(said, "\n"))
				}
				return err
			})
		},
	}
	f.register(p, cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "delete the schedules of fleets that are no longer in the template")
	return cmd
}

// noSchedule explains how to schedule a fleet without an engine.
func noSchedule(f *fleet.Fleet) error {
	cron, zone := "30 2 * * *", ""
	if s := f.Schedule; s != nil {
		cron, zone = s.Cron, "CRON_TZ="+s.Timezone+"\n  "
	}
	return fmt.Errorf(`the template has no engine block, so that there is nothing that begins the fleet by a schedule. Add one for Temporal, or have cron do it, with a line such as

  %s%s cd DIRECTORY && bake fleet run %s

or a timer of systemd`, zone, cron, f.Name)
}
