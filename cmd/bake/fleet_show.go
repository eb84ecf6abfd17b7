package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/fleet"
	"bake/internal/delay"
	"bake/internal/prose"
	"bake/step"
)

func (p *program) fleetStatusCommand() *cobra.Command {
	var f fleetFlags
	var follow bool
	cmd := &cobra.Command{
		Use:   "status [FLEET]",
		Short: "Show the status of a fleet",
		Long: `Show the status of the current run of a fleet, or the result of the last one: each image
with its cells, and what each cell is doing or how it ended.`,
		Example: `  bake fleet status nightly
  bake fleet status nightly -follow
  bake fleet status nightly -json | jq '.cells[] | select(.state == "failed")'`,
		Args: atMost("the fleet"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onFleet(cmd, &f, args, func(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
				if follow {
					return p.followFleet(ctx, e, one)
				}
				s, err := e.Status(ctx, one)
				if err != nil {
					return err
				}
				s.Cells = list(s.Cells)
				p.json.result = s
				p.say(s.Tree(p.now()))
				return nil
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	cmd.Flags().BoolVar(&follow, "follow", false, "show changes as they happen, until the run has ended")
	return cmd
}

// followFleet shows each change of the cells until the run is over.
func (p *program) followFleet(ctx context.Context, e fleet.Engine, one *fleet.Fleet) error {
	changes := p.cellChanges()
	for {
		s, err := e.Status(ctx, one)
		if err != nil {
			return err
		}
		changes(s)
		if s.State != fleet.StateRunning && s.State != fleet.StatePaused {
			s.Cells = list(s.Cells)
			p.json.result = s
			p.say(s.Fleet + ": " + string(s.State))
			return nil
		}
		if err := delay.For(ctx, time.Second); err != nil {
			return err
		}
	}
}

// cellChanges returns what shows the changes of cells since it was called before.
func (p *program) cellChanges() func(fleet.Status) {
	shown := map[string]string{}
	unanswered := p.changes("unanswered", "The run can be asked again how it goes")
	unpolled := p.changes("unpolled", "Workers poll all task queues again")
	return func(s fleet.Status) {
		unanswered(s.UnansweredText(), struct {
			Unanswered string `json:"unanswered"`
		}{s.Unanswered})
		unpolled(s.UnpolledText(), struct {
			Unpolled []string `json:"unpolled"`
		}{list(s.Unpolled)})
		for _, c := range s.Cells {
			now := string(c.State) + " " + c.Phase
			if shown[c.Cell.ID()] == now {
				continue
			}
			shown[c.Cell.ID()] = now
			if p.json.on {
				p.writeJSON(p.header("cell"), c)
				continue
			}
			p.say(strings.TrimRight(fmt.Sprintf("%s %s: %s %s", p.now().Local().Format(time.TimeOnly), c.Cell.Short(), c.State, c.Does(p.now())), " "))
		}
	}
}

// changes returns a function that prints a text whenever it differs from the previous one. For an
// empty text, it prints over. In JSON, it prints the value as an object of that kind.
func (p *program) changes(kind, over string) func(text string, value any) {
	before := ""
	return func(text string, value any) {
		if text == before {
			return
		}
		before = text
		if p.json.on {
			p.writeJSON(p.header(kind), value)
			return
		}
		p.say(prose.Sentence(cmp.Or(text, over)))
	}
}

func (p *program) fleetLogsCommand() *cobra.Command {
	var f fleetFlags
	o := displayOptions{color: true, prompts: true}
	cmd := &cobra.Command{
		Use:   "logs CELL",
		Short: "Show the log of a cell",
		Long: `Show the log of a cell in the current run, or in the last one. CELL is
FLEET/IMAGE/ACCOUNT/REGION, or IMAGE/ACCOUNT/REGION if there is only one fleet.`,
		Example: `  bake fleet logs web/111111111111/eu-west-1`,
		Args:    exactly("the cell"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.onCell(cmd, &f, args[0], func(ctx context.Context, e fleet.Engine, one *fleet.Fleet, c fleet.Cell) error {
				feed := p.openFeed(o)
				defer feed.close()
				return e.Logs(ctx, one, c, func(e step.Event) { feed.emit(e) })
			})
		},
	}
	f.register(p, cmd)
	f.registerRehearsal(cmd.Flags())
	cmd.Flags().BoolVar(&o.color, "color", true, "disable colored output")
	cmd.Flags().BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line with a timestamp")
	return cmd
}
