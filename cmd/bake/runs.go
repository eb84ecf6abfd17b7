package main

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bake/internal/prose"
	"bake/run"
	"bake/ui"
)

func (p *program) runsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "runs",
		Short: "List past and current runs",
		Long: `List the runs of bake build whose logs are kept, newest first: when each started, how
long it took, how it ended, the images it made, the number of resources that are left, and
its command line. Logs are kept in $BAKE_STATE_DIR/runs: those of the last 100 runs, up to
256 MiB, and those of runs that left resources behind or can be resumed.

A run that is shown as crashed was killed, or lost power: its log ends abruptly. If a run
is shown as damaged, its ledger cannot be read completely, so more resources may be left.
'bake resume' continues a run that is resumable, some of them only with -from.
'bake sweep' deletes what runs left behind.`,
		Example: `  bake runs
  bake runs -json`,
		Args: exactly(),
		RunE: func(*cobra.Command, []string) error { return p.listRuns() },
	}
	p.jsonFlag(cmd)
	return cmd
}

// runsResult is the output of bake runs -json.
type runsResult struct {
	Runs []run.Past `json:"runs"`
}

func (p *program) listRuns() error {
	state, err := p.env.state()
	if err != nil {
		return err
	}
	all, err := state.List()
	p.json.result = runsResult{list(all)}
	if len(all) == 0 {
		p.say("There are no runs: bake build keeps the logs of its runs in " + state.Runs() + ".")
		return err
	}
	table := prose.NewTable("RUN", "STARTED", "TOOK", "RESULT", "LEFT", "IMAGES", "COMMAND")
	for _, r := range all {
		result, left := string(r.State), strconv.Itoa(len(r.Left))
		if r.Resumable {
			result += ", resumable"
		}
		if r.Damage != "" {
			result, left = result+", damaged", left+"?"
		}
		table.Row(run.ShortID(r.Run), r.Started.Local().Format(time.DateTime), r.Elapsed.Round(time.Second), result, left, imagesOf(r), prose.OneLine(r.Command))
	}
	text := table.Within(p.stdout.columns())
	for _, r := range all {
		if r.Damage != "" {
			text += fmt.Sprintf("\nRun %s is damaged: %s", run.ShortID(r.Run), prose.Printable(r.Damage))
		}
	}
	p.say(text)
	return err
}

// imagesOf returns one image of a run, and how many more there are.
func imagesOf(r run.Past) string {
	var all []string
	for _, b := range r.Builds {
		for _, region := range slices.Sorted(maps.Keys(b.Images)) {
			all = append(all, region+":"+b.Images[region])
		}
	}
	switch len(all) {
	case 0:
		return "-"
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s and %d more", all[0], len(all)-1)
}

func (p *program) logCommand() *cobra.Command {
	var timeline bool
	o := displayOptions{color: true, prompts: true}
	cmd := &cobra.Command{
		Use:   "log [RUN]",
		Short: "Show the log of a run",
		Long: `Show the output of a run of bake build again or, with -timeline, when each step started
and how long it took. RUN is the ID of a run, or its beginning, as bake runs lists it; the
default is the newest run.`,
		Example: `  bake log
  bake log 5e0d7c1e -timeline
  bake log 5e0d7c1e -json | jq 'select(.kind == "step-failed")'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usageError{"bake log takes at most one run", cmd.CommandPath()}
			}
			return p.showLog(strings.Join(args, ""), timeline, o)
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&timeline, "timeline", false, "show when each step began and how long it took")
	flags.BoolVar(&o.color, "color", true, "disable colored output")
	flags.BoolVar(&o.timestamps, "timestamp-ui", false, "prefix each line of a build's output with a timestamp")
	p.jsonFlag(cmd)
	return cmd
}

func (p *program) showLog(prefix string, timeline bool, o displayOptions) error {
	if timeline && (p.json.on || p.machineReadable) {
		return usageError{"-timeline cannot be combined with -json or -machine-readable", "bake log"}
	}
	state, err := p.env.state()
	if err != nil {
		return err
	}
	id, err := state.Find(prefix)
	if err != nil {
		return err
	}
	if timeline {
		width, _ := p.stdout.size()
		t := ui.NewTimeline(p.stdout, width)
		if err := state.Events(id, t.Handle); err != nil {
			return err
		}
		return t.Close()
	}
	o.log = state.Log(id)
	feed := p.openFeed(o)
	defer feed.close()
	return state.Events(id, feed.emit)
}
